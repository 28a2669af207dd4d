//! The gateway's metrics. Their handles are created once, because looking one up costs more than counting.

use std::time::Duration;

use metrics::{Counter, counter, histogram};

use switchboard_protocol::session::Stage;

pub(super) struct Meters {
    pub frames_in: Counter,
    stages: [Counter; Stage::ALL.len()],
}

impl Meters {
    pub(super) fn new() -> Self {
        let stage = |stage: Stage| counter!("switchboard_connection_stages_total", "stage" => stage.as_str());
        Self { frames_in: counter!("switchboard_frames_received_total"), stages: Stage::ALL.map(stage) }
    }

    /// Counts that a connection has reached this stage of its life.
    pub(super) fn reached(&self, stage: Stage) {
        self.stages[stage as usize].increment(1);
    }

    pub(super) fn closed(&self, code: u16) {
        counter!("switchboard_connections_closed_total", "code" => code.to_string()).increment(1);
    }

    pub(super) fn refused(&self, why: &'static str) {
        counter!("switchboard_handshakes_refused_total", "why" => why).increment(1);
    }

    pub(super) fn answered(&self, method: &'static str, status: u16, took: Duration) {
        counter!("switchboard_http_requests_total", "method" => method, "status" => status.to_string())
            .increment(1);
        histogram!("switchboard_http_request_seconds").record(took.as_secs_f64());
    }
}
