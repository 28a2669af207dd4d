//! Cron expressions of schedules: five fields in a time zone. Pure: the caller passes the time.
//!
//! The rules of the time zones are compiled into the host (`jiff`), so that every node has the same ones,
//! whatever is installed on its machine.
//!
//! A change of the clocks never loses a run, and repeats one only where the hours are not chosen:
//!
//! - A time that the clocks skip runs later by the length of the gap: 02:30 becomes 03:30. If another time of
//!   the schedule is the same moment, both are one run.
//! - A time that the clocks repeat runs at its first occurrence only. If the field of the hours is `*`, it
//!   runs at both, so that `*/15 * * * *` runs each quarter of an hour in every case.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::limits;

static TIME_ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A cron expression with its time zone.
#[derive(Clone)]
pub struct Cron {
    expression: String,
    zone_name: String,
    zone: TimeZone,
    minutes: Field,
    hours: Field,
    days: Field,
    months: Field,
    weekdays: Field,
}

/// The values of one field that match, one bit for each.
#[derive(Clone, Copy)]
struct Field {
    bits: u64,
    /// The field is `*`: it restricts nothing.
    is_any: bool,
}

impl Cron {
    /// Parses an expression. `zone` is a name of the IANA database, such as `Europe/Berlin`; the default is
    /// UTC.
    ///
    /// # Errors
    /// The text says what is wrong, for the author of a manifest.
    pub fn parse(expression: &str, zone: Option<&str>) -> Result<Self, String> {
        let zone_name = zone.unwrap_or("UTC");
        let zone = TIME_ZONES.get(zone_name).map_err(|_| {
            format!("`time_zone` is not a name of the IANA database, such as `Europe/Berlin`: `{zone_name}`")
        })?;
        if expression.len() > limits::CRON_BYTES_MAX {
            return Err(format!("`cron` has more than {} bytes", limits::CRON_BYTES_MAX));
        }
        let fields: Vec<&str> = expression.split_ascii_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!(
                "`cron` has five fields (minute, hour, day of the month, month, day of the week), not {}: \
                 `{expression}`",
                fields.len()
            ));
        };
        let field = |text: &str, name: &str, range: (u8, u8), words: &[&str]| {
            Field::parse(text, range, words).map_err(|why| format!("`cron`, {name} `{text}`: {why}"))
        };
        let mut weekdays = field(weekdays, "day of the week", (0, 7), &WEEKDAYS[..])?;
        // Sunday is 0 and 7.
        weekdays.bits |= (weekdays.bits >> 7) & 1;
        let cron = Self {
            expression: expression.to_owned(),
            zone_name: zone_name.to_owned(),
            zone,
            minutes: field(minutes, "minute", (0, 59), &[])?,
            hours: field(hours, "hour", (0, 23), &[])?,
            days: field(days, "day of the month", (1, 31), &[])?,
            months: field(months, "month", (1, 12), &MONTHS[..])?,
            weekdays,
        };
        match cron.next(0) {
            Some(_) => Ok(cron),
            None => Err(format!("`cron` never matches a day: `{expression}`")),
        }
    }

    pub fn expression(&self) -> &str {
        &self.expression
    }

    pub fn time_zone(&self) -> &str {
        &self.zone_name
    }

    /// Returns the first time after `after_ms`. Both are in milliseconds since 1970 UTC. `None`: there is
    /// none within [`limits::CRON_DAYS_MAX`] days, or the time is beyond the calendar.
    pub fn next(&self, after_ms: u64) -> Option<u64> {
        let after = Timestamp::from_millisecond(i64::try_from(after_ms).ok()?).ok()?;
        // A gap can move a time of the day before to a time after `after`.
        let mut date = self.zone.to_datetime(after).date().yesterday().ok()?;
        for _ in 0..limits::CRON_DAYS_MAX {
            if self.has_day(date)
                && let Some(found) = self.first_of_day(date, after)
            {
                return u64::try_from(found.as_millisecond()).ok();
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn has_day(&self, date: Date) -> bool {
        let of_month = self.days.has(date.day());
        let of_week = self.weekdays.has(date.weekday().to_sunday_zero_offset());
        // As cron always did: two restricted fields for days are two ways to choose one.
        let is_chosen = match (self.days.is_any, self.weekdays.is_any) {
            (false, false) => of_month || of_week,
            _ => of_month && of_week,
        };
        self.months.has(date.month()) && is_chosen
    }

    /// Returns the first moment of this day after `after`.
    fn first_of_day(&self, date: Date, after: Timestamp) -> Option<Timestamp> {
        let hours = (0..24).filter(|hour| self.hours.has(*hour));
        let times = hours.flat_map(|hour| {
            let minutes = (0..60).filter(|minute| self.minutes.has(*minute));
            minutes.map(move |minute| date.at(hour, minute, 0, 0))
        });
        times.flat_map(|time| self.moments(time)).flatten().filter(|moment| *moment > after).min()
    }

    /// The moments of a local time: one, or two if the clocks repeat it and the hours are not chosen.
    fn moments(&self, time: DateTime) -> [Option<Timestamp>; 2] {
        let moment = || self.zone.to_ambiguous_timestamp(time);
        // In a gap, both are the later moment. In a repetition, `compatible` is the first one.
        let again = self.hours.is_any.then(|| moment().later().ok()).flatten();
        [moment().compatible().ok(), again]
    }
}

impl Field {
    fn parse(text: &str, (first, last): (u8, u8), words: &[&str]) -> Result<Self, String> {
        let mut bits = 0;
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                None => (part, None),
                Some((range, step)) => (range, Some(number(step)?)),
            };
            let (from, to) = match range.split_once('-') {
                _ if range == "*" => (first, last),
                Some((from, to)) => (value(from, first, words)?, value(to, first, words)?),
                None => {
                    let from = value(range, first, words)?;
                    // `5/15` is 5, 20, 35, 50.
                    (from, if step.is_some() { last } else { from })
                }
            };
            if from < first || to > last {
                return Err(format!("the values are {first} to {last}"));
            }
            if from > to {
                return Err("a range begins with its smaller value".to_owned());
            }
            let step = step.unwrap_or(1);
            if step == 0 {
                return Err("a step is at least 1".to_owned());
            }
            for value in (from..=to).step_by(step.into()) {
                bits |= 1 << value;
            }
        }
        Ok(Self { bits, is_any: text == "*" })
    }

    /// Calendars count in signed bytes.
    fn has(self, value: i8) -> bool {
        u8::try_from(value).is_ok_and(|value| (self.bits >> value) & 1 == 1)
    }
}

/// A number, or one of the words, the first of which means `first`.
fn value(text: &str, first: u8, words: &[&str]) -> Result<u8, String> {
    match words.iter().position(|word| word.eq_ignore_ascii_case(text)) {
        // There are at most twelve words.
        Some(at) => Ok(first + at as u8),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u8, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if is_number { u8::from_str(text).ok() } else { None };
    number.ok_or_else(|| format!("`{text}` is not a value"))
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        (&self.expression, &self.zone_name) == (&other.expression, &other.zone_name)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({self})")
    }
}

/// The expression and its time zone: what two schedules have in common that run at the same times.
impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.expression, self.zone_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(time: &str) -> u64 {
        let time: Timestamp = time.parse().unwrap();
        time.as_millisecond().try_into().unwrap()
    }

    /// The next times after a moment, in UTC.
    fn times(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(expression, Some(zone)).unwrap();
        let mut after = ms(after);
        let mut times = Vec::new();
        for _ in 0..count {
            after = cron.next(after).unwrap();
            times.push(Timestamp::from_millisecond(after.try_into().unwrap()).unwrap().to_string());
        }
        times
    }

    #[test]
    fn the_fields_choose_minutes_hours_and_days() {
        let next = |expression: &str| times(expression, "UTC", "2026-01-01T00:00:00Z", 3);
        assert_eq!(
            next("0 9 * * 1-5"),
            ["2026-01-01T09:00:00Z", "2026-01-02T09:00:00Z", "2026-01-05T09:00:00Z"]
        );
        assert_eq!(
            next("*/20 0 * * *"),
            ["2026-01-01T00:20:00Z", "2026-01-01T00:40:00Z", "2026-01-02T00:00:00Z"]
        );
        assert_eq!(
            next("5/30 12,18 * JAN sun,7"),
            ["2026-01-04T12:05:00Z", "2026-01-04T12:35:00Z", "2026-01-04T18:05:00Z"]
        );
        // Either field chooses a day: the 13th, and Fridays.
        assert_eq!(
            next("0 0 13 * 5"),
            ["2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z", "2026-01-13T00:00:00Z"]
        );
        assert_eq!(next("0 0 29 2 *")[0], "2028-02-29T00:00:00Z");
    }

    #[test]
    fn a_time_is_strictly_after_the_given_one() {
        let cron = Cron::parse("0 9 * * *", None).unwrap();
        assert_eq!(cron.time_zone(), "UTC");
        let nine = ms("2026-03-01T09:00:00Z");
        assert_eq!(cron.next(nine - 1), Some(nine));
        assert_eq!(cron.next(nine), Some(nine + 24 * 3600 * 1000));
    }

    #[test]
    fn a_local_time_follows_the_seasons() {
        assert_eq!(
            times("0 9 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 2),
            ["2026-03-28T08:00:00Z", "2026-03-29T07:00:00Z"]
        );
    }

    /// On 29 March 2026 the clocks of Berlin go from 02:00 to 03:00, at 01:00 UTC.
    #[test]
    fn a_skipped_time_runs_later_by_the_length_of_the_gap() {
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]
        );
        // 02:00 and 03:00 are one moment, and so are 02:30 and 03:30.
        assert_eq!(
            times("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 4),
            ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:00:00Z"]
        );
        assert_eq!(
            times("0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]
        );
    }

    /// On 25 October 2026 the clocks of Berlin go from 03:00 to 02:00, at 01:00 UTC.
    #[test]
    fn a_repeated_time_runs_once_unless_the_hours_are_any() {
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        // After the first occurrence, the second one is not found.
        assert_eq!(times("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", 1), ["2026-10-26T01:30:00Z"]);
        assert_eq!(
            times("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", 5),
            [
                "2026-10-25T00:00:00Z",
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:00:00Z",
                "2026-10-25T01:30:00Z",
                "2026-10-25T02:00:00Z"
            ]
        );
    }

    #[test]
    fn a_zone_that_changes_by_half_an_hour_works_too() {
        // On 4 October 2026 the clocks of Lord Howe go from 02:00 to 02:30.
        assert_eq!(
            times("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", 1),
            ["2026-10-03T15:45:00Z"]
        );
    }

    #[test]
    fn a_wrong_expression_is_refused_with_its_field() {
        for (expression, zone, complaint) in [
            ("0 9 * *", "UTC", "five fields"),
            ("60 9 * * *", "UTC", "minute `60`: the values are 0 to 59"),
            ("0 24 * * *", "UTC", "hour `24`"),
            ("0 0 0 * *", "UTC", "day of the month `0`"),
            ("0 0 * 13 *", "UTC", "month `13`"),
            ("0 0 * * 8", "UTC", "day of the week `8`"),
            ("0 0 * * fri-mon", "UTC", "smaller value"),
            ("*/0 * * * *", "UTC", "a step"),
            ("a * * * *", "UTC", "`a` is not a value"),
            ("+1 * * * *", "UTC", "`+1` is not a value"),
            (", * * * *", "UTC", "`` is not a value"),
            ("0 0 30 2 *", "UTC", "never matches"),
            ("@daily", "UTC", "five fields"),
            ("0 9 * * *", "Mars/Olympus", "Mars/Olympus"),
        ] {
            let refusal = Cron::parse(expression, Some(zone)).unwrap_err();
            assert!(refusal.contains(complaint), "{refusal}");
        }
    }
}
