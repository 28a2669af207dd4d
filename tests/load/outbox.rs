//! The outbox: a backlog of messages that becomes visible at once, drained by the relay with its projections;
//! with and without a transaction held open elsewhere. The control reads the same rows with the same
//! statement and does nothing.

use std::time::{Duration, Instant};

use switchboard_tests::services::Connection;

use crate::figures::{By, Figures, Row};
use crate::rig::Rig;

const CONVERSATIONS: usize = 100;
const BATCH: usize = 256;
/// Maximum time to drain the backlog.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) async fn rows(rig: &Rig, events: usize) -> Vec<Row> {
    // Others read the same outbox at their own pace; here the relay is measured.
    let connection = rig.host.database.connect().await;
    connection
        .run(
            "update switchboard.cursors set epoch = epoch + 1, owner = gen_random_uuid(),
               lease_until = now() + interval '1 hour' where consumer <> 'outbox-relay'",
        )
        .await;
    drain(rig, &connection, events / 10).await;
    let without = drain(rig, &connection, events).await;
    let control = read(&connection, events).await;
    let holder = rig.host.database.connect().await;
    holder.run("begin isolation level repeatable read; select pg_current_xact_id()").await;
    let with = drain(rig, &connection, events).await;
    holder.run("rollback").await;
    let back = "update switchboard.cursors as c set lease_until = '-infinity', owner = null, holes = '[]',
        high = coalesce((select max(position) from switchboard.outbox as o where o.shard = c.shard), 0)
        where consumer <> 'outbox-relay'";
    connection.run(back).await;
    vec![
        Row {
            name: format!("outbox: {events} messages drained"),
            figures: without.clone(),
            control_name: "the same rows read, nothing done".into(),
            control,
            peers: None,
            by: By::PerSecond,
            to_reach: "≥ 15,000/s",
        },
        Row {
            name: "outbox: a transaction held open".into(),
            figures: with,
            control_name: "the same without it".into(),
            control: without,
            peers: None,
            by: By::PerSecond,
            to_reach: "ratio ≥ 0.95",
        },
    ]
}

/// The number of messages, in as many conversations as usual, all committed at once.
async fn pile_up(connection: &Connection, events: usize) {
    let pile = format!(
        "insert into switchboard.outbox (shard, position, id, event_type, key, payload)
         select switchboard.shard(key), switchboard.next_position(switchboard.shard(key)), gen_random_uuid(),
           'message.created', key, payload
         from (
           select 'conv:' || room as key, json_build_object('conversation_id', room, 'seq', 1000000 + n / {CONVERSATIONS},
             'message', app.message_text(gen_random_uuid(), room, 1000000 + n / {CONVERSATIONS}, 'sender', null, 'text',
               'a message of about the length that people write to each other', null, null, null, null, null, now(), null,
               false, null)::json) as payload
           from generate_series(1, {events}) as n, lateral (
             select md5('room ' || n % {CONVERSATIONS})::uuid as room) as rooms) as piled"
    );
    connection.run(&pile).await;
}

async fn drain(rig: &Rig, connection: &Connection, events: usize) -> Figures {
    let counted = async || rig.host.admin.metric("switchboard_outbox_events_total").await.unwrap_or(0.0);
    let (before, meter) = (counted().await, rig.meter());
    pile_up(connection, events).await;
    let start = Instant::now();
    let mut done = 0.0;
    while done < events as f64 && start.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
        done = counted().await - before;
    }
    Figures {
        per_second: Some(done / start.elapsed().as_secs_f64()),
        wrong: (events as f64 - done).max(0.0) as u64,
        ..Figures::default()
    }
    .with_cpu(meter.read(), done.max(1.0))
}

/// Reads each shard page by page, like a consumer.
async fn read(connection: &Connection, events: usize) -> Figures {
    let start = Instant::now();
    let mut count = 0;
    for shard in 0..8 {
        let mut after = 0_i64;
        while count < events {
            let page = format!(
                "select position, id, event_type, key, payload::text, (extract(epoch from created_at) * 1000)::bigint
                 from switchboard.outbox where shard = {shard} and position > {after} order by position limit {BATCH}"
            );
            let rows = connection.rows(&page).await;
            let Some(last) = rows.last() else { break };
            after = last.get(0);
            count += rows.len();
        }
    }
    Figures { per_second: Some(count as f64 / start.elapsed().as_secs_f64()), ..Figures::default() }
}
