//! The listener for clients: TLS where it is configured, then HTTP requests until the connection ends or
//! becomes a WebSocket.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tracing::info;

use super::remote::Remote;
use super::{Gateway, http};
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_http::http_server::{self, Stream, Transport};

pub(super) async fn serve(gateway: Arc<Gateway>, listener: TcpListener, guard: ShutdownGuard) {
    let serve_connection = {
        let gateway = gateway.clone();
        move |stream, address, slot, guard| {
            serve_connection(gateway.clone(), stream, Remote { address, slot }, guard)
        }
    };
    http_server::accept(listener, gateway.slots.clone(), guard, serve_connection).await;
    info!("not listening for clients any more; {} connections drain", gateway.connections());
}

async fn serve_connection(
    gateway: Arc<Gateway>,
    stream: TcpStream,
    remote: Remote,
    mut guard: ShutdownGuard,
) {
    let transport = match &gateway.tls {
        None => Transport::Tcp(stream),
        // Boxed, so that its memory is free after the handshake.
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
        move |request, id| http::answer(gateway.clone(), request, id, remote.clone(), guard.clone())
    };
    http_server::serve_connection(stream, slot, keep_alive, guard, answer).await;
}
