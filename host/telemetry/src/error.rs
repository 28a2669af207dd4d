//! The error of this crate.

use switchboard_core::{Blame, Blamed};
use tracing_subscriber::filter::ParseError;

/// A setting of telemetry is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`log` is not a filter such as `info,switchboard_fanout=debug`: {0}")]
    Log(ParseError),
    #[error("`otlp_endpoint` is not an address: {0}")]
    OtlpAddress(hyper::http::uri::InvalidUri),
    #[error(
        "`otlp_endpoint` must be `http://host:port` of a collector on this machine or in its network; a node sends no spans over TLS"
    )]
    OtlpEndpoint,
    #[error("`otlp_sample` must be a share of the calls, from 0 to 1")]
    OtlpSample,
}

impl Blamed for Error {
    fn blame(&self) -> Blame {
        Blame::Operator
    }
}
