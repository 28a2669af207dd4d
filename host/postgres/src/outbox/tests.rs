//! Tests with a real server, because they depend on how Postgres treats overlapping transactions.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{Acquire, PgConnection};
use tokio::time::Instant;
use uuid::Uuid;

use super::*;
use crate::poll::{ConsumerSnapshot, Poll};
use crate::tests::world::{World, with_world};
use switchboard_core::limits;

const LEASE: Duration = Duration::from_secs(60);

pub(super) async fn emit(connection: &mut PgConnection, key: &str, payload: &str) {
    sqlx::query("select switchboard.lock(array[$1])").bind(key).execute(&mut *connection).await.unwrap();
    sqlx::query(
        "insert into switchboard.outbox (shard, position, id, event_type, key, payload)
         select s, switchboard.next_position(s), $2, 'test', $1, $3::json from switchboard.shard($1) as s",
    )
    .bind(key)
    .bind(Uuid::now_v7())
    .bind(payload)
    .execute(connection)
    .await
    .unwrap();
}

async fn cursor_of(world: &World, key: &str) -> Cursor {
    let pool = world.postgres.host();
    let outbox = world.postgres.outbox();
    let shard: i16 =
        sqlx::query_scalar("select switchboard.shard($1)").bind(key).fetch_one(pool).await.unwrap();
    outbox.introduce("reader", Start::Beginning).await.unwrap();
    let claimed =
        outbox.claim("reader", NodeId::random(), LEASE, limits::OUTBOX_SHARDS.into(), &[]).await.unwrap();
    claimed.into_iter().find(|cursor| cursor.shard == shard).expect("all shards were free")
}

/// The cursors of a new consumer in all shards.
pub(super) async fn cursors_of(world: &World, consumer: &str) -> Vec<Cursor> {
    let outbox = world.postgres.outbox();
    outbox.introduce(consumer, Start::Beginning).await.unwrap();
    outbox.claim(consumer, NodeId::random(), LEASE, limits::OUTBOX_SHARDS.into(), &[]).await.unwrap()
}

/// Polls as a node that holds these shards. Returns the result for the consumer.
async fn polled(world: &World, node: NodeId, held: &[Held]) -> ConsumerSnapshot {
    let poll = Poll::new(world.postgres.host().clone(), node, "127.0.0.1:9090".parse().unwrap());
    poll.hold("reader", held);
    poll.once(0).await.unwrap().consumer("reader").unwrap().clone()
}

async fn step(world: &World, cursor: &mut Cursor) -> Vec<String> {
    let outbox = world.postgres.outbox();
    let heads = outbox.heads().await.unwrap();
    let Page { events, after } = world.postgres.feed().read(&[cursor], &heads, 100).await.unwrap().remove(0);
    *cursor = after;
    events.into_iter().map(|event| event.payload.clone()).collect()
}

/// Transaction ids belong to the whole server, so other tests keep holes open for a while.
async fn is_through(world: &World, cursor: &Cursor) -> bool {
    cursor.is_through(world.postgres.outbox().heads().await.unwrap()[cursor.shard as usize])
}

#[tokio::test]
async fn what_commits_late_is_not_skipped() {
    with_world(2, async |world| {
        let pool = world.postgres.host();
        let outbox = world.postgres.outbox();
        let mut cursor = cursor_of(&world, "a").await;
        // Two keys of one shard. With the same key, the second writer would wait for the lock.
        let other = same_shard(&world, "a").await;

        let mut slow = pool.begin().await.unwrap();
        emit(slow.acquire().await.unwrap(), "a", "1").await;
        let mut quick = pool.begin().await.unwrap();
        emit(quick.acquire().await.unwrap(), &other, "2").await;
        quick.commit().await.unwrap();

        assert_eq!(step(&world, &mut cursor).await, ["2"]);
        for _ in 0..3 {
            assert!(step(&world, &mut cursor).await.is_empty(), "the hole is kept while its writer runs");
        }
        slow.commit().await.unwrap();
        assert_eq!(step(&world, &mut cursor).await, ["1"]);
        assert!(step(&world, &mut cursor).await.is_empty());
        assert!(cursor.is_through(outbox.heads().await.unwrap()[cursor.shard as usize]));
    })
    .await;
}

/// The writer's transaction id is the newest of all: a snapshot's `xmax` would not cover it.
#[tokio::test]
async fn a_writer_with_the_newest_id_is_waited_for() {
    with_world(2, async |world| {
        let pool = world.postgres.host();
        let mut cursor = cursor_of(&world, "a").await;
        let other = same_shard(&world, "a").await;

        let mut first = pool.begin().await.unwrap();
        sqlx::query("select pg_current_xact_id()").execute(&mut *first).await.unwrap();
        let mut second = pool.begin().await.unwrap();
        emit(second.acquire().await.unwrap(), "a", "\"late\"").await;
        emit(first.acquire().await.unwrap(), &other, "\"early\"").await;
        first.commit().await.unwrap();

        let mut seen = step(&world, &mut cursor).await;
        for _ in 0..5 {
            seen.extend(step(&world, &mut cursor).await);
        }
        second.commit().await.unwrap();
        seen.extend(step(&world, &mut cursor).await);
        assert_eq!(seen, ["\"early\"", "\"late\""]);
    })
    .await;
}

#[tokio::test]
async fn what_was_rolled_back_is_forgotten() {
    with_world(2, async |world| {
        let pool = world.postgres.host();
        let mut cursor = cursor_of(&world, "a").await;
        let mut gone = pool.begin().await.unwrap();
        emit(gone.acquire().await.unwrap(), "a", "1").await;
        gone.rollback().await.unwrap();
        assert!(!is_through(&world, &cursor).await);
        while !is_through(&world, &cursor).await {
            assert!(step(&world, &mut cursor).await.is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn under_many_writers_nothing_is_skipped_and_each_key_keeps_its_order() {
    with_world(2, async |world| {
        const WRITERS: usize = 6;
        const EACH: usize = 60;
        let mut cursor = cursor_of(&world, "a").await;
        let other = same_shard(&world, "a").await;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (pool, key) = (
                    world.postgres.host().clone(),
                    if writer % 2 == 0 { "a".to_owned() } else { other.clone() },
                );
                tokio::spawn(async move {
                    for count in 0..EACH {
                        let mut transaction = pool.begin().await.unwrap();
                        emit(transaction.acquire().await.unwrap(), &key, &format!("[{writer},{count}]"))
                            .await;
                        if (writer + count) % 7 == 0 {
                            transaction.rollback().await.unwrap();
                        } else {
                            transaction.commit().await.unwrap();
                        }
                    }
                })
            })
            .collect();
        let mut seen = Vec::new();
        while !writers.iter().all(|writer| writer.is_finished()) {
            seen.extend(step(&world, &mut cursor).await);
        }
        for writer in writers {
            writer.await.unwrap();
        }
        while !is_through(&world, &cursor).await {
            seen.extend(step(&world, &mut cursor).await);
        }
        let mut last: HashMap<u64, u64> = HashMap::new();
        for payload in &seen {
            let [writer, count]: [u64; 2] = serde_json::from_str(payload).unwrap();
            assert!(
                last.insert(writer, count).is_none_or(|before| before < count),
                "writer {writer} out of order"
            );
        }
        let committed = world.count("select count(*) from switchboard.outbox").await;
        assert_eq!(seen.len() as i64, committed);
    })
    .await;
}

#[tokio::test]
async fn a_former_owner_saves_nothing() {
    with_world(2, async |world| {
        let outbox = world.postgres.outbox();
        outbox.introduce("reader", Start::Beginning).await.unwrap();
        let (ana, bo) = (NodeId::random(), NodeId::random());
        let held = outbox.claim("reader", ana, Duration::ZERO, 1, &[]).await.unwrap().remove(0);
        assert_eq!(outbox.save("reader", &[&held]).await.unwrap(), [held.shard]);
        let taken = outbox.claim("reader", bo, LEASE, 1, &[]).await.unwrap().remove(0);
        assert_eq!(taken.shard, held.shard, "its lease was over");
        assert!(outbox.save("reader", &[&held]).await.unwrap().is_empty());
        assert!(polled(&world, ana, &[held.held()]).await.kept.is_empty());
        outbox.release(&held).await.unwrap();
        assert_eq!(
            polled(&world, bo, &[taken.held()]).await.kept,
            [taken.held()],
            "only its holder gives it back"
        );
        // The shard was claimed, but the answer was lost: no reader renews the lease, and its node may claim
        // the shard again before the lease ends.
        let unasked = polled(&world, bo, &[]).await;
        assert!(unasked.kept.is_empty() && unasked.has_free_shard);
        let shards = |claimed: Vec<Cursor>| claimed.iter().map(|cursor| cursor.shard).collect::<Vec<_>>();
        let all = limits::OUTBOX_SHARDS.into();
        let others = outbox.claim("reader", bo, LEASE, all, &[taken.held()]).await.unwrap();
        assert_eq!(others.len(), limits::OUTBOX_SHARDS as usize - 1);
        assert_eq!(
            shards(outbox.claim("reader", bo, LEASE, all, &[]).await.unwrap()).len(),
            limits::OUTBOX_SHARDS as usize
        );
        assert!(outbox.claim("reader", ana, LEASE, all, &[]).await.unwrap().is_empty());
    })
    .await;
}

/// The node claimed a shard again after its lease had ended, and the answer was lost. The reader's cursor is
/// void then: if the poll renewed its lease, no node would read the shard.
#[tokio::test]
async fn a_shard_that_the_node_claimed_again_is_not_held_by_the_earlier_claim() {
    with_world(2, async |world| {
        let outbox = world.postgres.outbox();
        outbox.introduce("reader", Start::Beginning).await.unwrap();
        let ana = NodeId::random();
        let held = outbox.claim("reader", ana, Duration::ZERO, 1, &[]).await.unwrap().remove(0);
        let again = outbox.claim("reader", ana, LEASE, 1, &[held.held()]).await.unwrap().remove(0);
        assert_eq!(again.shard, held.shard, "its lease was over");
        assert!(outbox.save("reader", &[&held]).await.unwrap().is_empty());

        let polled_as_before = polled(&world, ana, &[held.held()]).await;
        assert!(polled_as_before.has_lost(&held.held()) && polled_as_before.has_free_shard);
        let polled_as_now = polled(&world, ana, &[again.held()]).await;
        assert!(!polled_as_now.has_lost(&again.held()));
        assert!(!polled_as_before.has_lost(&again.held()), "it was claimed during this poll");
    })
    .await;
}

/// A save that the server kept waiting would hold one of the few connections of the host for minutes, and the
/// next save another one.
#[tokio::test]
async fn a_save_does_not_wait_long_for_a_locked_cursor() {
    with_world(2, async |world| {
        let outbox = world.postgres.outbox();
        let mut cursors = cursors_of(&world, "reader").await;
        cursors.iter_mut().for_each(|cursor| cursor.high = 7);
        let mut lock = world.postgres.host().begin().await.unwrap();
        sqlx::query("select from switchboard.cursors where shard = 3 for update")
            .execute(&mut *lock)
            .await
            .unwrap();
        let all: Vec<&Cursor> = cursors.iter().collect();
        let (began_at, wait) = (Instant::now(), limits::CURSOR_LOCK_WAIT);
        let error = outbox.save("reader", &all).await.unwrap_err();
        assert!(error.to_string().contains("lock timeout"), "{error}");
        assert!((wait..limits::POSTGRES_HOST_WAIT).contains(&began_at.elapsed()));
        assert_eq!(world.count("select count(*) from switchboard.cursors where high = 7").await, 0);
        let locked = cursors.iter().find(|cursor| cursor.shard == 3).unwrap();
        outbox.release(locked).await.unwrap_err();
        // Without the locked one, the others are saved. The bound ends with its statement.
        let others: Vec<&Cursor> = all.iter().copied().filter(|cursor| cursor.shard != 3).collect();
        assert_eq!(outbox.save("reader", &others).await.unwrap().len(), others.len());
        lock.rollback().await.unwrap();
        assert_eq!(outbox.save("reader", &all).await.unwrap().len(), all.len());
        let bound = "select count(*) from pg_settings where name = 'lock_timeout' and setting <> '0'";
        assert_eq!(world.count(bound).await, 0);
    })
    .await;
}

/// After a failover the positions of the outbox may be given out again, and the row holds the consumer's
/// position in the remaining history. A cursor from before the failover must not overwrite it.
#[tokio::test]
async fn a_cursor_of_another_position_epoch_is_neither_renewed_nor_saved() {
    with_world(2, async |world| {
        let outbox = world.postgres.outbox();
        outbox.introduce("reader", Start::Beginning).await.unwrap();
        let ana = NodeId::random();
        let mut held = outbox.claim("reader", ana, LEASE, 1, &[]).await.unwrap().remove(0);
        assert_eq!(polled(&world, ana, &[held.held()]).await.kept, [held.held()]);
        held.high = 7;
        world.owner("select switchboard.begin_epoch()").await;
        assert!(polled(&world, ana, &[held.held()]).await.kept.is_empty());
        assert!(outbox.save("reader", &[&held]).await.unwrap().is_empty());
        let again = outbox.claim("reader", ana, LEASE, 1, &[]).await.unwrap().remove(0);
        assert_eq!((again.shard, again.high), (held.shard, 0), "its own lease does not keep it away");
        assert_eq!(outbox.save("reader", &[&again]).await.unwrap(), [again.shard]);
    })
    .await;
}

#[tokio::test]
async fn retries_go_by_key_and_parked_events_can_come_back() {
    with_world(2, async |world| {
        let outbox = world.postgres.outbox();
        let event = |position, key: &str| Stored {
            shard: 0,
            position,
            id: Uuid::now_v7(),
            event_type: "test".to_owned(),
            key: key.to_owned(),
            payload: "{}".to_owned(),
            created_ms: 1_700_000_000_123,
        };
        let (a1, a2, b1) = (event(1, "a"), event(2, "a"), event(3, "b"));
        let at_once = Duration::ZERO;
        let later = Duration::from_secs(3600);
        outbox.postpone("reader", &[(&a1, 1, later), (&a2, 0, at_once), (&b1, 1, at_once)]).await.unwrap();
        let due_now = outbox.due("reader", &[0], 10).await.unwrap();
        assert_eq!(due_now.iter().map(|w| w.event.position).collect::<Vec<_>>(), [3], "a2 waits behind a1");
        assert_eq!(due_now[0].event, b1);

        outbox.settle("reader", &[&b1]).await.unwrap();
        outbox.park("reader", &a1, 8, "poi\0son").await.unwrap();
        assert_eq!(outbox.due("reader", &[0], 10).await.unwrap()[0].event, a2);
        let given_up = outbox.parked().await.unwrap();
        assert_eq!((given_up[0].id, given_up[0].error.as_str()), (a1.id, "poi\u{fffd}son"));
        assert_eq!(given_up[0].created_at, "2023-11-14T22:13:20.123Z");

        assert_eq!(outbox.replay(a1.id).await.unwrap(), 1);
        assert_eq!(outbox.due("reader", &[0], 10).await.unwrap()[0].event, a1, "before a2, as it was");
        assert_eq!(outbox.drop_parked(a1.id).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn only_days_that_everybody_passed_are_dropped() {
    with_world(2, async |world| {
        let outbox = world.postgres.outbox();
        world.owner("select switchboard.ensure_outbox_day((now() at time zone 'UTC')::date - 9)").await;
        let mut cursor = cursor_of(&world, "a").await;
        let old = "insert into switchboard.outbox (shard, position, id, event_type, key, payload)
            select s, switchboard.next_position(s), switchboard.uuid_floor(now() - interval '9 days'), 'test', 'a', '1'
            from switchboard.shard('a') as s";
        world.owner(old).await;
        let days = "select count(*) from pg_inherits where inhparent = 'switchboard.outbox'::regclass";
        let before = world.count(days).await;
        outbox.maintain().await.unwrap();
        assert_eq!(world.count(days).await, before, "nobody has read it");
        assert_eq!(step(&world, &mut cursor).await, ["1"]);
        outbox.save("reader", &[&cursor]).await.unwrap();
        outbox.maintain().await.unwrap();
        assert_eq!(world.count(days).await, before - 1);
    })
    .await;
}

#[tokio::test]
async fn a_retired_consumer_holds_no_partition_and_what_it_misses_is_counted() {
    with_world(2, async |world| {
        let outbox = world.postgres.outbox();
        world.owner("select switchboard.ensure_outbox_day((now() at time zone 'UTC')::date - 9)").await;
        let _never_read = cursor_of(&world, "a").await;
        world
            .owner(
                "insert into switchboard.outbox (shard, position, id, event_type, key, payload)
                 select s, switchboard.next_position(s), switchboard.uuid_floor(now() - interval '9 days'), 'test', 'a', '1'
                 from switchboard.shard('a') as s",
            )
            .await;
        let days = "select count(*) from pg_inherits where inhparent = 'switchboard.outbox'::regclass";
        let before = world.count(days).await;
        assert_eq!(outbox.maintain().await.unwrap(), []);
        assert_eq!(world.count(days).await, before);

        world
            .owner(
                r#"insert into switchboard.releases (digest, name, manifest, file, created_by)
                   values (sha256('r'), 'reader', '{"on": {"event": {"types": ["*"]}}}', '', 'ana');
                   insert into switchboard.history (generation, action, name, digest, who)
                   values (1, 'retire', 'reader', sha256('r'), 'ana')"#,
            )
            .await;
        let lag = async || outbox.lag().await.unwrap().into_iter().find(|lag| lag.consumer == "reader").unwrap();
        assert!(lag().await.retired);
        assert_eq!(outbox.maintain().await.unwrap(), [("reader".to_owned(), 1)]);
        assert_eq!(world.count(days).await, before - 1);
        assert_eq!(lag().await.missed, 1);
        assert_eq!(outbox.maintain().await.unwrap(), [], "it is reported once");
        // The handler runs again, and its cursor is unchanged.
        world
            .owner("insert into switchboard.running (name, digest, generation) values ('reader', sha256('r'), 2)")
            .await;
        assert!(!lag().await.retired);
    })
    .await;
}

/// Finds another key of the same shard.
pub(super) async fn same_shard(world: &World, key: &str) -> String {
    sqlx::query_scalar(
        "select k from (select 'key' || n as k from generate_series(1, 1000) as n) as keys
         where switchboard.shard(k) = switchboard.shard($1) limit 1",
    )
    .bind(key)
    .fetch_one(world.postgres.host())
    .await
    .unwrap()
}
