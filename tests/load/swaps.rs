//! Swaps: the effect on two thousand sockets and the senders among them while `send-message` is replaced
//! again and again, or its settings are changed; the time until a release is live on three nodes, and the
//! remains of ten thousand swaps.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use switchboard_tests::admin::Admin;
use switchboard_tests::checker::{Books, Wrong};
use switchboard_tests::crowd::{Chatter, Plan};
use switchboard_tests::ledger::{self, Audit};
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;

use crate::figures::{By, Figures, Latencies, Row};
use crate::rig::Rig;
use crate::{process, sends};

const SENDERS: usize = 16;
const CONVERSATIONS: usize = 100;
const SOCKETS_A_ROOM: usize = 10;
/// Interval between two messages of a socket.
const SAYS_EVERY: Duration = Duration::from_secs(10);
const NEW_FILES: usize = 10;
/// More than a node keeps loaded, so that each swap of the long row loads one release and lets one go.
const VARIANTS: usize = 20;
/// The long row measures from here on: pools, caches and histories have their size by then.
const WARM_UP_SWAPS: usize = 4_000;

pub(crate) struct Size {
    pub sockets: usize,
    pub swaps: usize,
    pub time: Duration,
}

pub(crate) async fn rows(rig: &Rig, size: &Size) -> io::Result<Vec<Row>> {
    rig.is("releases to three nodes");
    let mut rows = release_to_live(rig).await;
    rows.push(under_load(rig, size, Change::Release).await?);
    Ok(rows)
}

/// The same with changes of settings in the place of releases.
pub(crate) async fn settings(rig: &Rig, size: &Size) -> io::Result<Vec<Row>> {
    Ok(vec![under_load(rig, size, Change::Settings).await?])
}

/// The change that is made again and again under load.
#[derive(Clone, Copy)]
enum Change {
    Release,
    Settings,
}

impl Change {
    fn noun(self) -> &'static str {
        match self {
            Self::Release => "releases",
            Self::Settings => "changes of settings",
        }
    }

    /// Makes the change with this number. Returns when the node has it.
    async fn make(self, admin: &Admin, built: &Release, number: usize) {
        match self {
            Self::Release => admin.release(&built.variant(number % 2)).await,
            Self::Settings => {
                // The rig overrides this setting. The release gets new settings in the same way.
                let body = json!({ "set": { "messages_per_minute": 100_000_000 + number } });
                let path = "/admin/v1/handlers/send-message/config";
                let outcome = admin.rest().post(path, body).await.expect(200);
                assert_eq!(outcome["complete"], true, "{outcome}");
            }
        }
    }
}

async fn under_load(rig: &Rig, size: &Size, change: Change) -> io::Result<Row> {
    rig.is(format!("{} sockets begin to talk", size.sockets));
    let mut rooms = Vec::new();
    let mut crowd = Vec::new();
    for room in 0..size.sockets / SOCKETS_A_ROOM {
        let users: Vec<_> = (0..SOCKETS_A_ROOM).map(|n| format!("socket-{room}-{n}")).collect();
        let id = rig.room(&users).await;
        for user in users {
            crowd.push(Chatter::start(rig.host.address, Plan::talker(user, &id, SAYS_EVERY)).await);
        }
        rooms.push(id);
    }
    let senders_rooms = sends::rooms(&rig.node(), CONVERSATIONS).await;
    let mut books = Books::default();
    let without = sends::send(rig.node(), SENDERS, &senders_rooms, size.time, &mut books).await;

    let built = Release::built("send-message");
    let (stop, swaps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let swapping = tokio::spawn({
        let (admin, stop, swaps, most) = (rig.host.admin.clone(), stop.clone(), swaps.clone(), size.swaps);
        async move {
            while !stop.load(Ordering::Relaxed) && swaps.load(Ordering::Relaxed) < most {
                change.make(&admin, &built, swaps.load(Ordering::Relaxed)).await;
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let mut with = sends::send(rig.node(), SENDERS, &senders_rooms, size.time, &mut books).await;
    // The figure covers senders during swaps; the rest of the swaps has senders too.
    while swaps.load(Ordering::Relaxed) < size.swaps {
        let more = sends::send(rig.node(), SENDERS, &senders_rooms, Duration::from_secs(2), &mut books).await;
        with.wrong += more.wrong;
    }
    stop.store(true, Ordering::Relaxed);
    swapping.await.expect("the swaps end");

    sends::check(&rig.node(), &books).await?;
    let audit = audit(rig, crowd, &rooms).await?;
    let swaps = swaps.load(Ordering::Relaxed);
    println!(
        "  {swaps} {}, {} sockets: {} disconnects, {} lost, {} duplicated, {} reordered, {} refused, {} failed sends; {} \
         deliveries of {} owed",
        change.noun(),
        size.sockets,
        audit.disconnects.len(),
        audit.undelivered.len() + audit.acknowledged_lost.len() + audit.holes.len(),
        audit.duplicates.len() + audit.stored_twice.len(),
        audit.reordered.len(),
        audit.refusals.len(),
        with.wrong,
        audit.delivered,
        audit.owed,
    );
    with.wrong += (audit.disconnects.len()
        + audit.undelivered.len()
        + audit.duplicates.len()
        + audit.reordered.len()
        + audit.acknowledged_lost.len()
        + audit.refusals.len()) as u64;
    Ok(Row {
        name: format!("swap: {swaps} {} under load with {} sockets", change.noun(), size.sockets),
        figures: with,
        control_name: format!("the same without {}", change.noun()),
        control: without,
        peers: None,
        by: By::P99,
        to_reach: "added p99 < 1 ms, nothing wrong",
    })
}

async fn audit(rig: &Rig, mut crowd: Vec<Chatter>, rooms: &[String]) -> Result<Audit, Wrong> {
    rig.is("the crowd falls silent");
    for chatter in &mut crowd {
        chatter.stop_sending().await;
    }
    let mut histories = BTreeMap::new();
    for (n, room) in rooms.iter().enumerate() {
        let history = ledger::history(&rig.host.rest(&format!("socket-{n}-0")), room).await;
        let head = *history.last_key_value().expect("its first message").0;
        for chatter in &crowd[n * SOCKETS_A_ROOM..(n + 1) * SOCKETS_A_ROOM] {
            chatter.expect_up_to(room, head).await;
        }
        histories.insert(room.clone(), history);
    }
    let records: Vec<_> = crowd.iter().map(Chatter::record).collect();
    let mut books = Books::default();
    for (n, room) in rooms.iter().enumerate() {
        for record in &records[n * SOCKETS_A_ROOM..(n + 1) * SOCKETS_A_ROOM] {
            books.record(room, record);
        }
        books.compare(room, &histories[room])?;
    }
    Ok(Audit::of(&histories, &records))
}

/// Measures the time from the file to the answer that each of three nodes runs it.
async fn release_to_live(rig: &Rig) -> Vec<Row> {
    let (mut second, mut third) = (rig.host.another_node().await, rig.host.another_node().await);
    let built = Release::built("send-message");
    // Sent, kept, compiled in a child, linked and tried, then taken from Postgres and loaded by the other
    // two. Also by the clock, so that a second run on the same artifacts finds none of them compiled.
    let run = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as usize);
    let new = deploys(&rig.host.admin, (0..NEW_FILES).map(|n| built.other_code(run * NEW_FILES + n))).await;
    for n in 0..2 {
        rig.host.admin.release(&built.variant(n)).await;
    }
    let known = deploys(&rig.host.admin, (0..NEW_FILES).map(|n| built.variant(n % 2))).await;
    let mut back = Latencies::default();
    for _ in 0..NEW_FILES {
        let began = Instant::now();
        let outcome = rig.host.admin.rollback("send-message").await.expect(200);
        back.add(began.elapsed());
        assert_eq!(outcome["complete"], true, "{outcome}");
    }
    let back = Figures { spread: back.spread(), ..Figures::default() };
    for node in [&mut second, &mut third] {
        node.terminate();
        node.ended().await;
    }
    vec![
        Row {
            name: "release to live on 3 nodes: a new file, compiled".into(),
            figures: new,
            control_name: "a file whose digest is known".into(),
            control: known.clone(),
            peers: None,
            by: By::P50,
            to_reach: "< 1 s; known < 100 ms",
        },
        Row {
            name: "release to live on 3 nodes: a rollback".into(),
            figures: back,
            control_name: "a file whose digest is known".into(),
            control: known,
            peers: None,
            by: By::P50,
            to_reach: "< 100 ms",
        },
    ]
}

async fn deploys(admin: &Admin, releases: impl Iterator<Item = Release>) -> Figures {
    let mut latencies = Latencies::default();
    for release in releases {
        let began = Instant::now();
        admin.release(&release).await;
        latencies.add(began.elapsed());
    }
    Figures { spread: latencies.spread(), ..Figures::default() }
}

/// The remains of many swaps. It takes minutes, so it runs only when it is named.
pub(crate) async fn many(rig: &Rig, swaps: usize) {
    let built = Release::built("send-message");
    let digests: Vec<String> = (0..VARIANTS).map(|n| built.variant(n).digest()).collect();
    for n in 0..VARIANTS {
        rig.host.admin.release(&built.variant(n)).await;
    }
    let room = rig.room(&["sender".to_owned()]).await;
    let swap = async |n: usize| {
        let body = json!({ "release": digests[n % VARIANTS] });
        let path = "/admin/v1/handlers/send-message/rollback";
        let outcome = rig.host.admin.rest().post(path, body).await.expect(200);
        assert_eq!(outcome["complete"], true, "{outcome}");
        // A release without calls would leave little behind.
        let path = format!("/api/v1/conversations/{room}/messages");
        let sent = rig.host.rest("sender").post(&path, json!({ "content": format!("swap {n}") })).await;
        assert_eq!(sent.status, 201, "{sent}");
    };
    let mut before = None;
    let began = Instant::now();
    for n in 0..WARM_UP_SWAPS + swaps {
        if n == WARM_UP_SWAPS {
            before = Some(Left::now(rig).await);
        }
        swap(n).await;
        if n % 1_000 == 999 {
            println!("  {:>6} swaps: {}", n + 1, Left::now(rig).await);
        }
    }
    let before = before.expect("after the warm-up");
    // Calls and swaps have returned everything by then.
    let after = until("no descriptor and no release more than before", async || {
        let after = Left::now(rig).await;
        (after.descriptors <= before.descriptors && after.releases <= before.releases).then_some(after)
    })
    .await;
    until("no transaction to be open", async || {
        (rig.host.database.open_transactions().await == 0).then_some(())
    })
    .await;
    let growth = (after.resident_kib - before.resident_kib) * 100.0 / before.resident_kib;
    println!(
        "  {swaps} swaps in {:?}\n  before: {before}\n  after:  {after}, no transaction open\n  resident memory: \
         {growth:+.2} % (to reach: less than 1 %)",
        began.elapsed()
    );
}

/// The resources of a process.
struct Left {
    resident_kib: f64,
    descriptors: usize,
    releases: f64,
}

impl Left {
    async fn now(rig: &Rig) -> Self {
        let pid = rig.host.pid();
        Self {
            resident_kib: process::resident_kib(pid),
            descriptors: process::descriptors(pid),
            releases: rig.host.admin.metric("switchboard_releases_loaded").await.unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { resident_kib, descriptors, releases } = self;
        write!(f, "{resident_kib} KiB resident, {descriptors} descriptors, {releases} releases loaded")
    }
}
