//! Low load: ten rooms, each with one connection, which send at a fixed rate together. Measures the time from
//! a send to its acknowledgement and to its own push, and the requests to Postgres and Redis for a send.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use switchboard_tests::checker::{Books, SeenMessage, Wrong};
use switchboard_tests::frames;
use switchboard_tests::socket::Reader;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

use crate::delivery::{self, at_rate};
use crate::figures::{By, Figures, Latencies, Row};
use crate::idle_node::Counter;
use crate::rig::{self, Rig};
use crate::server::{Server, Turns, in_turn, quiet};

const ROOMS: usize = 10;
/// A process of Postgres reports its transactions at the latest ten seconds after the last of them.
pub(crate) const POSTGRES_REPORTS_WITHIN: Duration = Duration::from_millis(10_500);
/// Messages in flight at the end of a run arrive within this time, or never.
const PATIENCE: Duration = Duration::from_secs(20);

/// The targets of a rate.
struct Target {
    per_second: u32,
    transactions: f64,
    commands: f64,
    to_reach: [&'static str; 2],
}

const TARGETS: [Target; 3] = [
    Target { per_second: 20, transactions: 3.0, commands: 6.0, to_reach: ["≤ 3", "≤ 6"] },
    Target { per_second: 100, transactions: 2.5, commands: 5.0, to_reach: ["≤ 2.5", "≤ 5"] },
    Target { per_second: 500, transactions: 2.0, commands: 4.0, to_reach: ["≤ 2", "≤ 4"] },
];
/// The rate of the rows that have peers.
const RATE: u32 = 500;

/// `time` is that of one round of one server, and of the control.
pub(crate) async fn rows(rig: &Rig, time: Duration) -> io::Result<Vec<Row>> {
    let [pushed, acknowledged] = in_turn(rig, async |server| {
        let clients = Clients::new(server).await;
        let figures = clients.run(RATE, time).await;
        clients.check().await?;
        Ok(figures)
    })
    .await?;
    quiet(rig).await;
    rig.is("publish and subscribe on raw Redis");
    let control = delivery::redis(RATE, 1, time).await;
    let row = |what: &str, turns: Turns, to_reach| Row {
        name: format!("low load, {RATE}/s in {ROOMS} rooms: send → {what}"),
        figures: turns.node,
        control_name: "raw Redis publish → subscriber".into(),
        control: control.clone(),
        peers: Some(turns.peers),
        by: By::P50,
        to_reach,
    };
    Ok(vec![
        row("receiver", pushed, "p50 ≤ 1.3 × Bun"),
        row("acknowledgement", acknowledged, "p50 ≤ 1.3 × Bun"),
    ])
}

/// Counts the requests of the node for each send, without those that it makes while the same clients are
/// connected and silent.
/// `time` is that of each rate.
pub(crate) async fn requests(rig: &Rig, time: Duration) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let node = rig.node();
    let clients = Clients::new(node).await;
    let mut counter = Counter::new(&node).await;
    node.is("waiting for Postgres to report the transactions before");
    tokio::time::sleep(POSTGRES_REPORTS_WITHIN).await;
    node.is("counting what the node does for silent clients");
    let (before, start) = (counter.read().await, Instant::now());
    tokio::time::sleep(POSTGRES_REPORTS_WITHIN).await;
    let idle = counter.read().await.since(&before);
    let idle_s = start.elapsed().as_secs_f64();

    for target in TARGETS {
        let (before, start) = (counter.read().await, Instant::now());
        let [pushed, acknowledged] = clients.run(target.per_second, time).await;
        node.is("waiting for Postgres to report the transactions of the sends");
        tokio::time::sleep(POSTGRES_REPORTS_WITHIN).await;
        let used = counter.read().await.since(&before);
        let idles = start.elapsed().as_secs_f64() / idle_s;
        let sends = f64::from(target.per_second) * time.as_secs_f64();
        let a_send = |used: f64, idle: f64| (used - idle * idles) / sends;
        let row = |what: &str, figures: Figures, count, most, to_reach| Row {
            name: format!("low load, {}/s: {what} a send", target.per_second),
            figures: Figures { count: Some(count), ..figures },
            control_name: "the target".into(),
            control: Figures { count: Some(most), ..Figures::default() },
            peers: None,
            by: By::Count,
            to_reach,
        };
        let mut commands = acknowledged;
        for (name, count) in &used.by_command {
            let count = a_send(*count, idle.by_command.get(name).copied().unwrap_or(0.0));
            // Less than this is noise of what the node does by itself.
            if count >= 0.05 {
                commands = commands.with_further(name, count);
            }
        }
        let [transactions_reach, commands_reach] = target.to_reach;
        let transactions = a_send(used.transactions, idle.transactions);
        rows.push(row("transactions", pushed, transactions, target.transactions, transactions_reach));
        let count = a_send(used.commands(), idle.commands());
        rows.push(row("Redis commands", commands, count, target.commands, commands_reach));
    }
    clients.check().await?;
    Ok(rows)
}

/// Ten people, each alone in a room, so that there is no notification.
struct Clients<'a> {
    server: Server<'a>,
    rooms: Vec<String>,
    writers: tokio::sync::Mutex<Vec<OwnedWriteHalf>>,
    seen: Arc<Seen>,
}

/// The frames that have arrived.
#[derive(Default)]
struct Seen {
    run: Mutex<CurrentRun>,
    acknowledged: Mutex<Vec<(usize, SeenMessage)>>,
    arrives: Notify,
}

#[derive(Default)]
struct CurrentRun {
    sent: Vec<Instant>,
    pushed: Latencies,
    acknowledged: Latencies,
    refused: u64,
}

impl<'a> Clients<'a> {
    async fn new(server: Server<'a>) -> Self {
        let (mut rooms, mut writers, seen) = (Vec::new(), Vec::new(), Arc::new(Seen::default()));
        for n in 0..ROOMS {
            let user = person(n);
            let room = server.room(std::slice::from_ref(&user)).await;
            let (reader, writer) = server.subscribed(&user, &room, None).await.0.into_split();
            tokio::spawn(seen.clone().read(n, reader));
            rooms.push(room);
            writers.push(writer);
        }
        Self { server, rooms, writers: writers.into(), seen }
    }

    /// The times to the push and to the acknowledgement. The processor time includes what the server does by
    /// itself.
    async fn run(&self, per_second: u32, time: Duration) -> [Figures; 2] {
        self.server.is(format!("{per_second} messages a second for {time:?}"));
        *self.seen.run.lock() = CurrentRun::default();
        let mut writers = self.writers.lock().await;
        let meter = self.server.meter();
        let sent = at_rate(per_second, time, async |n| {
            let place = n as usize % ROOMS;
            let content = format!("{n} is the number of a message of about this length");
            let frame = rig::message(n, &self.rooms[place], &content);
            self.seen.run.lock().sent.push(Instant::now());
            let bytes = frames::encode(frames::TEXT, frame.as_bytes());
            writers[place].write_all(&bytes).await.expect("the server keeps the connection");
        })
        .await;
        // Frames that are missing then count as wrong.
        let _ = tokio::time::timeout(PATIENCE, self.seen.all(sent)).await;
        let cpu = meter.read();
        let run = std::mem::take(&mut *self.seen.run.lock());
        [run.pushed, run.acknowledged].map(|latencies| {
            let wrong = run.refused + sent.saturating_sub(latencies.count()) as u64;
            Figures { spread: latencies.spread(), wrong, ..Figures::default() }.with_cpu(cpu, sent as f64)
        })
    }

    /// Compares the acknowledged messages of all runs with the stored ones.
    async fn check(&self) -> Result<(), Wrong> {
        let mut books = Books::default();
        for (place, seen) in self.seen.acknowledged.lock().drain(..) {
            books.acknowledged(&self.rooms[place], [seen]);
        }
        let place = |room: &str| self.rooms.iter().position(|own| own == room).unwrap_or_default();
        self.server.check(&books, |room| person(place(room))).await.map(drop)
    }
}

/// The person of a room.
fn person(room: usize) -> String {
    format!("low-{room}")
}

impl Seen {
    async fn read(self: Arc<Self>, place: usize, mut reader: Reader) {
        while let Ok(Some(frame)) = reader.next_frame().await {
            let now = Instant::now();
            let mut run = self.run.lock();
            if rig::is(&frame.payload, b"\"error\"") {
                run.refused += 1;
                continue;
            }
            let sent = rig::number_of(&frame.payload).and_then(|number| run.sent.get(number).copied());
            let Some(took) = sent.map(|sent| now - sent) else { continue };
            if rig::is(&frame.payload, b"message.new") {
                run.pushed.add(took);
            } else if rig::is(&frame.payload, b"message.sent") {
                run.acknowledged.add(took);
                self.acknowledged.lock().extend(SeenMessage::of(&frame.payload).map(|seen| (place, seen)));
            }
            drop(run);
            self.arrives.notify_waiters();
        }
    }

    async fn all(&self, sent: usize) {
        loop {
            let arrives = self.arrives.notified();
            {
                let run = self.run.lock();
                if run.pushed.count() >= sent && run.acknowledged.count() >= sent {
                    return;
                }
            }
            arrives.await;
        }
    }
}
