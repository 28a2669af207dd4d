//! The calls in flight of one connection.

use std::collections::VecDeque;

use crate::wire::frames::Frame;
use switchboard_core::limits::{CALLS_OF_CONNECTION_BYTES_MAX, CALLS_OF_CONNECTION_MAX};

#[derive(Default)]
pub(super) struct Calls {
    /// The sizes of the payloads of the calls in flight, the oldest first. An idle connection has no memory
    /// for them.
    payload_bytes: VecDeque<usize>,
    /// The type of the frames of all calls in flight.
    frame_type: String,
    /// True when the latest call has reached its ordered point.
    is_ordered: bool,
}

impl Calls {
    pub(super) fn begin(&mut self, frame: &Frame) {
        if !self.are_in_flight() {
            self.frame_type.clear();
            self.frame_type.push_str(&frame.frame_type);
        }
        self.payload_bytes.push_back(frame.payload.len());
        self.is_ordered = false;
    }

    /// The oldest call has ended.
    pub(super) fn end(&mut self) {
        self.payload_bytes.pop_front();
        if self.payload_bytes.is_empty() {
            self.payload_bytes = VecDeque::new();
        }
    }

    pub(super) fn latest_is_ordered(&mut self) {
        self.is_ordered = true;
    }

    pub(super) fn are_in_flight(&self) -> bool {
        !self.payload_bytes.is_empty()
    }

    /// True when a frame may be read: a call can begin, or, at worst, the frame is held back.
    pub(super) fn accept_another(&self) -> bool {
        let is_within_bounds = || {
            self.payload_bytes.len() < CALLS_OF_CONNECTION_MAX
                && self.payload_bytes.iter().sum::<usize>() < CALLS_OF_CONNECTION_BYTES_MAX
        };
        !self.are_in_flight() || self.is_ordered && is_within_bounds()
    }

    /// True when the call of a frame of this type may begin while others are in flight.
    pub(super) fn may_overlap(&self, frame_type: &str) -> bool {
        self.are_in_flight() && self.accept_another() && self.frame_type == frame_type
    }
}
