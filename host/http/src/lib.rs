//! HTTP in both directions: what all listeners share, and fetching a document.

use switchboard_contract as contract;
use switchboard_core::{limits, shutdown};
use switchboard_protocol::wire;

pub mod fetch;
pub mod http_server;
