//! Processes with another wall clock, by libfaketime. Their timers are right: the monotonic clock is the real
//! one.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Offset of the clock in seconds. Every process that inherits it has the same clock, whenever it starts.
const OFFSET: &str = "FAKETIME";
const DAY_S: i64 = 86_400;
/// The length of the tests' start at the end of a month. Servers start and databases are created in these
/// seconds, and the tests continue in the next month.
const MONTH_END_S: i64 = 15;

/// Path of the library of Debian's package `libfaketime`. None if it is not installed.
fn library() -> Option<PathBuf> {
    std::fs::read_dir("/usr/lib").ok()?.flatten().find_map(|entry| {
        let library = entry.path().join("faketime/libfaketimeMT.so.1");
        library.exists().then_some(library)
    })
}

/// Redis allocates by jemalloc, which asks for the time before libfaketime can answer, and both wait forever.
/// With this library of glibc before it, the allocator is glibc's.
fn allocator() -> Option<PathBuf> {
    let library = library()?.parent()?.with_file_name("libc_malloc_debug.so.0");
    library.exists().then_some(library)
}

/// The environment of a process whose clock is `offset_s` seconds ahead of this process; `None` if
/// libfaketime is not installed.
pub fn variables(offset_s: i64) -> Option<Vec<(&'static str, String)>> {
    let libraries: Vec<_> = allocator().into_iter().chain([library()?]).collect();
    let libraries = libraries.iter().map(|library| library.to_str()).collect::<Option<Vec<_>>>()?;
    let own_s = std::env::var(OFFSET).ok().and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    Some(vec![
        ("LD_PRELOAD", libraries.join(":")),
        (OFFSET, format!("{:+}", own_s + offset_s)),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        // File times are not changed, because the build compares them.
        ("NO_FAKE_STAT", "1".to_owned()),
    ])
}

/// A date at which mistakes with dates show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moment {
    Tomorrow,
    /// [`MONTH_END_S`] before the end.
    MonthEnd,
    MonthBegin,
    LeapDay,
    NextYear,
}

impl Moment {
    pub const ALL: [Self; 5] =
        [Self::Tomorrow, Self::MonthEnd, Self::MonthBegin, Self::LeapDay, Self::NextYear];

    pub fn name(self) -> &'static str {
        match self {
            Self::Tomorrow => "tomorrow",
            Self::MonthEnd => "month-end",
            Self::MonthBegin => "month-begin",
            Self::LeapDay => "leap-day",
            Self::NextYear => "next-year",
        }
    }

    /// The offset that makes the present time this date.
    pub fn offset_s(self) -> i64 {
        let now_s =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        self.after(now_s) - now_s
    }

    /// The next such moment, in seconds since 1970.
    fn after(self, now_s: i64) -> i64 {
        let (year, month) = month_of(now_s);
        match self {
            Self::Tomorrow => now_s + DAY_S,
            // Skip the present month: its end may be a minute away, and then the next date is the same.
            Self::MonthEnd => begin_of(year, month + 2) - MONTH_END_S,
            Self::MonthBegin => begin_of(year, month + 2),
            Self::LeapDay => {
                let noon_s = |year: i64| begin_of(year, 3) - DAY_S / 2;
                let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
                (year..)
                    .filter(|year| is_leap(*year))
                    .map(noon_s)
                    .find(|at_s| *at_s > now_s)
                    .expect("there is one")
            }
            Self::NextYear => now_s + 365 * DAY_S,
        }
    }
}

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|moment| moment.name() == text)
            .ok_or_else(|| format!("`{text}` is not one of {}", names()))
    }
}

/// Midnight of the first day of a month. Months above 12 belong to the following years.
fn begin_of(year: i64, month: i64) -> i64 {
    let (year, month) = (year + (month - 1).div_euclid(12), (month - 1).rem_euclid(12) + 1);
    // Years begin in March here, so that the leap day is the last day (Howard Hinnant, "chrono-compatible
    // low-level date algorithms").
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5;
    let year_of_era = year - era * 400;
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    days * DAY_S
}

/// The year and month of a time.
fn month_of(at_s: i64) -> (i64, i64) {
    let mut year = 1970 + at_s.div_euclid(366 * DAY_S);
    while begin_of(year + 1, 1) <= at_s {
        year += 1;
    }
    let month = (1..=12).rev().find(|month| begin_of(year, *month) <= at_s).expect("a year has months");
    (year, month)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-30T00:00:00Z.
    const NOW_S: i64 = 1_795_996_800;

    #[test]
    fn each_moment_is_at_its_calendar_date() {
        assert_eq!((begin_of(1970, 1), month_of(0)), (0, (1970, 1)));
        assert_eq!(month_of(NOW_S), (2026, 11));
        for (moment, at_s) in [
            (Moment::Tomorrow, NOW_S + DAY_S),
            // 2026-12-31T23:59:45Z, 2027-01-01T00:00:00Z, 2028-02-29T12:00:00Z
            (Moment::MonthEnd, 1_798_761_585),
            (Moment::MonthBegin, 1_798_761_600),
            (Moment::LeapDay, 1_835_438_400),
            (Moment::NextYear, NOW_S + 365 * DAY_S),
        ] {
            assert_eq!(moment.after(NOW_S), at_s, "{moment:?}");
            assert_eq!(moment.name().parse(), Ok(moment));
        }
        assert_eq!(month_of(1_798_761_599), (2026, 12));
        assert!("noon".parse::<Moment>().is_err());
    }
}
