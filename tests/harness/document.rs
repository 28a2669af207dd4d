//! A server of one document, like the key set of an identity provider. A test can change the document, and
//! the server counts the requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub struct Document {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    text: Mutex<Option<String>>,
    asked: AtomicU32,
}

impl Document {
    pub async fn serve(text: impl Into<String>) -> Self {
        let document = Self::away().await;
        document.set(text);
        document
    }

    /// Starts a server that answers 503 until it has a document.
    pub async fn away() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let of_task = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that disconnects early is no error here.
                let _ = answer(stream, &of_task).await;
            }
        });
        Self { address, shared, task }
    }

    pub fn set(&self, text: impl Into<String>) {
        *self.shared.text.lock() = Some(text.into());
    }

    pub fn url(&self) -> String {
        format!("http://{}/keys.json", self.address)
    }

    pub fn asked(&self) -> u32 {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    shared.asked.fetch_add(1, Ordering::SeqCst);
    let text = shared.text.lock().clone();
    let (status, body) = text.map_or(("503 Service Unavailable", String::new()), |text| ("200 OK", text));
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
