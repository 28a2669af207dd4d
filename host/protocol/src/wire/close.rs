//! Every way a connection ends, as a named value. docs/protocol.md says what the client should do about each.

use std::borrow::Cow;

/// A close code and its reason, as far as RFC 6455 allows a server to send them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    code: u16,
    reason: Cow<'static, str>,
}

impl Close {
    pub const DONE: Self = Self::named(1000, "done");
    pub const GOING_AWAY: Self = Self::named(1001, "going away");
    pub const NOT_UTF8: Self = Self::named(1007, "the text is not UTF-8");
    pub const TOO_LARGE: Self = Self::named(1009, "the frame is larger than 64 KiB");
    pub const NO_ROOM: Self = Self::named(1013, "too many connections on which nobody has signed in");
    pub const DRAINING: Self = Self::named(1012, "the node is draining");
    pub const TOKEN: Self = Self::named(4001, "the token is missing, bad or expired");
    pub const MALFORMED: Self = Self::named(4002, "too many malformed frames");
    pub const DISCONNECTED: Self = Self::named(4003, "disconnected by an admin");
    pub const TOO_SLOW: Self = Self::named(4008, "too slow to read what was sent");
    pub const TOO_MANY_CONNECTIONS: Self = Self::named(4009, "too many connections of this user");
    pub const IDLE: Self = Self::named(4010, "no frame for too long");
    pub const FLOOD: Self = Self::named(4029, "too many frames");

    /// Never sent: the connection was lost without a close frame.
    pub const LOST: u16 = 1006;

    /// The peer broke RFC 6455.
    pub const fn protocol_error(rule: &'static str) -> Self {
        Self::named(1002, rule)
    }

    /// A close that a handler or an operator requests. `None` if they may not send this code. A reason that
    /// does not fit into a control frame is cut.
    pub fn requested(code: u16, reason: &str) -> Option<Self> {
        let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
        Self::may_be_sent(code).then(|| Self { code, reason: reason.to_owned().into() })
    }

    /// Whether the code may be sent: RFC 6455 7.4, and the codes registered since; 1005, 1006 and 1015 are
    /// never sent.
    pub fn may_be_sent(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }

    pub fn code(&self) -> u16 {
        self.code
    }

    pub fn reason(&self) -> &str {
        &self.reason
    }

    const fn named(code: u16, reason: &'static str) -> Self {
        Self { code, reason: Cow::Borrowed(reason) }
    }
}

/// A control frame has at most 125 bytes, two of them for the code.
const CLOSE_REASON_BYTES_MAX: usize = 123;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requested_close_has_a_permitted_code_and_a_reason_that_fits() {
        for bad in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
            assert_eq!(Close::requested(bad, ""), None, "{bad}");
        }
        let close = Close::requested(4123, &"ü".repeat(62)).unwrap();
        assert_eq!((close.code(), close.reason()), (4123, "ü".repeat(61).as_str()));
    }

    #[test]
    fn every_close_has_its_code_and_fits_into_a_control_frame() {
        for (close, code) in [
            (Close::DONE, 1000),
            (Close::GOING_AWAY, 1001),
            (Close::TOO_LARGE, 1009),
            (Close::NOT_UTF8, 1007),
            (Close::DRAINING, 1012),
            (Close::NO_ROOM, 1013),
            (Close::TOKEN, 4001),
            (Close::MALFORMED, 4002),
            (Close::DISCONNECTED, 4003),
            (Close::TOO_SLOW, 4008),
            (Close::TOO_MANY_CONNECTIONS, 4009),
            (Close::IDLE, 4010),
            (Close::FLOOD, 4029),
        ] {
            assert_eq!(close.code(), code);
            assert!(close.reason().len() <= CLOSE_REASON_BYTES_MAX && Close::may_be_sent(code));
        }
    }
}
