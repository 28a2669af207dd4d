//! The client of an HTTP connection.

use std::net::SocketAddr;
use std::sync::Arc;

use switchboard_http::http_server::Slot;

#[derive(Clone)]
pub(super) struct Remote {
    pub address: SocketAddr,
    pub slot: Arc<Slot>,
}
