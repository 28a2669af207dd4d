//! The consumers of the outbox get every event, although nodes are killed, shards change their owners, and
//! positions of the outbox stay empty or are filled late. Subscribers cannot show this, because a client that
//! missed pushes gets them when it resumes. So the tests look at what the consumers wrote: the notifications
//! of a user who never connects, and the stream of events in Redis.

use std::time::Duration;

use switchboard_tests::crowd::{Chatter, Plan};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::{until, within};

const ROOMS: usize = 3;
const ROUNDS: usize = 4;

/// Inserts an event for a user as SQL outside of the host does it.
fn event(id: &str, user: &str) -> String {
    format!(
        "insert into switchboard.outbox (shard, position, id, event_type, key, payload) \
         select shard, switchboard.next_position(shard), '{id}', 'published', 'user:{user}', \
           '{{\"target\":\"user:{user}\",\"type\":\"word\",\"payload\":{{}}}}' \
         from switchboard.shard('user:{user}') as shard"
    )
}

/// How often an event is in the stream that `outbox-relay` writes.
async fn relayed(host: &Host, id: &str) -> usize {
    let key = host.redis_key("chat:logs:events").await;
    let client = redis::Client::open(host.redis.url_at(None)).expect("an address");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
    let entries: Vec<(String, Vec<String>)> =
        redis::cmd("XRANGE").arg(&[&key, "-", "+"]).query_async(&mut connection).await.expect("a stream");
    entries.iter().filter(|(_, fields)| fields.iter().any(|field| field == id)).count()
}

async fn number(host: &Host, sql: &str) -> i64 {
    host.database.rows(sql).await[0].get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_reaches_every_consumer_across_kills_hand_overs_and_holes() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let mut other = host.another_node().await;
        let mut crowd = Vec::new();
        for n in 0..ROOMS {
            let room = host.group(&format!("room {n}"), &["ana", "bo", "eve"]).await;
            let pause = Duration::from_millis(5);
            crowd.push(Chatter::start(host.address, Plan::talker("ana", &room, pause)).await);
            crowd.push(Chatter::start(other.address, Plan::talker("bo", &room, pause)).await);
        }
        let acknowledged = |crowd: &[Chatter]| crowd.iter().map(Chatter::acknowledged).sum::<usize>();
        let id = |round: usize| format!("00000000-0000-7000-8000-0000000000f{round}");
        for round in 0..ROUNDS {
            let writer = host.database.connect().await;
            writer.run(&format!("begin; {}", event(&id(round), "eve"))).await;
            let before = acknowledged(&crowd);
            let goes_on = async || (acknowledged(&crowd) > before + 100).then_some(());
            until(format!("load in round {round}"), goes_on).await;
            // Each node owns shards when it dies: the one that died before has given them up.
            let dying = if round % 2 == 0 { &mut *host } else { &mut other };
            dying.kill().await;
            dying.start().await;
            writer.run(if round < 2 { "commit" } else { "rollback" }).await;
        }
        for chatter in &mut crowd {
            chatter.stop_sending().await;
        }
        let messages = number(host, "select count(*) from app.messages where type = 'text'").await;
        let notified =
            "select count(*) from app.notifications where user_id = 'eve' and type = 'new_message'";
        within(Duration::from_secs(60), "a notification for each message", async || {
            (number(host, notified).await == messages).then_some(())
        })
        .await;
        for round in 0..ROUNDS {
            let committed = round < 2;
            until(format!("the event of round {round}"), async || {
                ((relayed(host, &id(round)).await > 0) == committed).then_some(())
            })
            .await;
        }
        // The empty positions are forgotten, so no cursor keeps partitions of the outbox.
        until("the cursors to have no holes", async || {
            (number(host, "select count(*) from switchboard.cursors where holes <> '[]'").await == 0)
                .then_some(())
        })
        .await;
        other.kill().await;
        drop(crowd);
    })
    .await;
}

/// A save that waited for the lock would hold up the cursors of all shards, and the end of the node.
#[tokio::test]
async fn a_locked_cursor_holds_up_neither_other_shards_nor_a_stop() {
    Host::test(Options::default(), async |host| {
        let operator = host.database.connect().await;
        let shard = |user: &str| format!("switchboard.shard('user:{user}')");
        assert_eq!(number(host, &format!("select count(*) where {} = {}", shard("eve"), shard("bo"))).await, 0);
        let high = format!(
            "select coalesce(max(high), 0) from switchboard.cursors where consumer = 'outbox-relay' and shard = {}",
            shard("bo")
        );
        let ids = [1, 2].map(|n| format!("00000000-0000-7000-8000-0000000000e{n}"));
        let claimed =
            "select count(*) from switchboard.cursors where consumer = 'outbox-relay' and lease_until > now()";
        until("the shards to be claimed", async || (number(host, claimed).await == 8).then_some(())).await;
        let before = number(host, &high).await;
        operator
            .run(&format!(
                "begin; select from switchboard.cursors where consumer = 'outbox-relay' and shard = {} for update",
                shard("eve")
            ))
            .await;
        // The cursor of the locked row has moved, so that each save names it while the node holds the shard.
        host.database.run(&event(&ids[0], "eve")).await;
        until("the first event", async || (relayed(host, &ids[0]).await > 0).then_some(())).await;
        host.database.run(&event(&ids[1], "bo")).await;
        until("the cursor of the other shard to be saved", async || {
            (number(host, &high).await > before).then_some(())
        })
        .await;
        host.terminate();
        assert!(host.ended().await.success());
        operator.run("rollback").await;
    })
    .await;
}
