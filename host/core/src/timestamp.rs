//! Times in the form of the wire: UTC, RFC 3339, milliseconds.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The last millisecond that RFC 3339 can represent.
pub const LAST_MS: u64 = 253_402_300_799_999;

pub fn rfc3339(unix_ms: u64) -> String {
    let unix_ms = unix_ms.min(LAST_MS);
    let seconds = OffsetDateTime::from_unix_timestamp((unix_ms / 1000) as i64)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .expect("years 1970 to 9999 can be written");
    // The well-known format omits zero milliseconds; the wire does not.
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), unix_ms % 1000)
}

/// Parses a time of any zone, to the millisecond. None before 1970.
pub fn parse(text: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok().filter(|_| time.unix_timestamp() >= 0)
}

/// The present time in milliseconds since 1970 UTC.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_and_an_end() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_763_619_896_045), "2025-11-20T06:24:56.045Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(parse("2025-11-20T06:24:56.045Z"), Some(1_763_619_896_045));
        assert_eq!(parse("2025-11-20T07:24:56.0459+01:00"), Some(1_763_619_896_045));
        for bad in ["", "now", "2025-11-20", "1969-12-31T23:59:59.999Z", "2025-13-01T00:00:00Z"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
