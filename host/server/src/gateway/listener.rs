//! The clients' listener: TLS where it is configured, then requests until the connection ends or becomes a WebSocket.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tracing::info;

use super::{Gateway, http};
use crate::http_server::{self, Slot, Stream, Transport};
use crate::shutdown::ShutdownGuard;

/// The client of an HTTP connection.
#[derive(Clone)]
pub(super) struct Remote {
    pub address: SocketAddr,
    pub slot: Arc<Slot>,
}

pub(super) async fn serve(gateway: Arc<Gateway>, listener: TcpListener, guard: ShutdownGuard) {
    let converse = {
        let gateway = gateway.clone();
        move |stream, address, slot, guard| converse(gateway.clone(), stream, Remote { address, slot }, guard)
    };
    http_server::accept(listener, gateway.slots.clone(), guard, converse).await;
    info!("no longer listening; {} connections drain", gateway.connections());
}

async fn converse(gateway: Arc<Gateway>, stream: TcpStream, remote: Remote, mut guard: ShutdownGuard) {
    let transport = match &gateway.tls {
        None => Transport::Tcp(stream),
        // Boxed: its memory is free when the handshake is done.
        Some(tls) => tokio::select! {
            accepted = Box::pin(tls.accept(stream)) => match accepted {
                Some(transport) => transport,
                None => return,
            },
            () = remote.slot.dropped() => return,
            () = guard.begun() => return,
        },
    };
    let stream = Stream::new(transport, gateway.stall);
    let (slot, keep_alive) = (remote.slot.clone(), gateway.keep_alive);
    let answer = {
        let guard = guard.clone();
        move |request| http::answer(gateway.clone(), request, remote.clone(), guard.clone())
    };
    http_server::converse(stream, slot, keep_alive, guard, answer).await;
}
