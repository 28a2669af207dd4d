//! The native control: hyper and fastwebsockets in plain Rust, no handlers, nothing stored, nothing checked.
//! Every client is in one room, and a frame of one goes to all. It is the minimum without the host's work.

use std::convert::Infallible;

use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, Payload, WebSocketError, upgrade};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::broadcast;

use crate::program::Program;

/// A reader that falls further behind loses messages, which the load then sees.
const BEHIND_MAX: usize = 4096;

/// Starts the control in a process of its own, as the host is.
pub(crate) async fn start() -> Program {
    let myself = std::env::current_exe().expect("a load runs from a file");
    Program::start(Command::new(myself).arg("native")).await.unwrap_or_else(|error| panic!("{error}"))
}

/// The control itself, until its standard input ends: the load holds the other end.
pub(crate) async fn run() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let mut stdin = tokio::io::stdin();
    tokio::select! {
        ended = serve(listener) => ended,
        _ = stdin.read_u8() => Ok(()),
    }
}

async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let (room, _) = broadcast::channel(BEHIND_MAX);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let room = room.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, room.clone()));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            // The control ignores a client that disconnects.
            let _ = connection.await;
        });
    }
}

async fn answer(
    mut request: Request<Incoming>,
    room: broadcast::Sender<Bytes>,
) -> Result<Response<http_body_util::Empty<Bytes>>, Infallible> {
    let Ok((response, upgrade)) = upgrade::upgrade(&mut request) else {
        let mut refusal = Response::new(http_body_util::Empty::new());
        *refusal.status_mut() = hyper::StatusCode::BAD_REQUEST;
        return Ok(refusal);
    };
    tokio::spawn(async move {
        if let Ok(socket) = upgrade.await {
            let _ = talk(socket, room).await;
        }
    });
    Ok(response)
}

async fn talk(
    socket: fastwebsockets::WebSocket<TokioIo<hyper::upgrade::Upgraded>>,
    room: broadcast::Sender<Bytes>,
) -> Result<(), WebSocketError> {
    let (mut reader, mut writer) = socket.split(tokio::io::split);
    let mut pushes = room.subscribe();
    let writing = tokio::spawn(async move {
        loop {
            match pushes.recv().await {
                Ok(frame) => writer.write_frame(Frame::text(Payload::Borrowed(&frame))).await?,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Ok::<_, WebSocketError>(()),
            }
        }
    });
    let mut no_answers = |_| async { Ok::<_, WebSocketError>(()) };
    while let Ok(frame) = reader.read_frame(&mut no_answers).await {
        match frame.opcode {
            OpCode::Text => drop(room.send(Bytes::copy_from_slice(&frame.payload))),
            OpCode::Close => break,
            _ => {}
        }
    }
    writing.abort();
    Ok(())
}

#[cfg(test)]
mod tests {
    use switchboard_tests::socket::{Handshake, Incoming, Socket};

    use super::*;

    /// It also shows that the harness speaks WebSocket like other implementations.
    #[tokio::test]
    async fn a_message_reaches_every_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener));
        let (mut ana, _) = Socket::open(address, &Handshake::bare()).await.unwrap();
        let (mut bo, _) = Socket::open(address, &Handshake::bare()).await.unwrap();
        for length in [0, 10, 125, 126, 60_000] {
            let sent = serde_json::json!("x".repeat(length));
            ana.write_json(&sent).await.unwrap();
            for socket in [&mut ana, &mut bo] {
                let echo = socket.next().await;
                assert!(matches!(&echo, Incoming::Json(text) if *text == sent), "{echo:?}");
            }
        }
    }
}
