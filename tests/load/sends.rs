//! Durable sends: so many senders, each waiting for its acknowledgement before the next. The control is
//! pgbench running the handler's statement one by one. The peers store the same messages.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use switchboard_tests::checker::{Books, SeenMessage, Wrong};
use switchboard_tests::frames;
use switchboard_tests::socket::Socket;

use crate::figures::{By, Figures, Latencies, Row};
use crate::pgbench;
use crate::rig::{self, Rig};
use crate::server::{Server, in_turn, quiet};

/// One person with many connections, so that there is no notification: the row measures storing.
const SENDER: &str = "sender";
const CONVERSATIONS: usize = 100;

/// `time` is that of one round of one server, and of pgbench.
pub(crate) async fn rows(rig: &Rig, time: Duration) -> io::Result<Vec<Row>> {
    let mut all = Vec::new();
    for (senders, conversations, what, by, to_reach) in [
        (1, 1, "1 sender", By::P50, "p50 ≤ 1.2 × Bun; pg ≤ 400 µs"),
        (16, 16, "16 senders, own rooms", By::PerSecond, "≥ 1.5 × Bun, > pgbench; cpu ≤ 80 µs"),
        (64, 64, "64 senders, own rooms", By::PerSecond, "≥ 2 × Bun, > pgbench; cpu ≤ 60 µs"),
        (16, 1, "16 senders, one room", By::PerSecond, "≥ 3 × Bun, ≥ 5 × pgbench"),
    ] {
        let [turns] = in_turn(rig, async |server| {
            let rooms = rooms(&server, conversations).await;
            let mut books = Books::default();
            let figures = send(server, senders, &rooms, time, &mut books).await;
            check(&server, &books).await?;
            Ok([figures])
        })
        .await?;
        quiet(rig).await;
        rig.is("pgbench");
        let rooms = rooms(&rig.node(), conversations).await;
        let control = pgbench(rig, senders, &rooms, time).await;
        all.push(Row {
            name: format!("durable sends: {what}"),
            figures: turns.node,
            control_name: "pgbench, the same statement one by one".into(),
            control,
            peers: Some(turns.peers),
            by,
            to_reach,
        });
    }
    Ok(all)
}

/// The same load with and without a transaction held open elsewhere.
pub(crate) async fn held(rig: &Rig, time: Duration) -> Result<Row, Wrong> {
    let node = rig.node();
    let rooms = rooms(&node, CONVERSATIONS).await;
    // Both sides start from the same warm state, statistics included: the server would gather them during one
    // of the two.
    let mut books = Books::default();
    send(node, 16, &rooms, time / 10, &mut books).await;
    rig.host.database.connect().await.run("analyze").await;
    let without = send(node, 16, &rooms, time, &mut books).await;
    let holder = rig.host.database.connect().await;
    holder.run("begin isolation level repeatable read; select pg_current_xact_id()").await;
    let with = send(node, 16, &rooms, time, &mut books).await;
    holder.run("rollback").await;
    check(&node, &books).await?;
    Ok(Row {
        name: "durable sends, a transaction held open".into(),
        figures: with,
        control_name: "the same without it".into(),
        control: without,
        peers: None,
        by: By::PerSecond,
        to_reach: "within 10 %",
    })
}

/// Conversations of the sender's.
pub(crate) async fn rooms(server: &Server<'_>, conversations: usize) -> Vec<String> {
    server.rooms(SENDER, conversations).await
}

/// Checks that the acknowledged messages are the stored ones.
pub(crate) async fn check(server: &Server<'_>, books: &Books) -> Result<(), Wrong> {
    server.check(books, |_| SENDER.to_owned()).await.map(drop)
}

/// Runs the senders for this time, and records their acknowledgements. With as many rooms as senders, each
/// sender has its own.
pub(crate) async fn send(
    server: Server<'_>,
    senders: usize,
    rooms: &[String],
    time: Duration,
    books: &mut Books,
) -> Figures {
    server.is(format!("{senders} senders for {time:?}"));
    let mut sockets = Vec::new();
    for _ in 0..senders {
        sockets.push(server.signed_in(SENDER).await);
    }
    let own = rooms.len() == senders;
    let rooms: Arc<[String]> = rooms.into();
    let seconds: Arc<[AtomicU64]> = (0..=time.as_secs()).map(|_| AtomicU64::new(0)).collect();
    let (meter, start) = (server.meter(), Instant::now());
    let tasks: Vec<_> = sockets
        .into_iter()
        .enumerate()
        .map(|(n, socket)| tokio::spawn(sender(socket, n, rooms.clone(), own, start, time, seconds.clone())))
        .collect();
    let (mut latencies, mut wrong) = (Latencies::default(), 0);
    for task in tasks {
        let (mine, replies, refused) = task.await.expect("a sender ends");
        latencies.merge(mine);
        for (room, seen) in replies {
            books.acknowledged(&rooms[room], [seen]);
        }
        wrong += refused;
    }
    let (took, cpu, count) = (start.elapsed().as_secs_f64(), meter.read(), latencies.count() as f64);
    Figures {
        per_second: Some(count / took),
        spread: latencies.spread(),
        wrong,
        seconds: seconds[..time.as_secs() as usize].iter().map(|n| n.load(Ordering::Relaxed)).collect(),
        ..Figures::default()
    }
    .with_cpu(cpu, count)
}

async fn sender(
    mut socket: Socket,
    number: usize,
    rooms: Arc<[String]>,
    own: bool,
    start: Instant,
    time: Duration,
    seconds: Arc<[AtomicU64]>,
) -> (Latencies, Vec<(usize, SeenMessage)>, u64) {
    let (mut latencies, mut replies, mut wrong) = (Latencies::default(), Vec::new(), 0);
    for n in 0_u64.. {
        let sent = Instant::now();
        if sent - start >= time {
            break;
        }
        // A stride that is prime to the number of rooms visits them all, each sender in another order.
        let room = if own { number } else { (number * 31 + n as usize * 37) % rooms.len() };
        let frame =
            rig::message(n, &rooms[room], "a message of about the length that people write to each other");
        socket.write_raw(&frames::encode(frames::TEXT, frame.as_bytes())).await.expect("a frame is taken");
        loop {
            let frame =
                socket.next_frame().await.expect("a whole frame").expect("the server keeps the connection");
            if rig::is(&frame.payload, b"message.sent") {
                latencies.add(sent.elapsed());
                replies.extend(SeenMessage::of(&frame.payload).map(|seen| (room, seen)));
                if let Some(second) = seconds.get(start.elapsed().as_secs() as usize) {
                    second.fetch_add(1, Ordering::Relaxed);
                }
                break;
            }
            if rig::is(&frame.payload, b"\"error\"") {
                wrong += 1;
                break;
            }
        }
    }
    (latencies, replies, wrong)
}

/// The same length as the handler's JSON of a message. No colon before a letter or a digit: pgbench takes it
/// for a variable.
const BODY: &str = r#"'"sender_id": "sender","type": "text","content": "a message of about the length that people write to each other","reply_to_id": null,"attachments": [],"metadata": null,"mentions": [],"client_msg_id": null,"created_at": "2026-01-01T00.00.00.000Z","edited_at": null,"deleted": false,"change": null'"#;

/// The handler's own statements, a call at a time: arrays of one.
fn script(rooms: usize, recent: &str) -> String {
    const LOCK: &str = include_str!("../../handlers/send-message/src/sql/lock.sql");
    const APPEND: &str = include_str!("../../handlers/send-message/src/sql/append.sql");
    let room = "(select id from pgbench_rooms where n = :room)";
    let id = "(lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0') \
              || right(replace(gen_random_uuid()::text, '-', ''), 20))::uuid";
    // In the order of the handler's parameters, from `$1`.
    let values = [
        "1",
        &format!("'conv:' || {room}"),
        room,
        &format!("'{SENDER}'"),
        id,
        "null",
        "0",
        "'a message of about the length that people write to each other'",
        "null",
        "null",
        "null",
        "null",
        "(extract(epoch from clock_timestamp()) * 1000)::bigint",
        BODY,
    ];
    let arrays = values.map(|value| format!("array[{value}]"));
    let filled = |statement: &str| pgbench::filled(statement, &arrays.each_ref().map(String::as_str));
    let append = APPEND.replace("{recent}", recent).replace("{everywhere}", "false");
    format!("\\set room :client_id % {rooms}\nbegin;\n{};\n{};\ncommit;\n", filled(LOCK), filled(&append))
}

async fn pgbench(rig: &Rig, clients: usize, rooms: &[String], time: Duration) -> Figures {
    let connection = rig.host.database.connect().await;
    connection
        .run("drop table if exists pgbench_rooms; create table pgbench_rooms (n int primary key, id uuid)")
        .await;
    for (n, room) in rooms.iter().enumerate() {
        connection.run(&format!("insert into pgbench_rooms values ({n}, '{room}')")).await;
    }
    pgbench::run(rig, clients, time, &script(rooms.len(), &recent(rig).await)).await
}

/// Ids from this month on, as a literal: that is how the handler writes it, and a bound that is not known
/// when the statement is planned makes Postgres walk the primary key.
async fn recent(rig: &Rig) -> String {
    const BOUND: &str = "select format('m.id >= %L', app.uuid_floor(date_trunc('month', now() at time zone 'UTC') at time zone 'UTC'))";
    rig.host.database.rows(BOUND).await[0].get(0)
}
