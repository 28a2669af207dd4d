//! The names of the exports.

/// The name of an export, in metrics, logs, spans and recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    Http,
    Frame,
    Opened,
    OpenedBatch,
    Closed,
    ClosedBatch,
    Touched,
    Missed,
    Schedule,
    Event,
    /// A hook decides about an action.
    Before,
    /// Another handler calls.
    Call,
    Timer,
}

impl Trigger {
    pub const ALL: [Self; 13] = [
        Self::Http,
        Self::Frame,
        Self::Opened,
        Self::OpenedBatch,
        Self::Closed,
        Self::ClosedBatch,
        Self::Touched,
        Self::Missed,
        Self::Schedule,
        Self::Event,
        Self::Before,
        Self::Call,
        Self::Timer,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Frame => "frame",
            Self::Opened => "opened",
            Self::OpenedBatch => "opened-batch",
            Self::Closed => "closed",
            Self::ClosedBatch => "closed-batch",
            Self::Touched => "touched",
            Self::Missed => "missed",
            Self::Schedule => "schedule",
            Self::Event => "event",
            Self::Before => "before",
            Self::Call => "call",
            Self::Timer => "timer",
        }
    }
}
