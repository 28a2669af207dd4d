//! What is kept, and for how long. Pure: no host calls, so plain `cargo test` runs it.

/// Rows of one transaction: short enough that nobody notices.
pub const BATCH_ROWS: u64 = 5_000;
/// Of one run; the rest waits for the next.
pub const BATCHES_MAX: u64 = 100;
const MONTHS_AHEAD_MAX: u64 = 24;
const MONTHS_MAX: u64 = 1_200;
/// An edit of last month's last message belongs to this month, so a month is kept at least this long.
const MONTHS_KEPT_MIN: u64 = 2;
const KEY_DAYS_MIN: u64 = 7;
const DAYS_MAX: u64 = 36_500;

#[derive(Debug, PartialEq)]
pub struct Settings {
    pub months_ahead: u64,
    /// `None` is for ever.
    messages_months: Option<u64>,
    notifications_months: Option<u64>,
    pub key_days: u64,
}

impl Settings {
    /// What an operator may have set too low or too high is taken as the nearest that is right.
    pub fn of(number: impl Fn(&str, u64) -> u64) -> Self {
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

    /// Tables that lose old months, and how many they keep.
    pub fn kept(&self) -> impl Iterator<Item = (&'static str, u64)> {
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
    fn messages_stay_unless_somebody_says_otherwise() {
        let settings = Settings::of(|_, default| default);
        assert_eq!((settings.months_ahead, settings.key_days), (3, 8));
        assert_eq!(settings.kept().collect::<Vec<_>>(), [("notifications", 12)]);
    }

    #[test]
    fn settings_stay_within_reason() {
        let least = Settings::of(|_, _| 1);
        assert_eq!((least.months_ahead, least.key_days), (1, 7));
        let kept: Vec<_> = least.kept().collect();
        assert_eq!(kept, [("messages", 2), ("message_changes", 2), ("notifications", 2)]);
        let most = Settings::of(|_, _| u64::MAX);
        assert_eq!((most.months_ahead, most.key_days), (24, 36_500));
    }
}
