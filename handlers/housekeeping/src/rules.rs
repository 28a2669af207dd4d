//! The retention settings. Pure: no host calls, so plain `cargo test` runs it.

/// The rows that one transaction deletes. It is small, so that no lock is held for long.
pub(crate) const BATCH_ROWS: u64 = 5_000;
/// The transactions of one run. The next run continues.
pub(crate) const BATCHES_MAX: u64 = 100;
const MONTHS_AHEAD_MAX: u64 = 24;
const MONTHS_MAX: u64 = 1_200;
/// The minimum retention in months. An edit in this month may belong to a message of the previous month.
const MONTHS_KEPT_MIN: u64 = 2;
const KEY_DAYS_MIN: u64 = 7;
const DAYS_MAX: u64 = 36_500;

#[derive(Debug, PartialEq)]
pub(crate) struct Settings {
    pub months_ahead: u64,
    /// `None` keeps messages forever. The next field works likewise.
    messages_months: Option<u64>,
    notifications_months: Option<u64>,
    pub key_days: u64,
}

impl Settings {
    /// Reads the settings. A value out of range counts as the nearest valid one.
    pub(crate) fn of(number: impl Fn(&str, u64) -> u64) -> Self {
        let kept = |key: &str, default: u64| match number(key, default) {
            0 => None,
            months => Some(months.clamp(MONTHS_KEPT_MIN, MONTHS_MAX)),
        };
        Self {
            months_ahead: number("months_ahead", 3).clamp(1, MONTHS_AHEAD_MAX),
            messages_months: kept("messages_months", 0),
            notifications_months: kept("notifications_months", 12),
            key_days: number("key_days", 8).clamp(KEY_DAYS_MIN, DAYS_MAX),
        }
    }

    /// The tables whose old months are dropped, each with the number of months to keep.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("messages", self.messages_months),
            ("message_changes", self.messages_months),
            ("notifications", self.notifications_months),
        ]
        .into_iter()
        .filter_map(|(table, months)| months.map(|months| (table, months)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_kept_forever_by_default() {
        let settings = Settings::of(|_, default| default);
        assert_eq!((settings.months_ahead, settings.key_days), (3, 8));
        assert_eq!(settings.kept().collect::<Vec<_>>(), [("notifications", 12)]);
    }

    #[test]
    fn settings_are_clamped_to_their_range() {
        let least = Settings::of(|_, _| 1);
        assert_eq!((least.months_ahead, least.key_days), (1, 7));
        let kept: Vec<_> = least.kept().collect();
        assert_eq!(kept, [("messages", 2), ("message_changes", 2), ("notifications", 2)]);
        let most = Settings::of(|_, _| u64::MAX);
        assert_eq!((most.months_ahead, most.key_days), (24, 36_500));
    }
}
