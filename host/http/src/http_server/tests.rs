//! Tests with real sockets on a listener with few slots.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::*;
use switchboard_core::limits::{DROPPED_AFTER_MIN, LARGE_ANSWERS_BYTES_MAX};
use switchboard_core::shutdown::Shutdown;

/// More bytes than the kernel buffers of both ends.
const LARGE_BYTES: usize = 32 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    slots: Arc<Slots>,
    /// The number of requests that were answered or are being handled.
    asked: Arc<AtomicUsize>,
    /// `/hold` is answered when there is a permit.
    gate: Arc<Semaphore>,
    shutdown: Shutdown,
}

impl Server {
    fn start(connections_max: usize, per_address_max: usize, keep_alive: Duration, stall: Duration) -> Self {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let slots = Slots::new(connections_max, per_address_max);
        let (asked, gate) = (Arc::<AtomicUsize>::default(), Arc::new(Semaphore::new(0)));
        let large = Bytes::from(vec![b'x'; LARGE_BYTES]);
        let serve_connection = {
            let (asked, gate) = (asked.clone(), gate.clone());
            move |stream, _: SocketAddr, slot, guard| {
                let (asked, gate, large) = (asked.clone(), gate.clone(), large.clone());
                let answer = move |request: Request<Incoming>, _| {
                    let (asked, gate, large) = (asked.clone(), gate.clone(), large.clone());
                    async move {
                        asked.fetch_add(1, Ordering::SeqCst);
                        match request.uri().path() {
                            "/large" => answers::answer(200, "text/plain", large, "r"),
                            "/hold" => {
                                gate.acquire().await.unwrap().forget();
                                answers::answer(200, "text/plain", "held", "r")
                            }
                            _ => answers::answer(200, "text/plain", "small", "r"),
                        }
                    }
                };
                super::serve_connection(
                    Stream::new(Transport::Tcp(stream), stall),
                    slot,
                    keep_alive,
                    guard,
                    answer,
                )
            }
        };
        let shutdown = Shutdown::new();
        tokio::spawn(accept(listener, slots.clone(), shutdown.guard(), serve_connection));
        Self { address, slots, asked, gate, shutdown }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn asking(&self, path: &str) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(request(path).as_bytes()).await.unwrap();
        stream
    }

    async fn until_asked(&self, count: usize) {
        until(|| self.asked.load(Ordering::SeqCst) >= count).await;
    }
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

async fn until(mut holds: impl FnMut() -> bool) {
    let looks = async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while !holds() {
            tick.tick().await;
        }
    };
    timeout(PATIENCE, looks).await.expect("it never holds");
}

/// Reads everything until the server closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("the server closes");
    String::from_utf8_lossy(&all).into_owned()
}

async fn one_answer(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let reads = async {
        while !read.ends_with(b"small") && !read.ends_with(b"held") {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0, "{}", String::from_utf8_lossy(&read));
        }
    };
    timeout(PATIENCE, reads).await.expect("an answer");
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn a_client_that_reads_nothing_costs_one_answer_and_loses_its_connection() {
    let server = Server::start(8, 0, Duration::from_secs(60), Duration::from_millis(300));
    let mut unread = server.connect().await;
    unread.write_all(request("/large").repeat(20).as_bytes()).await.unwrap();
    server.until_asked(1).await;
    until(|| server.slots.connections() == 0).await;
    assert_eq!(server.asked.load(Ordering::SeqCst), 1, "no further answer was made");
    // A client that reads gets the same answer completely.
    let mut reader = server.asking("/large").await;
    let mut head_and_body = 0;
    let mut buffer = vec![0; 1 << 20];
    while head_and_body < LARGE_BYTES {
        head_and_body += timeout(PATIENCE, reader.read(&mut buffer)).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn when_all_slots_are_taken_silent_connections_give_way() {
    let server = Server::start(4, 0, Duration::from_secs(60), Duration::from_secs(60));
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(server.connect().await);
    }
    let mut client = server.asking("/").await;
    one_answer(&mut client).await;
    // The oldest connection was closed, the others stay.
    assert_eq!(rest(&mut silent[0]).await, "");
    assert_eq!(server.slots.connections(), 4);
    silent[3].write_all(request("/").as_bytes()).await.unwrap();
    one_answer(&mut silent[3]).await;
    // Idle connections are closed after those that sent nothing. A request that is being handled stays.
    let mut held = server.asking("/hold").await;
    server.until_asked(3).await;
    let mut more = Vec::new();
    for _ in 0..3 {
        let mut next = server.asking("/").await;
        one_answer(&mut next).await;
        more.push(next);
    }
    server.gate.add_permits(1);
    one_answer(&mut held).await;
}

#[tokio::test]
async fn an_address_has_so_many_connections_that_nobody_signed_in_on() {
    let server = Server::start(100, 3, Duration::from_secs(60), Duration::from_secs(60));
    // The server counts from its accept, so this comes before the connection.
    let began = Instant::now();
    let mut first = server.connect().await;
    // Other connections come and go until the first one is old enough to be closed for them.
    let mut others = Vec::new();
    let comes = async {
        loop {
            let mut other = server.asking("/").await;
            one_answer(&mut other).await;
            others.push(other);
            if others.len() > 8 {
                others.remove(0);
            }
        }
    };
    tokio::select! {
        answer = rest(&mut first) => assert_eq!(answer, ""),
        () = comes => {}
    }
    // The server counts whole milliseconds.
    assert!(began.elapsed() + Duration::from_millis(1) >= DROPPED_AFTER_MIN);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let server = Server::start(8, 0, Duration::from_millis(300), Duration::from_secs(60));
    let mut client = server.connect().await;
    for _ in 0..3 {
        client.write_all(request("/").as_bytes()).await.unwrap();
        one_answer(&mut client).await;
    }
    let idle_since = Instant::now();
    assert_eq!(rest(&mut client).await, "");
    assert!(idle_since.elapsed() >= Duration::from_millis(250));
    until(|| server.slots.connections() == 0).await;
}

#[tokio::test]
async fn a_request_that_is_being_handled_is_answered_although_the_process_ends() {
    let server = Server::start(8, 0, Duration::from_secs(60), Duration::from_secs(60));
    let (mut held, mut idle) = (server.asking("/hold").await, server.asking("/").await);
    server.until_asked(2).await;
    one_answer(&mut idle).await;
    server.shutdown.begin();
    assert_eq!(rest(&mut idle).await, "");
    server.gate.add_permits(1);
    assert!(rest(&mut held).await.ends_with("held"));
    assert!(server.shutdown.finished(PATIENCE).await);
}

#[tokio::test]
async fn large_answers_that_nobody_reads_have_a_bound_together() {
    let server = Server::start(64, 0, Duration::from_secs(60), Duration::from_secs(60));
    let fit = LARGE_ANSWERS_BYTES_MAX / LARGE_BYTES;
    let mut unread = Vec::new();
    for number in 0..fit {
        unread.push(server.asking("/large").await);
        server.until_asked(number + 1).await;
    }
    // The next one gets a 503 while the others are young. Later it takes the slot of the oldest.
    let mut refused = 0;
    let answered = async {
        loop {
            let mut next = server.asking("/large").await;
            let mut status = [0; 12];
            next.read_exact(&mut status).await.unwrap();
            match &status {
                b"HTTP/1.1 503" => refused += 1,
                b"HTTP/1.1 200" => break,
                other => panic!("{}", String::from_utf8_lossy(other)),
            }
        }
    };
    timeout(PATIENCE, answered).await.expect("room");
    until(|| server.slots.connections() < fit + 2).await;
    assert!(refused > 0 || DROPPED_AFTER_MIN.is_zero());
    let mut small = server.asking("/").await;
    one_answer(&mut small).await;
}

#[tokio::test]
async fn a_request_without_one_host_is_refused_and_its_connection_ends() {
    let server = Server::start(8, 0, Duration::from_secs(60), Duration::from_secs(60));
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
    ] {
        let mut client = server.connect().await;
        client.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("malformed"), "{head}: {answer}");
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_head_has_as_many_headers_and_bytes_as_common_servers_take() {
    let server = Server::start(8, 0, Duration::from_secs(60), Duration::from_secs(60));
    let asked = async |headers: String| {
        let mut client = server.connect().await;
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        let _ = client.write_all(head.as_bytes()).await;
        rest(&mut client).await[..12].to_owned()
    };
    let many = |count: usize| (0..count).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    assert_eq!(asked(many(100)).await, "HTTP/1.1 200");
    assert_eq!(asked(many(REQUEST_HEADERS_MAX)).await, "HTTP/1.1 431");
    let long = |bytes: usize| format!("x: {}\r\n", "y".repeat(bytes));
    assert_eq!(asked(long(60 * 1024)).await, "HTTP/1.1 200");
    assert_eq!(asked(long(REQUEST_HEAD_BYTES_MAX)).await, "HTTP/1.1 431");
}
