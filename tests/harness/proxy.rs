//! A TCP proxy that loses a connection the way networks do: cut (reset, and refused until healed) or frozen
//! (open, and nothing moves). It does not inspect the bytes.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Line {
    Open,
    Frozen,
    Cut,
}

pub struct Proxy {
    address: SocketAddr,
    upstream: watch::Sender<SocketAddr>,
    line: watch::Sender<Line>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener");
        let line = watch::Sender::new(Line::Open);
        let upstream = watch::Sender::new(upstream);
        let accepting = tokio::spawn(accept(listener, upstream.subscribe(), line.subscribe()));
        Self { address, upstream, line, accepting }
    }

    /// New connections go to another server from now on. Open ones stay.
    pub fn redirect(&self, upstream: SocketAddr) {
        self.upstream.send_replace(upstream);
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection, and closes new ones at once.
    pub fn cut(&self) {
        self.line.send_replace(Line::Cut);
    }

    /// Keeps connections open and forwards nothing, in either direction.
    pub fn freeze(&self) {
        self.line.send_replace(Line::Frozen);
    }

    pub fn heal(&self) {
        self.line.send_replace(Line::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, upstream: watch::Receiver<SocketAddr>, line: watch::Receiver<Line>) {
    while let Ok((client, _)) = listener.accept().await {
        if *line.borrow() != Line::Cut {
            let upstream = *upstream.borrow();
            tokio::spawn(join(client, upstream, line.clone()));
        }
    }
}

async fn join(client: TcpStream, upstream: SocketAddr, mut line: watch::Receiver<Line>) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut forward = tokio::spawn(carry(from_client, to_server, line.clone()));
    let mut backward = tokio::spawn(carry(from_server, to_client, line.clone()));
    tokio::select! {
        _ = line.wait_for(|line| *line == Line::Cut) => {}
        _ = &mut forward => {}
        _ = &mut backward => {}
    }
    forward.abort();
    backward.abort();
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut line: watch::Receiver<Line>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if line.wait_for(|line| *line == Line::Open).await.is_err()
            || to.write_all(&buffer[..read]).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mut reader, mut writer) = stream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut reader, &mut writer).await });
            }
        });
        address
    }

    async fn round(stream: &mut TcpStream) -> std::io::Result<usize> {
        stream.write_all(b"x").await?;
        stream.read(&mut [0]).await
    }

    #[tokio::test]
    async fn a_cut_proxy_refuses_connections_until_it_heals() {
        let proxy = Proxy::to(echo().await).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(round(&mut stream).await.unwrap(), 1);
        proxy.cut();
        assert!(!matches!(round(&mut stream).await, Ok(1)));
        let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(!matches!(round(&mut refused).await, Ok(1)));
        proxy.heal();
        let mut again = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(round(&mut again).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_frozen_connection_keeps_the_sent_bytes() {
        let proxy = Proxy::to(echo().await).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(round(&mut stream).await.unwrap(), 1);
        proxy.freeze();
        let frozen = tokio::time::timeout(std::time::Duration::from_millis(100), round(&mut stream)).await;
        assert!(frozen.is_err());
        proxy.heal();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 1);
    }
}
