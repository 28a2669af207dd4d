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

/// Inserts an event as SQL outside of the host does it, in a transaction that stays open.
fn open_event(id: &str) -> String {
    format!(
        "begin; insert into switchboard.outbox (shard, position, id, event_type, key, payload) \
         select shard, switchboard.next_position(shard), '{id}', 'published', 'user:eve', \
           '{{\"target\":\"user:eve\",\"type\":\"word\",\"payload\":{{}}}}' \
         from switchboard.shard('user:eve') as shard"
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
            writer.run(&open_event(&id(round))).await;
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
