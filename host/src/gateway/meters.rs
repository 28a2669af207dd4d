//! What the gateway counts. Handles are made once: looking one up costs more than counting.

use std::time::Duration;

use metrics::{Counter, counter, histogram};

pub struct Meters {
    pub frames_in: Counter,
}

impl Meters {
    pub fn new() -> Self {
        Self { frames_in: counter!("switchboard_frames_received_total") }
    }

    pub fn closed(&self, code: u16) {
        counter!("switchboard_connections_closed_total", "code" => code.to_string()).increment(1);
    }

    pub fn refused(&self, why: &'static str) {
        counter!("switchboard_handshakes_refused_total", "why" => why).increment(1);
    }

    pub fn answered(&self, method: &'static str, status: u16, took: Duration) {
        counter!("switchboard_http_requests_total", "method" => method, "status" => status.to_string())
            .increment(1);
        histogram!("switchboard_http_request_seconds").record(took.as_secs_f64());
    }
}
