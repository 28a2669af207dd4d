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
        "`otlp_endpoint` is `http://host:port` of a collector beside this node; it speaks TLS to the rest of the world"
    )]
    OtlpEndpoint,
    #[error("`otlp_sample` is a share of calls, 0 to 1")]
    OtlpSample,
}

impl Blamed for Error {
    fn blame(&self) -> Blame {
        Blame::Operator
    }
}
