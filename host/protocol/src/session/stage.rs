//! The life of a connection, as logs and metrics name it.

/// Where a connection is in its life.
///
/// ```text
/// connecting → authenticated → connected → disconnected
///      └──────────────┴──────→ rejected
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nobody's yet: no token, or one that is being verified.
    Connecting,
    /// The token is good; the handlers are asked what comes first.
    Authenticated,
    /// Its frames are handled.
    Connected,
    /// It was connected, and is no more.
    Disconnected,
    /// It ended before it was connected.
    Rejected,
}

impl Stage {
    pub const ALL: [Self; 5] =
        [Self::Connecting, Self::Authenticated, Self::Connected, Self::Disconnected, Self::Rejected];

    /// As it stands in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Authenticated => "authenticated",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Rejected => "rejected",
        }
    }

    /// Where it is once its end has come, whoever brought it.
    pub fn ended(self) -> Self {
        match self {
            Self::Connecting | Self::Authenticated => Self::Rejected,
            Self::Connected => Self::Disconnected,
            ended => ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_life_ends_in_one_of_two_ways() {
        for stage in Stage::ALL {
            assert!(matches!(stage.ended(), Stage::Disconnected | Stage::Rejected));
            assert_eq!(stage.ended().ended(), stage.ended());
            assert_eq!(Stage::ALL[stage as usize], stage);
        }
        assert_eq!(
            (Stage::Connected.ended(), Stage::Authenticated.ended()),
            (Stage::Disconnected, Stage::Rejected)
        );
    }
}
