//! The calls in flight of one connection.

use switchboard_core::limits::CALLS_OF_CONNECTION_MAX;

#[derive(Default)]
pub(super) struct Calls {
    in_flight: usize,
    /// The type of the frames of all calls in flight.
    frame_type: String,
    /// True when the latest call has reached its ordered point.
    is_ordered: bool,
}

impl Calls {
    pub(super) fn begin(&mut self, frame_type: &str) {
        if self.in_flight == 0 {
            self.frame_type.clear();
            self.frame_type.push_str(frame_type);
        }
        self.in_flight += 1;
        self.is_ordered = false;
    }

    /// The oldest call has ended.
    pub(super) fn end(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    pub(super) fn latest_is_ordered(&mut self) {
        self.is_ordered = true;
    }

    pub(super) fn are_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// True when a frame may be read: a call can begin, or, at worst, the frame is held back.
    pub(super) fn accept_another(&self) -> bool {
        self.in_flight == 0 || self.is_ordered && self.in_flight < CALLS_OF_CONNECTION_MAX
    }

    /// True when the call of a frame of this type may begin while others are in flight.
    pub(super) fn may_overlap(&self, frame_type: &str) -> bool {
        self.are_in_flight() && self.accept_another() && self.frame_type == frame_type
    }
}
