//! The memory of an idle connection (the aim: at most 6 KiB resident, with everything).

use std::io::{Read, Write};
use std::net::TcpStream;

use super::backend::{TestGateway, token};
use crate::gateway::connection;
use switchboard_core::config::Config;

fn size_of_task<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn the_task_of_a_connection_is_small() {
    let bytes = size_of_task(connection::run);
    assert!(bytes <= 2048, "{bytes}");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The memory of this process, which also holds the clients' ends: plain file descriptors, which need almost
/// nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for a quiet machine"]
async fn what_idle_connections_cost() {
    let mut server =
        TestGateway::open_with(Config { connections_per_user_max: 100_000, ..Config::default() }).await;
    let address = server.address;
    let arrive = move |count: usize| {
        tokio::task::spawn_blocking(move || {
            let mut streams = Vec::new();
            for number in 0..count {
                let mut stream = TcpStream::connect(address).unwrap();
                let token = token(&format!("user-{number}"));
                let handshake = format!(
                    "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                     authorization: Bearer {token}\r\n\r\n"
                );
                stream.write_all(handshake.as_bytes()).unwrap();
                let mut heard = Vec::new();
                let mut buffer = [0; 1024];
                while !heard.windows(10).any(|part| part == b"early.push") {
                    let bytes = stream.read(&mut buffer).unwrap();
                    heard.extend_from_slice(&buffer[..bytes]);
                }
                streams.push(stream);
            }
            streams
        })
    };
    let warm = arrive(200).await.unwrap();
    let before = resident_kib();
    let began = std::time::Instant::now();
    let many = arrive(4000).await.unwrap();
    let took = began.elapsed();
    while server.try_next_event().is_ok() {}
    let each = (resident_kib() - before) as f64 / many.len() as f64;
    println!(
        "{each:.2} KiB each; {:.0} handshakes/s from one thread",
        many.len() as f64 / took.as_secs_f64()
    );
    drop(warm);
}
