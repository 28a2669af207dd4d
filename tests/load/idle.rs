//! Idle connections: the rate of connecting, the memory of each, and the wait of one in a steady stream of
//! others while all of them are open. The control keeps bare sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use switchboard_tests::checker::Wrong;
use switchboard_tests::frames;
use switchboard_tests::patience::PATIENCE;
use switchboard_tests::socket::{Handshake, Socket};
use switchboard_tests::token::Token;
use tokio::task::JoinSet;

use crate::figures::{By, Figures, Latencies, Row};
use crate::native::Native;
use crate::process;
use crate::rig::Rig;

/// Handshakes under way at the same time.
const AT_ONCE: usize = 64;
/// Number of connections before the measurement.
const WARM: usize = 2_000;
/// Connections from one address, which has about 28,000 ports.
const SOURCES: usize = 8;
/// Interval of the steady stream, independent of earlier connections.
const PER_SECOND: u32 = 500;
/// Resident memory is read once it was constant for this many checks.
const STILL_LOOKS: usize = 4;

#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub connections: usize,
    /// Duration of the steady stream.
    pub stream_s: u64,
}

impl Size {
    pub(crate) const QUICK: Self = Self { connections: 2_000, stream_s: 3 };
    pub(crate) const FULL: Self = Self { connections: 10_000, stream_s: 10 };
}

/// The result of one side.
pub(crate) struct Measured {
    pub idle: Figures,
    pub stream: Figures,
}

pub(crate) async fn rows(rig: &Rig, size: Size) -> Result<Vec<Row>, Wrong> {
    rig.is(format!("{} sockets sign in and stay", size.connections));
    let ours = measure(rig.host.address, rig.host.pid(), size, signing_in, true).await;
    rig.is("the same with the control");
    let control = native(size).await;
    let row = |name: String, by, to_reach, pick: fn(&Measured) -> &Figures| Row {
        name,
        figures: pick(&ours).clone(),
        control_name: "bare hyper + fastwebsockets, no token".into(),
        control: pick(&control).clone(),
        by,
        to_reach,
    };
    let connections = size.connections;
    Ok(vec![
        row(
            format!("idle connections: {connections}, memory each"),
            By::Resident,
            "≤ 6 KiB, then 4",
            |all| &all.idle,
        ),
        row(format!("handshakes, {AT_ONCE} at once"), By::PerSecond, "≥ 15,000/s", |all| &all.idle),
        row(format!("handshakes, {PER_SECOND}/s beside {connections}"), By::P99, "p99 < 100 ms", |all| {
            &all.stream
        }),
    ])
}

pub(crate) async fn native(size: Size) -> Measured {
    let native = Native::start();
    measure(native.address, native.pid(), size, |_| Handshake::bare(), false).await
}

fn signing_in(number: usize) -> Handshake {
    Handshake::bearer(&Token::of(&format!("idle-{number}")).sign())
}

async fn measure(
    address: SocketAddr,
    pid: u32,
    size: Size,
    handshake: impl Fn(usize) -> Handshake,
    signs_in: bool,
) -> Measured {
    let connections = size.connections;
    // Open some connections first and keep them, so that single allocations (instances, pools) do not count
    // for the connections.
    let warm = open_all(address, (0..WARM).map(&handshake).collect(), signs_in).await.0;
    let before = settled(pid).await;
    let handshakes: Vec<_> = (0..connections).map(|n| handshake(WARM + n)).collect();
    let (cpu, start) = (process::cpu(pid), Instant::now());
    let (mut sockets, latencies) = open_all(address, handshakes, signs_in).await;
    let took = start.elapsed().as_secs_f64();
    let cpu = process::cpu(pid) - cpu;
    if signs_in {
        // Send one heartbeat each, so that the memory includes what a live connection needs.
        for socket in &mut sockets {
            let ping = frames::encode(frames::TEXT, br#"{"type":"ping","id":1}"#);
            socket.write_raw(&ping).await.expect("a frame is taken");
        }
        for socket in &mut sockets {
            socket.next_frame().await.expect("a whole frame").expect("the host keeps the connection");
        }
    }
    let after = settled(pid).await;
    let opened = sockets.len();
    let first = WARM + connections;
    let handshakes =
        (0..PER_SECOND as usize * size.stream_s as usize).map(|n| handshake(first + n)).collect();
    let stream = stream(address, handshakes, signs_in).await;
    drop((sockets, warm));
    let idle = Figures {
        per_second: Some(opened as f64 / took),
        spread: latencies.spread(),
        server_cpu_us: Some(cpu.as_micros() as f64 / opened as f64),
        resident_kib: Some((after - before) / opened as f64),
        wrong: (connections - opened) as u64,
        ..Figures::default()
    };
    Measured { idle, stream }
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
