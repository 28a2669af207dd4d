//! Idle connections: how fast they come in, and what each costs to keep. The control keeps bare sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use switchboard_tests::frames;
use switchboard_tests::socket::{Handshake, Socket};
use switchboard_tests::token::Token;

use crate::figures::{By, Figures, Latencies, Row};
use crate::native::Native;
use crate::process;
use crate::rig::Rig;

/// Handshakes under way at the same time.
const AT_ONCE: usize = 64;
/// One address has about 28,000 ports to come from.
const PER_SOURCE: usize = 20_000;
/// Resident memory is read once it has stood still for so many looks.
const STILL_LOOKS: usize = 4;

pub async fn rows(rig: &Rig, connections: usize) -> Vec<Row> {
    let figures = measure(rig.host.address, rig.host.pid(), connections, signing_in, true).await;
    let control = native(connections).await;
    let row = |name: String, by, to_reach| Row {
        name,
        figures: figures.clone(),
        control_name: "bare hyper + fastwebsockets, no token".into(),
        control: control.clone(),
        by,
        to_reach,
    };
    vec![
        row(format!("idle connections: {connections}, memory each"), By::Resident, "≤ 6 KiB, then 4"),
        row(format!("handshakes, {AT_ONCE} at once"), By::PerSecond, "≥ 15,000/s"),
    ]
}

pub async fn native(connections: usize) -> Figures {
    let native = Native::start();
    measure(native.address, native.pid(), connections, |_| Handshake::bare(), false).await
}

fn signing_in(number: usize) -> Handshake {
    Handshake::bearer(&Token::of(&format!("idle-{number}")).sign())
}

async fn measure(
    address: SocketAddr,
    pid: u32,
    connections: usize,
    handshake: impl Fn(usize) -> Handshake,
    signs_in: bool,
) -> Figures {
    // Half as many first, and they stay: what is allocated once (instances, pools) is not counted as a connection's.
    let warm = open_all(address, (0..connections / 2).map(&handshake).collect(), signs_in).await.0;
    let before = settled(pid).await;
    let handshakes: Vec<_> = (0..connections).map(|n| handshake(connections / 2 + n)).collect();
    let (cpu, start) = (process::cpu(pid), Instant::now());
    let (mut sockets, latencies) = open_all(address, handshakes, signs_in).await;
    let took = start.elapsed().as_secs_f64();
    let cpu = process::cpu(pid) - cpu;
    if signs_in {
        // A heartbeat each: what a connection needs while it lives is in its memory, too.
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
    drop((sockets, warm));
    Figures {
        per_second: Some(opened as f64 / took),
        spread: latencies.spread(),
        server_cpu_us: Some(cpu.as_micros() as f64 / opened as f64),
        resident_kib: Some((after - before) / opened as f64),
        wrong: (connections - opened) as u64,
        ..Figures::default()
    }
}

async fn open_all(
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
                    let source = SocketAddr::from(([127, 0, 0, 1 + (number / PER_SOURCE) as u8], 0));
                    let began = Instant::now();
                    let Ok((mut socket, _)) = Socket::open_from(Some(source), address, handshake).await
                    else {
                        continue;
                    };
                    // Signed in is when the host says so.
                    if !signs_in || matches!(socket.next_frame().await, Ok(Some(_))) {
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

/// Resident memory, once it has stopped moving: allocators give back late.
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
