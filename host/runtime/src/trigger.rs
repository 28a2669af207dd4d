//! The names of the exports.

/// The name of an export, in metrics, logs, spans and recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    Http,
    Frame,
    Opened,
    Closed,
    Touched,
    Missed,
    Schedule,
    Event,
}

impl Trigger {
    pub const ALL: [Self; 8] = [
        Self::Http,
        Self::Frame,
        Self::Opened,
        Self::Closed,
        Self::Touched,
        Self::Missed,
        Self::Schedule,
        Self::Event,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Frame => "frame",
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::Touched => "touched",
            Self::Missed => "missed",
            Self::Schedule => "schedule",
            Self::Event => "event",
        }
    }
}
