//! The stages of a connection, as logs and metrics name them.

/// The stage of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not signed in: no token, or one that is being verified.
    Connecting,
    /// The token is valid; the connection handlers run.
    Authenticated,
    /// The connection is open: its frames are handled.
    Connected,
    /// The connection was open and has closed.
    Disconnected,
    /// The connection closed before it was open.
    Rejected,
}

impl Stage {
    pub const ALL: [Self; 5] =
        [Self::Connecting, Self::Authenticated, Self::Connected, Self::Disconnected, Self::Rejected];

    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Authenticated => "authenticated",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Rejected => "rejected",
        }
    }

    /// The stage after the connection has closed.
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
