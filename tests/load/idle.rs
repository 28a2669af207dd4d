//! Connections: what a fresh server holds in memory and what many idle connections add, the rate of signing
//! in, and the wait of one in a steady stream of others while all of them are open. The control keeps bare
//! sockets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use switchboard_tests::frames;
use switchboard_tests::patience::PATIENCE;
use switchboard_tests::socket::{Handshake, Socket};
use switchboard_tests::token::Token;
use tokio::task::JoinSet;

use crate::figures::{By, Figures, Latencies, Row};
use crate::idle_node::Counter;
use crate::low_load::POSTGRES_REPORTS_WITHIN;
use crate::native;
use crate::process::{self, Meter};
use crate::rig::Rig;
use crate::server::{Turns, each_once, in_turn, quiet};

/// Handshakes under way at the same time.
const AT_ONCE: usize = 64;
/// Connections from one address, which has about 28,000 ports.
const SOURCES: usize = 8;
/// Interval of the steady stream, independent of earlier connections.
const PER_SECOND: u32 = 500;
/// Resident memory is read once it was constant for this many checks.
const STILL_LOOKS: usize = 4;
/// Numbers of connections at which memory is read.
const STAGES: usize = 4;

#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub stages: [usize; STAGES],
    /// Connections of the row of handshakes.
    pub handshakes: usize,
    /// Duration of the steady stream.
    pub stream_s: u64,
}

impl Size {
    pub(crate) const QUICK: Self =
        Self { stages: [500, 1_000, 2_000, 3_000], handshakes: 1_000, stream_s: 2 };
    pub(crate) const FULL: Self =
        Self { stages: [1_000, 3_000, 9_000, 10_000], handshakes: 3_000, stream_s: 8 };

    fn connections(&self) -> usize {
        self.stages[STAGES - 1]
    }
}

/// Fresh, each stage above it, the fixed part, each connection, the steady stream.
const FIGURES: usize = STAGES + 4;

pub(crate) async fn rows(rig: &Rig, size: Size) -> io::Result<Vec<Row>> {
    let turns = each_once(rig, async |server| {
        server.is(format!("{} sockets sign in and stay", size.connections()));
        Ok(memory(server.address(), server.pid(), size, signing_in, true).await)
    })
    .await?;
    quiet(rig).await;
    rig.is("the same with the control");
    let native = native::start().await;
    let control = memory(native.address, native.pid(), size, |_| Handshake::bare(), false).await;
    let connections = size.connections();
    let after = |stage: usize| {
        (format!("memory above fresh: {} connections", size.stages[stage]), By::Resident, "≤ 1 × Bun")
    };
    let shapes: [(String, By, &'static str); FIGURES] = [
        ("memory of a fresh server".into(), By::Resident, ""),
        after(0),
        after(1),
        after(2),
        after(3),
        ("memory above fresh: the fixed part".into(), By::Resident, "≤ 8 MiB"),
        (format!("idle connections: {connections}, memory each"), By::Resident, "≤ 1 × Bun"),
        (format!("handshakes, {PER_SECOND}/s beside {connections}"), By::P99, "p99 < 100 ms"),
    ];
    let sides = turns.into_iter().zip(control);
    let row =
        |((name, by, to_reach), (turns, control)): ((String, By, &'static str), (Turns, Figures))| Row {
            name,
            figures: turns.node,
            control_name: BARE.into(),
            control,
            peers: Some(turns.peers),
            by,
            to_reach,
        };
    Ok(shapes.into_iter().zip(sides).map(row).collect())
}

const BARE: &str = "bare hyper + fastwebsockets, no token";

/// The rate of signing in. The connections of a round are closed after it.
pub(crate) async fn handshakes(rig: &Rig, size: Size) -> io::Result<Vec<Row>> {
    let count = size.handshakes;
    let [turns] = in_turn(rig, async |server| {
        server.is(format!("{count} sockets sign in"));
        Ok([signed_in(server.address(), server.meter(), count, signing_in, true).await])
    })
    .await?;
    quiet(rig).await;
    let native = native::start().await;
    let meter = Meter::start(native.pid(), None);
    let control = signed_in(native.address, meter, count, |_| Handshake::bare(), false).await;
    Ok(vec![Row {
        name: format!("handshakes with token: {count}, {AT_ONCE} at once"),
        figures: turns.node,
        control_name: BARE.into(),
        control,
        peers: Some(turns.peers),
        by: By::PerSecond,
        to_reach: "≥ 1 × Bun",
    }])
}

/// Counts what the node asks of Postgres and Redis for each client that signs in, with all consumers of the
/// events, and its calls about opened connections.
pub(crate) async fn requests(rig: &Rig, size: Size) -> io::Result<Vec<Row>> {
    let (node, count) = (rig.node(), size.handshakes);
    let mut counter = Counter::new(&node).await;
    node.is("waiting for Postgres to report the transactions before");
    tokio::time::sleep(POSTGRES_REPORTS_WITHIN).await;
    let (before, start) = (counter.read().await, Instant::now());
    tokio::time::sleep(POSTGRES_REPORTS_WITHIN).await;
    let (idle, idle_s) = (counter.read().await.since(&before), start.elapsed().as_secs_f64());
    node.is(format!("{count} users sign in for the first time"));
    let (before, calls_before) = (counter.read().await, opening_calls(rig).await);
    let start = Instant::now();
    let handshakes = (0..count).map(|n| Handshake::bearer(&Token::of(&format!("counted-{n}")).sign()));
    let (sockets, _) = open_all(node.address(), handshakes.collect(), true).await;
    tokio::time::sleep(POSTGRES_REPORTS_WITHIN).await;
    let (used, calls) = (counter.read().await.since(&before), opening_calls(rig).await - calls_before);
    let (idles, opened) = (start.elapsed().as_secs_f64() / idle_s, sockets.len() as f64);
    let wrong = (count - sockets.len()) as u64;
    drop(sockets);
    let each = |used: f64, idle: f64| Some((used - idle * idles) / opened);
    let row = |what: &str, figures: Figures| Row {
        name: format!("handshakes, {AT_ONCE} at once: {what} each"),
        figures: Figures { wrong, ..figures },
        control_name: "one of each".into(),
        control: Figures { count: Some(1.0), ..Figures::default() },
        peers: None,
        by: By::Count,
        to_reach: "",
    };
    let mut commands = Figures { count: each(used.commands(), idle.commands()), ..Figures::default() };
    for (name, count) in &used.by_command {
        let count = each(*count, idle.by_command.get(name).copied().unwrap_or(0.0)).unwrap_or(0.0);
        if count >= 0.05 {
            commands = commands.with_further(name, count);
        }
    }
    let counted = |count| Figures { count, ..Figures::default() };
    Ok(vec![
        row("calls about opened connections", counted(Some(calls / opened))),
        row("Postgres transactions", counted(each(used.transactions, idle.transactions))),
        row("Redis commands", commands),
    ])
}

/// The calls of handlers about opened connections since the node began.
async fn opening_calls(rig: &Rig) -> f64 {
    let page = rig.host.admin.rest().get("/metrics").await;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    let of_openings =
        |line: &&str| line.starts_with("switchboard_calls_total{") && line.contains("trigger=\"opened");
    page.lines().filter(of_openings).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// The rows of the native control in a run of the controls alone.
pub(crate) async fn native(size: Size) -> [Figures; 2] {
    let native = native::start().await;
    let bare = |_| Handshake::bare();
    let meter = Meter::start(native.pid(), None);
    let rate = signed_in(native.address, meter, size.handshakes, bare, false).await;
    let [.., stream] = memory(native.address, native.pid(), size, bare, false).await;
    [rate, stream]
}

fn signing_in(number: usize) -> Handshake {
    Handshake::bearer(&Token::of(&format!("idle-{number}")).sign())
}

async fn signed_in(
    address: SocketAddr,
    meter: Meter,
    count: usize,
    handshake: impl Fn(usize) -> Handshake,
    signs_in: bool,
) -> Figures {
    let handshakes = (0..count).map(handshake).collect();
    let start = Instant::now();
    let (sockets, latencies) = open_all(address, handshakes, signs_in).await;
    let (took, cpu, opened) = (start.elapsed().as_secs_f64(), meter.read(), sockets.len());
    let wrong = (count - opened) as u64;
    Figures {
        per_second: Some(opened as f64 / took),
        spread: latencies.spread(),
        wrong,
        ..Figures::default()
    }
    .with_cpu(cpu, opened as f64)
}

/// Opens connections up to each stage, and then the steady stream. They end with the return.
async fn memory(
    address: SocketAddr,
    pid: u32,
    size: Size,
    handshake: impl Fn(usize) -> Handshake,
    signs_in: bool,
) -> [Figures; FIGURES] {
    let resident = |resident_kib: f64| Figures { resident_kib: Some(resident_kib), ..Figures::default() };
    let fresh = settled(pid).await;
    let mut sockets: Vec<Socket> = Vec::new();
    let (mut above, mut missing) = ([0.0; STAGES], 0);
    for (above, stage) in above.iter_mut().zip(size.stages) {
        let handshakes: Vec<_> = (sockets.len() + missing..stage).map(&handshake).collect();
        let wanted = handshakes.len();
        let mut opened = open_all(address, handshakes, signs_in).await.0;
        missing += wanted - opened.len();
        if signs_in {
            // Send one heartbeat each, so that the memory includes what a live connection needs.
            for socket in &mut opened {
                let ping = frames::encode(frames::TEXT, br#"{"type":"ping","id":1}"#);
                socket.write_raw(&ping).await.expect("a frame is taken");
            }
            for socket in &mut opened {
                socket.next_frame().await.expect("a whole frame").expect("the server keeps the connection");
            }
        }
        sockets.extend(opened);
        *above = settled(pid).await - fresh;
    }
    let (first, last) = (size.stages[0] as f64, size.connections() as f64);
    // Growth between the first and the last stage, so that single allocations (instances, pools) do not count
    // for the connections.
    let each = (above[STAGES - 1] - above[0]) / (last - first);
    let fixed = above[0] - first * each;
    let begin = size.connections();
    let handshakes =
        (0..PER_SECOND as usize * size.stream_s as usize).map(|n| handshake(begin + n)).collect();
    let stream = stream(address, handshakes, signs_in).await;
    drop(sockets);
    let [a, b, c, d] = above.map(resident);
    let each = Figures { wrong: missing as u64, ..resident(each) };
    [resident(fresh), a, b, c, d, resident(fixed), each, stream]
}

/// Opens one connection at each interval; its wait counts from its due time. They stay open, as the others
/// do.
async fn stream(address: SocketAddr, handshakes: Vec<Handshake>, signs_in: bool) -> Figures {
    let (begin, wanted) = (Instant::now(), handshakes.len());
    let mut coming = JoinSet::new();
    for (number, handshake) in handshakes.into_iter().enumerate() {
        let due = begin + Duration::from_secs(1) * number as u32 / PER_SECOND;
        tokio::time::sleep_until(due.into()).await;
        coming.spawn(async move { (open(address, number, &handshake, signs_in).await, due.elapsed()) });
    }
    let (mut latencies, mut sockets) = (Latencies::default(), Vec::new());
    while let Some(come) = coming.join_next().await {
        let (socket, took) = come.expect("a handshake ends");
        if let Some(socket) = socket {
            latencies.add(took);
            sockets.push(socket);
        }
    }
    let wrong = (wanted - sockets.len()) as u64;
    let per_second = Some(sockets.len() as f64 / begin.elapsed().as_secs_f64());
    Figures { per_second, spread: latencies.spread(), wrong, ..Figures::default() }
}

/// A client is signed in when `auth.success` arrives.
async fn open(address: SocketAddr, number: usize, handshake: &Handshake, signs_in: bool) -> Option<Socket> {
    let source = SocketAddr::from(([127, 0, 0, 1 + (number % SOURCES) as u8], 0));
    let opening = async {
        let (mut socket, _) = Socket::open_from(Some(source), address, handshake).await.ok()?;
        (!signs_in || matches!(socket.next_frame().await, Ok(Some(_)))).then_some(socket)
    };
    tokio::time::timeout(PATIENCE, opening).await.ok().flatten()
}

pub(crate) async fn open_all(
    address: SocketAddr,
    handshakes: Vec<Handshake>,
    signs_in: bool,
) -> (Vec<Socket>, Latencies) {
    let handshakes: Arc<[Handshake]> = handshakes.into();
    let next = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (handshakes, next) = (handshakes.clone(), next.clone());
            tokio::spawn(async move {
                let (mut sockets, mut latencies) = (Vec::new(), Latencies::default());
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(handshake) = handshakes.get(number) else { return (sockets, latencies) };
                    let began = Instant::now();
                    if let Some(socket) = open(address, number, handshake, signs_in).await {
                        latencies.add(began.elapsed());
                        sockets.push(socket);
                    }
                }
            })
        })
        .collect();
    let (mut sockets, mut latencies) = (Vec::new(), Latencies::default());
    for task in tasks {
        let (mine, times) = task.await.expect("handshakes end");
        sockets.extend(mine);
        latencies.merge(times);
    }
    (sockets, latencies)
}

/// Resident memory, once it is constant: allocators return memory late.
async fn settled(pid: u32) -> f64 {
    let (mut last, mut still) = (process::resident_kib(pid), 0);
    let deadline = Instant::now() + Duration::from_secs(5);
    while still < STILL_LOOKS && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let now = process::resident_kib(pid);
        still = if (now - last).abs() < 64.0 { still + 1 } else { 0 };
        last = now;
    }
    last
}
