//! Accepting: one task a TCP connection, a bound on how many, and an end that waits for them.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, info, warn};

use super::courtesy::Courtesy;
use super::stream::Stream;
use super::{Gateway, http};
use crate::limits::{
    BACKLOG, HTTP_CONNECTIONS_MAX, REQUEST_HEAD_BYTES_MAX, REQUEST_HEAD_WAIT, REQUEST_HEADERS_MAX,
    UNSENT_BYTES_MAX,
};
use crate::shutdown::Guard;

/// With a backlog that holds a crowd coming back after a drain elsewhere.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Inherited by what is accepted. Else the kernel takes megabytes for a peer that does not read, and the bound on what a
    // connection may have unread is none.
    SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

pub(super) async fn serve(gateway: Arc<Gateway>, listener: TcpListener, mut guard: Guard) {
    let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    loop {
        let next = async {
            // At the bound the crowd waits in the backlog.
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = guard.begun() => break,
            next = next => next,
        };
        match (place, accepted) {
            (Ok(place), Ok((stream, remote))) => {
                tokio::spawn(converse(gateway.clone(), stream, remote, place, guard.clone()));
            }
            (_, Err(error)) => {
                // Out of file descriptors, most likely: others have to go before anybody can come.
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (Err(_), _) => break,
        }
    }
    info!("no longer listening; {} connections drain", gateway.connections());
}

/// Requests of one TCP connection, one after the other, until it ends or becomes a WebSocket.
async fn converse(
    gateway: Arc<Gateway>,
    stream: TcpStream,
    remote: SocketAddr,
    place: OwnedSemaphorePermit,
    mut guard: Guard,
) {
    // A frame is written whole; waiting for more to put into the packet only delays it.
    let _ = stream.set_nodelay(true);
    let stream = match &gateway.tls {
        None => Stream::Tcp(stream),
        // Boxed: it is gone when the connection is there.
        Some(tls) => tokio::select! {
            accepted = Box::pin(tls.accept(stream)) => match accepted {
                Some(stream) => stream,
                None => return,
            },
            () = guard.begun() => return,
        },
    };
    let service = {
        let guard = guard.clone();
        service_fn(move |request| {
            let (gateway, guard) = (gateway.clone(), guard.clone());
            async move { Ok::<_, std::convert::Infallible>(http::answer(gateway, request, remote, guard).await) }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_HEAD_WAIT)
        .max_headers(REQUEST_HEADERS_MAX)
        .max_buf_size(REQUEST_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Courtesy::new(stream)), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = guard.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "an HTTP connection broke");
    }
    drop(place);
}
