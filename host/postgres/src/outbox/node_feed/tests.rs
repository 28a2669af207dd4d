//! Tests with a real server: what comes from memory, what is read, and that both together keep the order.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::Acquire;
use tokio::time::timeout;
use uuid::Uuid;

use super::super::tests::{cursors_of, emit, same_shard};
use super::*;
use crate::tests::world::{ROLE, World, with_world};
use switchboard_contract::postgres::Value;

const INSERT: &str = "insert into switchboard.outbox (shard, position, id, event_type, key, payload)
     select s, switchboard.next_position(s), $2::uuid, 'test', $1, $3::json from switchboard.shard($1) as s";

/// One consumer, with the cursors of all shards.
struct Consumer {
    feed: ConsumerFeed,
    cursors: Vec<Cursor>,
    wakes: WakeCounts,
}

impl Consumer {
    async fn new(world: &World, name: &str) -> Self {
        grant(world).await;
        Self {
            feed: world.postgres.node_feed().consumer(),
            cursors: cursors_of(world, name).await,
            wakes: WakeCounts::default(),
        }
    }

    async fn take(&mut self, news: &News, most: usize) -> (Vec<String>, bool) {
        let cursors: Vec<&Cursor> = self.cursors.iter().collect();
        let Pages { pages, is_through } = self.feed.next(&cursors, news, most).await.unwrap();
        let mut payloads = Vec::new();
        for page in pages {
            let own = self.cursors.iter_mut().find(|cursor| cursor.shard == page.after.shard).unwrap();
            payloads.extend(page.events.iter().map(|event| event.payload.clone()));
            *own = page.after;
        }
        (payloads, is_through)
    }

    /// Takes the events that it gets without any news: from memory, or because positions are missing.
    async fn taken(&mut self) -> Vec<String> {
        self.take(&News { wakes: self.wakes, ..News::default() }, 100).await.0
    }

    /// Takes the events that it gets after a wake.
    async fn woken(&mut self) -> Vec<String> {
        self.wakes.iter_mut().for_each(|count| *count += 1);
        self.taken().await
    }

    /// Everything up to the heads of now.
    async fn all(&mut self, world: &World, most: usize) -> Vec<String> {
        let (heads, wakes) = (world.postgres.outbox().heads().await.unwrap(), self.wakes);
        let mut all = Vec::new();
        loop {
            let (payloads, is_through) = self.take(&News { heads, wakes }, most).await;
            let is_empty = payloads.is_empty();
            all.extend(payloads);
            if is_empty && is_through {
                return all;
            }
        }
    }
}

/// Lets the role of the sessions write events.
async fn grant(world: &World) {
    world.owner(&format!("grant insert on switchboard.outbox to switchboard_{ROLE}")).await;
}

/// Writes an event as a call of a handler does. Returns the published shards.
async fn write(world: &World, key: &str, payload: &str) -> u64 {
    let mut session = world.session();
    let params = [key, &Uuid::now_v7().to_string(), payload].map(|text| Value::Text(text.to_owned()));
    session.execute(INSERT, &params).await.unwrap();
    session.shards_published()
}

#[tokio::test]
async fn what_this_node_commits_reaches_every_consumer_without_a_query() {
    with_world(2, async |world| {
        let mut ana = Consumer::new(&world, "ana").await;
        let mut bo = Consumer::new(&world, "bo").await;
        assert!(ana.taken().await.is_empty() && bo.taken().await.is_empty());
        // From here on, a query of the outbox would wait until this transaction ends.
        let published = write(&world, "a", "1").await;
        assert_eq!(published.count_ones(), 1);
        let mut lock = world.postgres.host().begin().await.unwrap();
        sqlx::query("lock table switchboard.outbox in access exclusive mode")
            .execute(&mut *lock)
            .await
            .unwrap();
        let both = async { (ana.taken().await, bo.taken().await) };
        let (first, second) = timeout(Duration::from_secs(2), both).await.expect("no query");
        assert_eq!((first, second), (vec!["1".to_owned()], vec!["1".to_owned()]));
        lock.rollback().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_is_known_is_delivered_although_a_read_fails() {
    with_world(2, async |world| {
        let mut ana = Consumer::new(&world, "ana").await;
        ana.taken().await;
        write(&world, "a", "1").await;
        let mut lock = world.postgres.host().begin().await.unwrap();
        sqlx::query("lock table switchboard.outbox in access exclusive mode")
            .execute(&mut *lock)
            .await
            .unwrap();
        // All shards are read because of the wakes.
        assert_eq!(ana.woken().await, ["1"]);
        let (cursors, news): (Vec<_>, _) =
            (ana.cursors.iter().collect(), News { wakes: ana.wakes, ..News::default() });
        assert!(ana.feed.next(&cursors, &news, 100).await.is_err(), "nothing else is known");
        lock.rollback().await.unwrap();
        assert!(ana.taken().await.is_empty());
    })
    .await;
}

/// A report comes from the trigger only, whatever a statement of a handler raises.
#[tokio::test]
async fn a_message_of_a_handler_is_no_report() {
    with_world(2, async |world| {
        let mut ana = Consumer::new(&world, "ana").await;
        ana.taken().await;
        world
            .owner(
                "create function public.forge(level text) returns void language plpgsql as $$
                 declare events text := '[[0, 1, \"00000000-0000-7000-8000-000000000001\", \"test\", \"a\", 0, 7]]';
                 begin
                   -- switchboard.report_events()
                   if level = 'info' then raise info using message = 'switchboard.events', detail = events;
                   else raise notice using message = 'switchboard.events', detail = events; end if;
                 end $$",
            )
            .await;
        for level in ["info", "notice"] {
            let mut session = world.session();
            let forge = "select public.forge($1) /* switchboard.report_events() */";
            session.query(forge, &[Value::Text(level.to_owned())]).await.unwrap();
            assert_eq!(session.shards_published(), 0, "{level}");
            assert!(ana.taken().await.is_empty(), "{level}");
        }
    })
    .await;
}

#[tokio::test]
async fn only_what_was_committed_is_published() {
    with_world(2, async |world| {
        let mut ana = Consumer::new(&world, "ana").await;
        ana.taken().await;
        let mut session = world.session();
        let params = |payload: &str| {
            ["a", &Uuid::now_v7().to_string(), payload].map(|text| Value::Text(text.to_owned()))
        };
        session.begin().await.unwrap();
        session.transaction_execute(INSERT, &params("1")).await.unwrap();
        assert!(ana.taken().await.is_empty(), "before COMMIT");
        session.rollback().await.unwrap();
        assert_eq!(session.shards_published(), 0);
        session.begin().await.unwrap();
        session.transaction_execute(INSERT, &params("2")).await.unwrap();
        session.transaction_execute(INSERT, &params("3")).await.unwrap();
        session.commit().await.unwrap();
        assert_eq!(session.shards_published().count_ones(), 1);
        // The position of the rolled back event is missing, so Postgres is read.
        assert_eq!(ana.taken().await, ["2", "3"]);
        // The hole of the rolled back event is forgotten, and memory serves again.
        assert!(ana.all(&world, 100).await.is_empty());
        write(&world, "a", "4").await;
        assert_eq!(ana.taken().await, ["4"]);
    })
    .await;
}

#[tokio::test]
async fn an_event_in_memory_waits_for_the_positions_before_it() {
    with_world(2, async |world| {
        let mut ana = Consumer::new(&world, "ana").await;
        ana.taken().await;
        let other = same_shard(&world, "a").await;
        // A writer that this node does not know: another node, or SQL of an operator.
        let mut foreign = world.postgres.host().begin().await.unwrap();
        emit(foreign.acquire().await.unwrap(), &other, "1").await;
        write(&world, "a", "2").await;
        assert_eq!(ana.taken().await, ["2"], "a read shows that 1 is not visible");
        write(&world, "a", "3").await;
        foreign.commit().await.unwrap();
        // No wake came, and event 3 is in memory. Event 1 was committed before event 3 is taken.
        assert_eq!(ana.taken().await, ["1", "3"]);
        write(&world, &other, "4").await;
        assert_eq!(ana.taken().await, ["4"]);
    })
    .await;
}

#[tokio::test]
async fn events_that_memory_does_not_take_are_read() {
    with_world(2, async |world| {
        grant(&world).await;
        let before = write(&world, "a", "0").await;
        assert_eq!(before, 0, "no consumer of this node reads the shard");
        let mut ana = Consumer::new(&world, "ana").await;
        assert_eq!(ana.taken().await, ["0"]);
        // More than a report may have.
        let large = format!("\"{}\"", "x".repeat(300 * 1024));
        assert_eq!(write(&world, "a", &large).await, 0);
        assert_eq!(write(&world, "a", "2").await.count_ones(), 1);
        assert_eq!(ana.taken().await, [large, "2".to_owned()], "2 does not connect, so Postgres is read");
        // More than is kept for consumers that take nothing.
        let medium = format!("\"{}\"", "x".repeat(100 * 1024));
        let published = [write(&world, "a", &medium).await, write(&world, "a", &medium).await];
        assert!(published.iter().all(|published| *published != 0));
        assert_eq!(write(&world, "a", &medium).await, 0, "the caller's wake makes consumers read");
        assert_eq!(ana.woken().await, [&*medium, &*medium, &*medium]);
    })
    .await;
}

/// Inserts `$1` events with the key `a`.
const INSERT_MANY: &str = "insert into switchboard.outbox (shard, position, id, event_type, key, payload)
     select s, switchboard.next_position(s), gen_random_uuid(), 'test', 'a', '{}'
     from generate_series(1, $1::bigint) as n, switchboard.shard('a') as s";

#[tokio::test]
async fn a_statement_may_insert_any_number_of_events() {
    with_world(2, async |world| {
        let mut ana = Consumer::new(&world, "ana").await;
        ana.taken().await;
        let insert = async |count: i64| {
            let mut session = world.session_of(Duration::from_secs(60));
            assert_eq!(session.execute(INSERT_MANY, &[Value::Integer(count)]).await, Ok(count as u64));
            session.shards_published().count_ones()
        };
        assert_eq!(insert(500).await, 1, "a report");
        assert_eq!(ana.taken().await.len(), 100, "its first page");
        assert_eq!(ana.all(&world, 1000).await.len(), 400);
        assert_eq!(insert(1001).await, 0, "too many for a report");
        assert_eq!(ana.all(&world, 1000).await.len(), 1001);
        // A report of them would be larger than a connection may receive.
        assert_eq!(insert(60_000).await, 0);
        assert_eq!(ana.all(&world, 10_000).await.len(), 60_000);
    })
    .await;
}

#[tokio::test]
async fn no_event_is_reported_where_the_server_would_log_it() {
    for (level, published) in [("info", 0), ("debug2", 0), ("notice", 1)] {
        with_world(2, async |world| {
            let mut ana = Consumer::new(&world, "ana").await;
            ana.taken().await;
            // For the sessions that begin from here on.
            world
                .owner(&format!(
                    "do $$ begin execute format('alter database %I set log_min_messages = {level}', \
                     current_database()); end $$"
                ))
                .await;
            assert_eq!(write(&world, "a", "1").await.count_ones(), published, "{level}");
            assert_eq!(ana.woken().await, ["1"]);
        })
        .await;
    }
}

/// In a function that catches errors, an insert may be rolled back although the transaction commits. The node
/// would deliver its event, because the report came before. Handlers cannot send such statements themselves.
#[tokio::test]
async fn no_function_for_handlers_catches_errors() {
    with_world(2, async |world| {
        let catching = "select count(*) from pg_proc join pg_language as l on l.oid = prolang
             where lanname = 'plpgsql' and pronamespace not in
                 ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'switchboard'::regnamespace)
               and prosrc ~* '\\mexception\\s+when\\M'";
        world
            .owner(
                "create function public.catches() returns void language plpgsql as
                 $$ begin null; exception when others then null; end $$",
            )
            .await;
        assert_eq!(world.count(catching).await, 1, "it is found");
        world.owner("drop function public.catches()").await;
        assert_eq!(world.count(catching).await, 0);
    })
    .await;
}

/// Some writers are calls of this node, the others are not known to it. Two consumers take batches of
/// different sizes; one of them rests from time to time, so that it falls behind the tail.
#[tokio::test]
async fn under_many_writers_nothing_is_lost_or_repeated_and_each_key_keeps_its_order() {
    with_world(4, async |world| {
        const WRITERS: usize = 6;
        const EACH: usize = 60;
        let mut ana = Consumer::new(&world, "ana").await;
        let mut bo = Consumer::new(&world, "bo").await;
        let other = same_shard(&world, "a").await;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (world, key) =
                    (world.clone(), if writer % 2 == 0 { "a".to_owned() } else { other.clone() });
                tokio::spawn(async move {
                    for count in 0..EACH {
                        let payload = format!("[{writer},{count}]");
                        let rolls_back = (writer + count) % 7 == 0;
                        if writer < 4 {
                            let id = Uuid::now_v7().to_string();
                            let params =
                                [key.as_str(), &id, &payload].map(|text| Value::Text(text.to_owned()));
                            let mut session = world.session();
                            session.begin().await.unwrap();
                            session.transaction_execute(INSERT, &params).await.unwrap();
                            if rolls_back { session.rollback().await } else { session.commit().await }
                                .unwrap();
                        } else {
                            let mut transaction = world.postgres.host().begin().await.unwrap();
                            emit(transaction.acquire().await.unwrap(), &key, &payload).await;
                            if rolls_back {
                                transaction.rollback().await
                            } else {
                                transaction.commit().await
                            }
                            .unwrap();
                        }
                    }
                })
            })
            .collect();
        let (mut seen_by_ana, mut seen_by_bo) = (Vec::new(), Vec::new());
        let mut steps = 0;
        while !writers.iter().all(|writer| writer.is_finished()) {
            steps += 1;
            seen_by_ana.extend(ana.woken().await);
            if steps % 16 > 8 {
                seen_by_bo.extend(bo.take(&News { wakes: ana.wakes, ..News::default() }, 3).await.0);
            }
        }
        for writer in writers {
            writer.await.unwrap();
        }
        seen_by_ana.extend(ana.all(&world, 100).await);
        seen_by_bo.extend(bo.all(&world, 7).await);
        let committed = world.count("select count(*) from switchboard.outbox").await;
        for seen in [seen_by_ana, seen_by_bo] {
            let mut last: HashMap<u64, u64> = HashMap::new();
            for payload in &seen {
                let [writer, count]: [u64; 2] = serde_json::from_str(payload).unwrap();
                let before = last.insert(writer, count);
                assert!(
                    before.is_none_or(|before| before < count),
                    "writer {writer}: {before:?}, then {count}"
                );
            }
            assert_eq!(seen.len() as i64, committed);
        }
    })
    .await;
}
