//! The gateway for clients: HTTP/1.1 and WebSockets on one listener. It knows tokens, bounds and bytes. The
//! handlers decide what a request or a frame means, behind [`ClientCalls`].

pub mod auth;
mod bearer;
mod connection;
mod http;
mod in_flight;
mod listener;
mod meters;
mod origins;
mod permits;
mod refusal;
mod remote;
mod socket;
mod tickets;
pub mod tls;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::calls::ClientCalls;
use auth::Auth;
use meters::Meters;
use origins::Origins;
use permits::ConnectionLimits;
use switchboard_core::config::Config;
use switchboard_core::ids::NodeId;
use switchboard_core::limits::HTTP_CONNECTIONS_MAX;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_fanout::Hub;
use switchboard_http::http_server::Slots;
use switchboard_protocol::session;
pub use tickets::Tickets;
pub use tls::Tls;

/// The state that all connections of a node share.
pub struct Gateway {
    node: NodeId,
    calls: Arc<dyn ClientCalls>,
    hub: Hub,
    auth: Arc<Auth>,
    tickets: Tickets,
    limits: Arc<ConnectionLimits>,
    slots: Arc<Slots>,
    session: Arc<session::Settings>,
    origins: Origins,
    /// None: clients connect without TLS, to a proxy in front of the node or on this machine.
    tls: Option<Arc<Tls>>,
    drain: Duration,
    /// The maximum idle time of an HTTP connection.
    keep_alive: Duration,
    /// The maximum time that a write may wait for a client that does not read.
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
        calls: Arc<dyn ClientCalls>,
        hub: Hub,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            calls,
            hub,
            auth,
            tickets,
            limits: ConnectionLimits::new(config.connections_max, config.connections_per_user_max),
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

    /// Accepts connections until the shutdown begins. Then requests finish and connections close, each at its
    /// own time. Every connection holds a clone of `guard`.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, guard: ShutdownGuard) {
        listener::serve(self, listener, guard).await;
    }

    /// The number of WebSocket connections, signed in or not.
    pub fn connections(&self) -> usize {
        self.limits.taken()
    }

    /// The time that one connection may stay while the node drains. It is random, so that the clients do not
    /// all reconnect at once.
    fn drain_delay(&self) -> Duration {
        self.drain.mul_f64(rand::random())
    }
}

#[cfg(test)]
mod tests;
