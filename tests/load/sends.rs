//! Durable sends: so many senders, each waiting for its acknowledgement before the next. The control is
//! pgbench running the handler's statement one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use switchboard_tests::checker::{Books, SeenMessage, Wrong};
use switchboard_tests::frames;
use switchboard_tests::socket::Socket;

use crate::figures::{By, Figures, Latencies, Row};
use crate::pgbench;
use crate::process;
use crate::rig::{self, Rig};

/// One person with many connections, so that there is no notification: the row measures storing.
const SENDER: &str = "sender";
const CONVERSATIONS: usize = 100;

pub(crate) async fn rows(rig: &Rig, time: Duration) -> Result<Vec<Row>, Wrong> {
    let mut all = Vec::new();
    for (senders, conversations, to_reach) in [
        (16, CONVERSATIONS, "more than pgbench"),
        (64, CONVERSATIONS, "more than pgbench"),
        (16, 1, "5 × pgbench"),
    ] {
        let rooms = rooms(rig, conversations).await;
        let mut books = Books::default();
        let figures = send(rig, senders, &rooms, time, &mut books).await;
        check(rig, &books).await?;
        rig.is("pgbench");
        let control = pgbench(rig, senders, &rooms, time).await;
        all.push(Row {
            name: format!("durable sends: {senders} senders, {conversations} conversations"),
            figures,
            control_name: "pgbench, the same statement one by one".into(),
            control,
            by: By::PerSecond,
            to_reach,
        });
    }
    Ok(all)
}

/// The same load with and without a transaction held open elsewhere.
pub(crate) async fn held(rig: &Rig, time: Duration) -> Result<Row, Wrong> {
    let rooms = rooms(rig, CONVERSATIONS).await;
    // Both sides start from the same warm state, statistics included: the server would gather them during one
    // of the two.
    let mut books = Books::default();
    send(rig, 16, &rooms, time / 10, &mut books).await;
    rig.host.database.connect().await.run("analyze").await;
    let without = send(rig, 16, &rooms, time, &mut books).await;
    let holder = rig.host.database.connect().await;
    holder.run("begin isolation level repeatable read; select pg_current_xact_id()").await;
    let with = send(rig, 16, &rooms, time, &mut books).await;
    holder.run("rollback").await;
    check(rig, &books).await?;
    Ok(Row {
        name: "durable sends, a transaction held open".into(),
        figures: with,
        control_name: "the same without it".into(),
        control: without,
        by: By::PerSecond,
        to_reach: "within 10 %",
    })
}

/// Conversations of the sender's.
pub(crate) async fn rooms(rig: &Rig, conversations: usize) -> Vec<String> {
    let mut rooms = Vec::new();
    for _ in 0..conversations {
        rooms.push(rig.room(&[SENDER.to_owned()]).await);
    }
    rooms
}

/// Checks that the acknowledged messages are the stored ones.
pub(crate) async fn check(rig: &Rig, books: &Books) -> Result<(), Wrong> {
    rig.check(books, SENDER).await.map(drop)
}

/// Runs the senders for this time, and records their acknowledgements.
pub(crate) async fn send(
    rig: &Rig,
    senders: usize,
    rooms: &[String],
    time: Duration,
    books: &mut Books,
) -> Figures {
    rig.is(format!("{senders} senders for {time:?}"));
    let mut sockets = Vec::new();
    for _ in 0..senders {
        sockets.push(rig.signed_in(SENDER).await);
    }
    let rooms: Arc<[String]> = rooms.into();
    let seconds: Arc<[AtomicU64]> = (0..=time.as_secs()).map(|_| AtomicU64::new(0)).collect();
    let cpu = process::cpu(rig.host.pid());
    let start = Instant::now();
    let tasks: Vec<_> = sockets
        .into_iter()
        .enumerate()
        .map(|(n, socket)| tokio::spawn(sender(socket, n, rooms.clone(), start, time, seconds.clone())))
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
    let took = start.elapsed().as_secs_f64();
    let cpu = process::cpu(rig.host.pid()) - cpu;
    let count = latencies.count() as f64;
    Figures {
        per_second: Some(count / took),
        spread: latencies.spread(),
        server_cpu_us: Some(cpu.as_micros() as f64 / count),
        wrong,
        seconds: seconds[..time.as_secs() as usize].iter().map(|n| n.load(Ordering::Relaxed)).collect(),
        ..Figures::default()
    }
}

async fn sender(
    mut socket: Socket,
    number: usize,
    rooms: Arc<[String]>,
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
        let room = (number * 31 + n as usize * 37) % rooms.len();
        let frame =
            rig::message(n, &rooms[room], "a message of about the length that people write to each other");
        socket.write_raw(&frames::encode(frames::TEXT, frame.as_bytes())).await.expect("a frame is taken");
        loop {
            let frame =
                socket.next_frame().await.expect("a whole frame").expect("the host keeps the connection");
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
    let filled = |statement: &str| {
        let statement = statement.trim_end().trim_end_matches(';').to_owned();
        // From the last, so that `$1` is not taken for the beginning of `$14`.
        values.iter().enumerate().rev().fold(statement, |statement, (place, value)| {
            statement.replace(&format!("${}", place + 1), &format!("array[{value}]"))
        })
    };
    let append = APPEND.replace("{recent}", recent).replace("{everywhere}", "false");
    format!("\\set room random(0, {})\nbegin;\n{};\n{};\ncommit;\n", rooms - 1, filled(LOCK), filled(&append))
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
