//! Swaps: what senders feel while `send-message` is replaced again and again, and how long a release takes to serve.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use switchboard_tests::admin::Admin;
use switchboard_tests::release::Release;

use crate::figures::{By, Figures, Latencies, Row};
use crate::rig::Rig;
use crate::sends;

const SENDERS: usize = 16;
const CONVERSATIONS: usize = 100;
/// Between two swaps: a release serves a while, and the load is not only about swapping.
const PAUSE: Duration = Duration::from_millis(50);
const NEW_FILES: usize = 10;

pub async fn rows(rig: &Rig, time: Duration) -> Vec<Row> {
    let rooms = sends::rooms(rig, CONVERSATIONS).await;
    let built = Release::built("send-message");
    let new = deploy(&rig.host.admin, (0..NEW_FILES).map(|n| built.variant(n))).await;
    let known = deploy(&rig.host.admin, (0..NEW_FILES).map(|n| built.variant(n))).await;

    let without = sends::send(rig, SENDERS, &rooms, time).await;
    let stop = Arc::new(AtomicBool::new(false));
    let swapping = tokio::spawn(swap(rig.host.admin.clone(), built, stop.clone()));
    let with = sends::send(rig, SENDERS, &rooms, time).await;
    stop.store(true, Ordering::Relaxed);
    let swaps = swapping.await.expect("the swaps end");
    vec![
        Row {
            name: format!("durable sends through {swaps} swaps"),
            figures: with,
            control_name: "the same without swaps".into(),
            control: without,
            by: By::P99,
            to_reach: "added p99 < 1 ms",
        },
        Row {
            name: "release to live: a new file".into(),
            figures: new,
            control_name: "a file whose digest is known".into(),
            control: known,
            by: By::P50,
            to_reach: "< 1 s; known < 100 ms",
        },
    ]
}

/// Until told to stop, between two releases that are compiled already. Returns how many.
async fn swap(admin: Admin, built: Release, stop: Arc<AtomicBool>) -> usize {
    let mut swaps = 0;
    while !stop.load(Ordering::Relaxed) {
        admin.release(&built.variant(swaps % 2)).await;
        swaps += 1;
        tokio::time::sleep(PAUSE).await;
    }
    swaps
}

/// From the file in hand to the answer that every node runs it.
async fn deploy(admin: &Admin, releases: impl Iterator<Item = Release>) -> Figures {
    let mut latencies = Latencies::default();
    for release in releases {
        let began = Instant::now();
        admin.release(&release).await;
        latencies.add(began.elapsed());
    }
    Figures { spread: latencies.spread(), ..Figures::default() }
}
