//! Presence: reading it over REST, sweeping leases that all end at once, and how long a dead node's people
//! are still shown.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use switchboard_tests::rest::Rest;
use switchboard_tests::services::Redis;
use switchboard_tests::socket::{Handshake, Socket};
use switchboard_tests::token::Token;

use crate::figures::{By, Figures, Latencies, Row};
use crate::idle;
use crate::rig::Rig;

const SCRIPT: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../handlers/chat/scripts/presence.lua"));
const PARTITIONS: u64 = 64;
/// Number of people in one request.
const ASKED: usize = 100;
const QUESTIONS: usize = 500;
/// Four times the allowed time for the people of a dead node.
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub(crate) async fn rows(rig: &Rig, people: usize) -> Vec<Row> {
    let mut rows = vec![read(rig, people).await];
    rig.is("a sweep");
    rows.push(sweep(people).await);
    rows.push(death(rig, people).await);
    rows
}

/// People who share a room with the caller and are connected; each request asks for another hundred of them.
async fn read(rig: &Rig, people: usize) -> Row {
    let users: Vec<String> = (0..=people).map(|n| format!("seen-{n}")).collect();
    rig.room(&users).await;
    rig.is(format!("{people} people sign in"));
    let sockets = sign_in(rig.host.address, &users[1..]).await;
    until_announced(rig, "seen", "online", people).await;
    rig.is("reading who is there");
    let rest = Rest::new(rig.host.address, Token::of(&users[0]).sign());
    let (mut took, mut wrong) = (Latencies::default(), 0);
    for n in 0..QUESTIONS {
        let from = 1 + n * ASKED % (people - ASKED + 1);
        let path = format!("/api/v1/presence?user_ids={}", users[from..from + ASKED].join(","));
        let begin = Instant::now();
        let answer = rest.get(&path).await.expect(200);
        took.add(begin.elapsed());
        let people = answer["presence"].as_array().cloned().unwrap_or_default();
        let online = people.iter().filter(|person| person["status"] == "online").count();
        if online != ASKED {
            eprintln!("  {online} of {ASKED} are online, from {} on", users[from]);
            wrong += 1;
        }
    }
    let mut control = Latencies::default();
    for _ in 0..QUESTIONS {
        let begin = Instant::now();
        rest.get("/api/v1/nothing-here").await;
        control.add(begin.elapsed());
    }
    drop(sockets);
    Row {
        name: format!("presence: read of {ASKED} of {people}"),
        figures: Figures { spread: took.spread(), wrong, ..Figures::default() },
        control_name: "a request that asks nobody".into(),
        control: Figures { spread: control.spread(), ..Figures::default() },
        peers: None,
        by: By::P99,
        to_reach: "p99 < 5 ms",
    }
}

/// Every lease of this many people ends at the same moment: the worst case of a sweep.
async fn sweep(people: usize) -> Row {
    const NOW: u64 = 1_763_000_000_000;
    let server = Redis::start().await;
    let client = redis::Client::open(server.url_at(None)).expect("a URL");
    let (took, control, wrong) = tokio::task::spawn_blocking(move || {
        let mut redis = client.get_connection().expect("Redis answers");
        let due = |partition: u64| format!("{{p:{partition:02}}}:due");
        let run = |partition: u64, operation: &str, now: u64| {
            let mut command = redis::cmd("EVAL");
            command.arg(SCRIPT).arg(1).arg(due(partition)).arg(operation).arg(now).arg(300_000);
            command
        };
        for n in 0..people as u64 {
            let mut open = run(n % PARTITIONS, "open", NOW);
            open.arg(format!("c{n}")).arg("node").arg(format!("user {n}")).arg("-");
            open.arg(NOW + 90_000).arg(NOW + 9_000).arg(3_600_000).exec(&mut redis).expect("opened");
        }
        let mut looks = Latencies::default();
        for _ in 0..20 {
            let begin = Instant::now();
            let mut pipeline = redis::pipe();
            for partition in 0..PARTITIONS {
                pipeline.cmd("ZCOUNT").arg(due(partition)).arg("-inf").arg(NOW);
            }
            pipeline.query::<Vec<u64>>(&mut redis).expect("counted");
            looks.add(begin.elapsed());
        }
        let (mut took, mut gone) = (Latencies::default(), 0);
        let begin = Instant::now();
        for partition in 0..PARTITIONS {
            let mut sweep = run(partition, "sweep", NOW + 100_000);
            let changed: Vec<String> = sweep.arg(500).arg(90_000).arg(0).query(&mut redis).expect("swept");
            gone += changed.len() / 4;
        }
        took.add(begin.elapsed());
        (took, looks, people.abs_diff(gone) as u64)
    })
    .await
    .expect("a sweep");
    Row {
        name: format!("presence: sweep of {people}, all gone"),
        figures: Figures { spread: took.spread(), wrong, ..Figures::default() },
        control_name: "the same look at leases that stand".into(),
        control: Figures { spread: control.spread(), ..Figures::default() },
        peers: None,
        by: By::P50,
        to_reach: "< 100 ms",
    }
}

/// Measures the time from `kill -9` of a node to the announcement of the last of its people.
async fn death(rig: &Rig, people: usize) -> Row {
    let mut node = rig.host.another_node().await;
    let users: Vec<String> = (0..people).map(|n| format!("mortal-{n}")).collect();
    rig.is(format!("{people} people sign in on a node that is to die"));
    let sockets = sign_in(node.address, &users).await;
    until_announced(rig, "mortal", "online", people).await;
    node.kill().await;
    let begin = Instant::now();
    until_announced(rig, "mortal", "offline", people).await;
    drop(sockets);
    let mut took = Latencies::default();
    took.add(begin.elapsed());
    Row {
        name: format!("presence: death of a node of {people}"),
        figures: Figures { spread: took.spread(), ..Figures::default() },
        control_name: "its lease".into(),
        peers: None,
        control: {
            let mut lease = Latencies::default();
            lease.add(Duration::from_secs(9));
            Figures { spread: lease.spread(), ..Figures::default() }
        },
        by: By::P50,
        to_reach: "≤ 15 s",
    }
}

async fn sign_in(node: SocketAddr, users: &[String]) -> Vec<Socket> {
    let handshakes = users.iter().map(|user| Handshake::bearer(&Token::of(user).sign())).collect();
    let (sockets, _) = idle::open_all(node, handshakes, true).await;
    assert_eq!(sockets.len(), users.len(), "not everybody could sign in");
    sockets
}

/// Waits until Postgres has this status for all of them.
async fn until_announced(rig: &Rig, whose: &str, status: &str, people: usize) {
    rig.is(format!("all {people} of `{whose}` to get {status}"));
    let database = rig.host.database.connect().await;
    let statement =
        format!("select count(*) from app.presence where user_id like '{whose}-%' and status = '{status}'");
    let deadline = Instant::now() + ANNOUNCED_WITHIN;
    loop {
        let changed: i64 = database.rows(&statement).await[0].get(0);
        if changed == people as i64 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "waited {ANNOUNCED_WITHIN:?}: {changed} of {people} `{whose}` are {status}"
        );
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
