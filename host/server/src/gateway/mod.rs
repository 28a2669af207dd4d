//! The door for clients: HTTP/1.1 and WebSockets on one listener. It knows tokens, bounds and bytes; what a request or a
//! frame means is the handlers' business, behind `house`.

pub mod auth;
mod connection;
mod house;
mod http;
mod listener;
mod meters;
mod origins;
mod places;
mod socket;
mod tickets;
pub mod tls;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::config::Config;
use crate::http_server::Slots;
use crate::ids::NodeId;
use crate::limits::HTTP_CONNECTIONS_MAX;
use crate::session;
use crate::shutdown::ShutdownGuard;
use auth::Auth;
pub use house::{House, Inside};
use meters::Meters;
use origins::Origins;
use places::Places;
pub use tickets::Tickets;
pub use tls::Tls;

/// What all connections of a node share.
pub struct Gateway {
    node: NodeId,
    house: Arc<dyn House>,
    auth: Arc<Auth>,
    tickets: Tickets,
    places: Arc<Places>,
    slots: Arc<Slots>,
    session: Arc<session::Settings>,
    origins: Origins,
    /// None: clients speak plainly, to a proxy in front or on this machine.
    tls: Option<Arc<Tls>>,
    drain: Duration,
    /// How long an HTTP connection may be idle.
    keep_alive: Duration,
    /// How long a write may wait for a client that does not read.
    stall: Duration,
    meters: Meters,
}

impl Gateway {
    pub fn new(
        config: &Config,
        node: NodeId,
        auth: Arc<Auth>,
        tickets: Tickets,
        tls: Option<Arc<Tls>>,
        house: Arc<dyn House>,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            house,
            auth,
            tickets,
            places: Places::new(config.connections_max, config.connections_per_user_max),
            slots: Slots::new(HTTP_CONNECTIONS_MAX, config.anonymous_per_address_max),
            session: Arc::new(session::Settings {
                frames_per_second: config.frames_per_second,
                frames_burst: config.frames_burst,
                leeway: Duration::from_secs(config.jwt_leeway_s),
                auth_wait: Duration::from_millis(config.auth_wait_ms),
                idle: Duration::from_millis(config.idle_ms),
                stall: Duration::from_millis(config.stall_ms),
                expiry_warning: Duration::from_millis(config.expiry_warning_ms),
            }),
            origins: Origins::new(&config.origins),
            tls,
            drain: Duration::from_millis(config.drain_ms),
            keep_alive: Duration::from_millis(config.keep_alive_ms),
            stall: Duration::from_millis(config.stall_ms),
            meters: Meters::new(),
        })
    }

    /// Accepts until the process begins to end, then lets requests finish and connections move, each at its own time.
    /// Every connection holds a clone of `guard`.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, guard: ShutdownGuard) {
        listener::serve(self, listener, guard).await;
    }

    /// WebSocket connections, signed in or not yet.
    pub fn connections(&self) -> usize {
        self.places.taken()
    }

    /// How long one connection may stay when the node drains: they do not all come to the next node at once.
    fn patience(&self) -> Duration {
        self.drain.mul_f64(rand::random())
    }
}

#[cfg(test)]
mod tests;
