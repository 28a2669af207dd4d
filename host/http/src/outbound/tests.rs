//! Fetches with a resolver of the test, and servers on the loopback. Tests with TLS are in
//! `tests/it/fetch.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::hop::headers_of;
use super::pool::Ages;
use super::resolve::Resolve;
use super::*;
use switchboard_core::manifest::FetchGrant;
use switchboard_core::quota::Quota;
use switchboard_core::shares::Division;

/// Answers from a list; the last answer repeats. Counts the questions.
#[derive(Default)]
struct Names {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Names {
    fn of(answers: &[&[&str]]) -> Arc<Self> {
        let answers = answers.iter().map(|answer| answer.iter().map(|ip| ip.parse().unwrap()).collect());
        Arc::new(Self { answers: Mutex::new(answers.collect()), asked: AtomicUsize::new(0) })
    }
}

impl Resolve for Names {
    fn resolve(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(async move { answer.ok_or_else(|| io::Error::other("no such name")) })
    }
}

/// A name server that never answers.
struct Silent;

impl Resolve for Silent {
    fn resolve(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(std::future::pending())
    }
}

/// A server that answers each request with its target, and with the bytes of the test.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

impl Server {
    /// `answer` makes the answer to a head; none closes the connection.
    async fn start(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, heads) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (counted, kept, answer) = (connections.clone(), heads.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, kept.clone(), answer.clone()));
            }
        });
        Self { address, connections, heads }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The URL by a name.
    fn named(&self, path: &str) -> String {
        format!("http://rebind.example:{}{path}", self.address.port())
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: TcpStream,
    heads: Arc<Mutex<Vec<String>>>,
    answer: Arc<impl Fn(&str) -> Option<String> + Send + Sync>,
) {
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read_buf(&mut read).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        let head: Vec<u8> = read.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        heads.lock().push(head.clone());
        let Some(answer) = answer(&head) else { return };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn rules(grants: &[(&str, &str)]) -> FetchRules {
    let grants: Vec<FetchGrant> = grants
        .iter()
        .map(|(url, addresses)| FetchGrant {
            methods: vec!["GET".to_owned(), "POST".to_owned()],
            url: (*url).to_owned(),
            addresses: vec![(*addresses).to_owned()],
        })
        .collect();
    FetchRules::expand(&grants, &BTreeMap::new()).unwrap()
}

fn request(method: &str, url: &str) -> Request {
    Request {
        method: method.to_owned(),
        url: url.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout_ms: Some(2000),
        redirects: 0,
    }
}

fn plain() -> Conceal {
    Arc::new(str::to_owned)
}

/// Room for more than a test needs.
fn room() -> Room {
    Room::new(quota().claim(), limits::FETCH_BYTES_MAX)
}

async fn send_as(
    handler: &str,
    outbound: &Outbound,
    rules: &FetchRules,
    request: Request,
) -> Result<Response, Error> {
    send_into(&room(), handler, outbound, rules, request).await
}

async fn send_into(
    room: &Room,
    handler: &str,
    outbound: &Outbound,
    rules: &FetchRules,
    request: Request,
) -> Result<Response, Error> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let conceal = plain();
    let allowed =
        Allowance { handler, rules, concurrency: 4, bytes_max: 1000, room, conceal: &conceal, deadline };
    outbound.send(&allowed, request).await
}

async fn get(outbound: &Outbound, rules: &FetchRules, url: &str) -> Result<Response, Error> {
    send_as("x", outbound, rules, request("GET", url)).await
}

fn refusal(result: Result<Response, Error>) -> String {
    match result {
        Err(Error::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_name_is_resolved_once_and_its_checked_address_is_used() {
    let server = Server::start(|_| Some(OK.to_owned())).await;
    // The first answer is permitted; an attacker's second one is not.
    let names = Names::of(&[&["127.0.0.1"], &["10.0.0.7"]]);
    let ages = Ages { age_max: Duration::from_millis(300), ..Ages::default() };
    let outbound = Outbound::new(names.clone(), ages);
    let rules = rules(&[("http://rebind.example:*/*", "127.0.0.1/32")]);
    let first = get(&outbound, &rules, &server.named("/a")).await.unwrap();
    assert_eq!((first.status, first.body.as_slice()), (200, &b"ok"[..]));
    assert_eq!(names.asked.load(Ordering::SeqCst), 1);
    assert!(server.heads.lock()[0].contains("host: rebind.example:"), "the request names the host");
    // Once the connection is too old, the name is resolved again.
    let why = loop {
        match get(&outbound, &rules, &server.named("/a")).await {
            Ok(_) => tokio::task::yield_now().await,
            other => break refusal(other),
        }
    };
    assert!(why.contains("rebind.example resolves to 10.0.0.7, which is not a public address"), "{why}");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn one_bad_address_refuses_the_whole_answer() {
    let server = Server::start(|_| Some(OK.to_owned())).await;
    for bad in ["10.0.0.7", "::1", "::ffff:10.0.0.7", "169.254.169.254", "64:ff9b::7f00:1", "fe80::1"] {
        for answer in [["127.0.0.1", bad], [bad, "127.0.0.1"]] {
            let outbound = Outbound::new(Names::of(&[&answer]), Ages::default());
            let rules = rules(&[("http://rebind.example:*/*", "127.0.0.0/8")]);
            let why = refusal(get(&outbound, &rules, &server.named("/a")).await);
            assert!(why.contains("is not a public address; name it in the grant (addresses)"), "{why}");
        }
    }
    assert_eq!(server.connections(), 0);
    // A mapped address is the address that it contains.
    let outbound = Outbound::new(Names::of(&[&["::ffff:127.0.0.1"]]), Ages::default());
    let rules = rules(&[("http://rebind.example:*/*", "127.0.0.0/8")]);
    assert!(get(&outbound, &rules, &server.named("/a")).await.is_ok());
}

#[tokio::test]
async fn connections_are_reused_by_their_handler_only_and_within_its_grants() {
    let server = Server::start(|_| Some(OK.to_owned())).await;
    let outbound = Outbound::new(Names::of(&[&["127.0.0.1"]]), Ages::default());
    let wide = rules(&[("http://rebind.example:*/*", "127.0.0.1/32")]);
    for _ in 0..5 {
        get(&outbound, &wide, &server.named("/a")).await.unwrap();
    }
    assert_eq!(server.connections(), 1);
    send_as("y", &outbound, &wide, request("GET", &server.named("/a"))).await.unwrap();
    assert_eq!(server.connections(), 2, "another handler has its own");
    // The same handler with a grant that does not name the address: a connection of before is not used.
    let narrow = rules(&[("http://rebind.example:*/*", "")]);
    refusal(get(&outbound, &narrow, &server.named("/a")).await);
    assert_eq!((server.connections(), server.heads.lock().len()), (2, 6));
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closed_costs_nothing() {
    // It closes each connection at the second request, without an answer.
    let count = AtomicUsize::new(0);
    let server =
        Server::start(move |_| count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2).then(|| OK.to_owned()))
            .await;
    let outbound = Outbound::default();
    let rules = rules(&[("http://127.0.0.1:*/*", "")]);
    assert!(get(&outbound, &rules, &server.url("/1")).await.is_ok());
    // Its request is lost, so it is sent again; that is safe for a GET.
    assert!(get(&outbound, &rules, &server.url("/2")).await.is_ok());
    assert_eq!((server.heads.lock().len(), server.connections()), (3, 2));
    // It is not for a POST: the service may have done it.
    let post = send_as("x", &outbound, &rules, request("POST", &server.url("/3"))).await;
    assert!(matches!(post, Err(Error::UnknownOutcome(_))), "{post:?}");
    assert_eq!(server.heads.lock().len(), 4);
}

#[tokio::test]
async fn idle_connections_are_closed_in_time() {
    let server = Server::start(|_| Some(OK.to_owned())).await;
    let ages = Ages { idle_max: Duration::ZERO, ..Ages::default() };
    let outbound = Outbound::new(Names::of(&[]), ages);
    let rules = rules(&[("http://127.0.0.1:*/*", "")]);
    for _ in 0..3 {
        get(&outbound, &rules, &server.url("/a")).await.unwrap();
    }
    assert_eq!(server.connections(), 3, "none is young enough to be used again");
    outbound.0.pool.close_idle();
    assert_eq!(outbound.0.pool.open(), 0);
}

#[tokio::test]
async fn slow_names_of_one_handler_leave_threads_to_the_others() {
    let outbound = Outbound::new(Arc::new(Silent), Ages::default());
    let rules = rules(&[("http://*/*", "")]);
    let slow = async |handler: &str, host: usize| {
        let url = format!("http://{host}.slow.example/");
        let asked = Request { timeout_ms: Some(50), ..request("GET", &url) };
        send_as(handler, &outbound, &rules, asked).await
    };
    let in_time = |result: Result<Response, Error>| match result {
        Err(Error::Unavailable(why)) => assert!(why.contains("was not resolved in time"), "{why}"),
        other => panic!("{other:?}"),
    };
    for host in 0..limits::FETCH_RESOLVES_PER_HANDLER_MAX {
        in_time(slow("greedy", host).await);
    }
    // The fetches do not wait any more, but the threads are still blocked.
    let more = slow("greedy", 1000).await;
    assert!(matches!(more, Err(Error::Busy)), "{more:?}");
    // A name that is being resolved needs no second thread, and another handler has threads of its own.
    in_time(slow("greedy", 0).await);
    in_time(slow("other", 0).await);
    // All handlers together are bounded too.
    let held = limits::FETCH_RESOLVES_PER_HANDLER_MAX + 1;
    let handlers: Vec<String> = (held..limits::FETCH_RESOLVES_MAX).map(|n| format!("h{n}")).collect();
    let all = futures_util::future::join_all(handlers.iter().map(|handler| slow(handler, 0))).await;
    all.into_iter().for_each(in_time);
    let more = slow("one more", 0).await;
    assert!(matches!(more, Err(Error::Busy)), "{more:?}");
}

/// Fetches at the same time of a name that is not known yet ask for it once.
#[tokio::test]
async fn fetches_together_resolve_their_name_once() {
    let server = Server::start(|_| Some(OK.to_owned())).await;
    let names = Names::of(&[&["127.0.0.1"]]);
    let outbound = Outbound::new(names.clone(), Ages::default());
    let rules = rules(&[("http://rebind.example:*/*", "127.0.0.1/32")]);
    let url = server.named("/a");
    let all = futures_util::future::join_all((0..4).map(|_| get(&outbound, &rules, &url))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(names.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_handler_has_its_maximum_in_flight_and_a_host_its_connections() {
    // A server that accepts and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (outbound, rules) = (Outbound::default(), rules(&[("http://127.0.0.1:*/*", "")]));
    let hanging = |handler: &'static str| {
        let (outbound, rules, url) = (outbound.clone(), rules.clone(), url.clone());
        tokio::spawn(async move { send_as(handler, &outbound, &rules, request("GET", &url)).await })
    };
    let held: Vec<_> = (0..4).map(|_| hanging("x")).collect();
    while outbound.0.pool.open() < 4 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(get(&outbound, &rules, &url).await, Err(Error::Busy)));
    held.iter().for_each(|task| task.abort());
    for task in held {
        assert!(task.await.unwrap_err().is_cancelled());
    }
    assert_eq!(outbound.0.pool.open(), 0, "a cancelled fetch closes its connection");
    assert!(outbound.0.in_flight.0.lock().is_empty());
    // With a higher maximum of the handler, the connections of one host are the bound.
    let deadline = Instant::now() + Duration::from_millis(300);
    let allowed = Allowance {
        handler: "x",
        rules: &rules,
        concurrency: 100,
        bytes_max: 1000,
        room: &room(),
        conceal: &plain(),
        deadline,
    };
    let all = (0..10).map(|_| outbound.send(&allowed, request("GET", &url)));
    let results = futures_util::future::join_all(all).await;
    let busy = results.iter().filter(|result| matches!(result, Err(Error::Busy))).count();
    assert_eq!(busy, 10 - limits::FETCH_CONNECTIONS_PER_HOST_MAX, "{results:?}");
}

#[tokio::test]
async fn bodies_are_bounded_also_all_together() {
    let server = Server::start(|head| {
        let length = if head.starts_with("GET /large") { 1001 } else { 1000 };
        Some(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length)))
    })
    .await;
    let (outbound, rules) = (Outbound::default(), rules(&[("http://127.0.0.1:*/*", "")]));
    assert_eq!(get(&outbound, &rules, &server.url("/fits")).await.unwrap().body.len(), 1000);
    let large = get(&outbound, &rules, &server.url("/large")).await;
    assert!(matches!(large, Err(Error::TooLarge(1000))), "{large:?}");
    // The answers of one host call are bounded together.
    let small = Room::new(quota().claim(), 2500);
    let get_into = || send_into(&small, "x", &outbound, &rules, request("GET", &server.url("/fits")));
    assert!(get_into().await.is_ok());
    assert!(get_into().await.is_ok());
    let third = get_into().await;
    assert!(matches!(third, Err(Error::TooLarge(500))), "{third:?}");
}

/// A node without room sends nothing. If the room ends while it receives, that is no failure of the service.
#[tokio::test]
async fn a_node_without_room_is_busy_and_opens_no_breaker() {
    let server = Server::start(|_| {
        let body = "x".repeat(limits::FETCH_BODIES_UNIT_BYTES + 1);
        Some(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
    })
    .await;
    let (outbound, rules) = (Outbound::default(), rules(&[("http://127.0.0.1:*/*", "")]));
    // Room for the request, and for one unit of the answer.
    let quota = Quota::new(Division { total: 2, reserve: 2, lent: 1 });
    let claim = quota.claim();
    let room = Room::new(claim.clone(), u64::MAX);
    let deadline = Instant::now() + Duration::from_secs(10);
    let allowed = Allowance {
        handler: "x",
        rules: &rules,
        concurrency: 4,
        bytes_max: limits::FETCH_BYTES_MAX,
        room: &room,
        conceal: &plain(),
        deadline,
    };
    for _ in 0..=limits::BREAKER_FAILURES {
        let cut = outbound.send(&allowed, request("GET", &server.url("/a"))).await;
        assert!(matches!(&cut, Err(Error::UnknownOutcome(why)) if why.contains("all the memory")), "{cut:?}");
    }
    let all = claim.take(2).expect("nothing is held");
    let sent = server.heads.lock().len();
    let busy = outbound.send(&allowed, request("POST", &server.url("/a"))).await;
    assert!(matches!(busy, Err(Error::Busy)), "{busy:?}");
    assert_eq!(server.heads.lock().len(), sent);
    drop(all);
    assert_eq!(quota.free(), 2);
}

#[tokio::test]
async fn a_failing_status_opens_the_breaker_and_others_do_not() {
    let server = Server::start(|head| {
        let status = head.split(['/', ' ']).nth(2).unwrap().to_owned();
        Some(format!("HTTP/1.1 {status} Status\r\ncontent-length: 0\r\n\r\n"))
    })
    .await;
    let rules = rules(&[("http://127.0.0.1:*/*", "")]);
    for (status, opens) in
        [(200, false), (404, false), (429, false), (500, false), (502, true), (503, true), (504, true)]
    {
        let outbound = Outbound::default();
        for _ in 0..limits::BREAKER_FAILURES {
            let answer = get(&outbound, &rules, &server.url(&format!("/{status}"))).await.unwrap();
            assert_eq!(answer.status, status);
        }
        let next = get(&outbound, &rules, &server.url(&format!("/{status}"))).await;
        match next {
            Err(Error::Unavailable(why)) if opens => {
                assert!(
                    why.contains(&format!("5 failures, last: status {status}; next attempt in")),
                    "{why}"
                );
            }
            Ok(_) if !opens => {}
            other => panic!("{status}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_status_outside_of_the_contract_is_no_answer() {
    let server = Server::start(|head| {
        let status = head.split(['/', ' ']).nth(2).unwrap().to_owned();
        Some(format!("HTTP/1.1 {status} Status\r\ncontent-length: 0\r\n\r\n"))
    })
    .await;
    let (outbound, rules) = (Outbound::default(), rules(&[("http://127.0.0.1:*/*", "")]));
    for status in ["101", "600", "999"] {
        let answer = get(&outbound, &rules, &server.url(&format!("/{status}"))).await;
        assert!(matches!(answer, Err(Error::UnknownOutcome(_))), "{status}: {answer:?}");
    }
    assert_eq!(get(&outbound, &rules, &server.url("/599")).await.unwrap().status, 599);
}

/// Whatever the spelling: with grants for every host, nothing on this machine is reached.
#[tokio::test]
async fn no_spelling_of_the_loopback_is_reached() {
    let server = Server::start(|_| Some(OK.to_owned())).await;
    let outbound = Outbound::default();
    let rules = rules(&[("http://*:*/*", ""), ("https://*:*/*", "")]);
    let port = server.address.port();
    let digits = |radix: u32, byte: u8| match radix {
        8 => format!("0{byte:o}"),
        16 => format!("0x{byte:x}"),
        _ => byte.to_string(),
    };
    let mut hosts = Vec::new();
    // Each part decimal, octal or hexadecimal; one to four parts.
    for form in 0..81_u32 {
        let radix = |at: u32| [10, 8, 16][(form / 3_u32.pow(at) % 3) as usize];
        let parts: Vec<String> =
            [127, 0, 0, 1].iter().zip(0..).map(|(byte, at)| digits(radix(at), *byte)).collect();
        hosts.push(parts.join("."));
        hosts.push(format!("{}.{}", parts[0], parts[3]));
        hosts.push(format!("{}.{}.{}", parts[0], parts[1], parts[3]));
    }
    hosts.extend(["2130706433", "0x7f000001", "017700000001", "127.1", "0", "0.0.0.0"].map(str::to_owned));
    hosts.extend(
        [
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:7f00:1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "0:0:0:0:0:0:0:1",
        ]
        .map(|host| format!("[{host}]")),
    );
    for host in hosts {
        let why = refusal(get(&outbound, &rules, &format!("http://{host}:{port}/")).await);
        assert!(why.contains("is not a public address"), "{host}: {why}");
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_sandbox_without_a_network_refuses_in_the_same_way() {
    let rules = rules(&[("https://x.example/v1/*", "")]);
    assert!(check(&rules, 10, request("GET", "https://x.example/v1/a")).is_ok());
    let refused = check(&rules, 10, request("GET", "https://x.example/v2/a?token=s3cret"));
    let Err(Error::Refused(why)) = refused else { panic!("{refused:?}") };
    assert_eq!(why, "GET https://x.example/v2/a is not granted (grants.fetch)");
    let large = Request { body: vec![0; 11], ..request("POST", "https://x.example/v1/a") };
    assert!(matches!(check(&rules, 10, large), Err(Error::TooLarge(10))));
}

#[test]
fn headers_of_the_transport_and_too_many_are_refused() {
    let check = |headers: Vec<(String, String)>| headers_of(&headers).map(|headers| headers.len());
    let of = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    assert!(matches!(check(of("accept", "text/plain")), Ok(1)));
    for name in OF_THE_TRANSPORT {
        assert!(
            matches!(check(of(name, "x")), Err(Error::Refused(why)) if why.contains("the host sets")),
            "{name}"
        );
    }
    for name in ["content_length", "transfer_encoding", "transfer-encoding_", "host"] {
        let refused = check(of(name, "x"));
        assert_eq!(matches!(refused, Err(Error::Refused(_))), name != "transfer-encoding_", "{name}");
    }
    for (name, value) in
        [("Accept", "x"), ("x a", "x"), ("", "x"), ("x-a", "1\r\n2"), ("x-a", "1\0"), ("é", "x")]
    {
        assert!(matches!(check(of(name, value)), Err(Error::Refused(_))), "{name:?} {value:?}");
    }
    let many = (0..=limits::FETCH_HEADERS_MAX).map(|n| (format!("x-{n}"), String::new()));
    assert!(matches!(check(many.collect()), Err(Error::Refused(why)) if why.contains("at most 64 headers")));
    let long = of("x-a", &"y".repeat(limits::FETCH_HEADERS_BYTES_MAX));
    assert!(matches!(check(long), Err(Error::Refused(why)) if why.contains("at most 16384 bytes")));
}

#[tokio::test]
async fn a_get_or_head_with_a_body_is_refused_and_not_sent() {
    let server = Server::start(|_| Some(OK.to_owned())).await;
    let (outbound, rules) = (Outbound::default(), rules(&[("http://127.0.0.1:*/*", "")]));
    for method in ["GET", "HEAD"] {
        let smuggled = b"GET /admin HTTP/1.1\r\nhost: x\r\n\r\n".to_vec();
        let asked = Request { body: smuggled, ..request(method, &server.url("/a")) };
        let why = refusal(send_as("x", &outbound, &rules, asked).await);
        assert_eq!(why, "a GET or HEAD has no body");
    }
    assert_eq!(server.connections(), 0);
}

/// What HTTP leaves out of head and body is bounded too.
#[tokio::test]
async fn endless_framing_is_too_large_long_before_the_deadline() {
    let server = Server::start(|head| {
        const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        Some(match head.split(['/', ' ']).nth(2).unwrap() {
            "hints" => "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".repeat(100_000),
            "zeros" => format!("{CHUNKED}{}", "0".repeat(4_000_000)),
            "small" => {
                let chunks = "1\r\nx\r\n".repeat(1000);
                format!("HTTP/1.1 103 Early Hints\r\n\r\n{CHUNKED}{chunks}0\r\n\r\n")
            }
            other => panic!("{other}"),
        })
    })
    .await;
    let (outbound, rules) = (Outbound::default(), rules(&[("http://127.0.0.1:*/*", "")]));
    for path in ["/hints", "/zeros"] {
        let asked = Request { timeout_ms: None, ..request("GET", &server.url(path)) };
        let result = send_as("x", &outbound, &rules, asked).await;
        let max = answer_bytes_max(1000);
        assert!(matches!(result, Err(Error::TooLarge(most)) if most == max), "{path}: {result:?}");
    }
    // A body in the smallest chunks fits.
    assert_eq!(get(&outbound, &rules, &server.url("/small")).await.unwrap().body.len(), 1000);
}

/// A server that answers a large request early, and never reads the rest of it, does not cost the next fetch
/// its time.
#[tokio::test]
async fn a_connection_whose_last_request_is_not_read_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            // The head is in the first bytes; it reads no more than these.
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(OK.as_bytes()).await;
            held.push(stream);
        }
    });
    let (outbound, rules) = (Outbound::default(), rules(&[("http://127.0.0.1:*/*", "")]));
    let allowed = Allowance {
        handler: "x",
        rules: &rules,
        concurrency: 4,
        bytes_max: u64::MAX,
        room: &Room::new(quota().claim(), u64::MAX),
        conceal: &plain(),
        deadline: Instant::now() + Duration::from_secs(10),
    };
    // More than the buffers of both ends of a connection hold.
    let large = Request { body: vec![b'x'; 64 * 1024 * 1024], ..request("POST", &url) };
    let early = outbound.send(&allowed, large).await;
    assert!(early.is_ok_and(|answer| answer.status == 200));
    let next = outbound.send(&allowed, request("POST", &url)).await;
    assert!(next.as_ref().is_ok_and(|answer| answer.status == 200), "{next:?}");
}
