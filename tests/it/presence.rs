//! Presence as the outbox tells it: many connections are one person, and a node that dies takes nobody's presence along.

use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;

/// Every `user.online` and `user.offline` of a user so far, in order.
async fn told_of(host: &Host, user: &str) -> Vec<String> {
    let rows = host.database.connect().await;
    let statement = format!(
        "select event_type from switchboard.outbox \
         where event_type like 'user.%' and payload ->> 'user_id' = '{user}' order by position"
    );
    rows.rows(&statement).await.iter().map(|row| row.get(0)).collect()
}

async fn becomes(host: &Host, user: &str, told: &[&str]) {
    until(format!("{user} to be {told:?}"), async || (told_of(host, user).await == told).then_some(())).await;
}

#[tokio::test]
async fn many_connections_are_one_person() {
    Host::test(Options::default(), async |host| {
        let phone = host.client("bo").await;
        becomes(host, "bo", &["user.online"]).await;
        let mut laptop = host.client("bo").await;
        drop(phone);
        laptop.expect_alive().await;
        // A page that is loaded again is not somebody who left and came back.
        drop(laptop);
        let again = host.client("bo").await;
        drop(again);
        becomes(host, "bo", &["user.online", "user.offline"]).await;
        let _back = host.client("bo").await;
        becomes(host, "bo", &["user.online", "user.offline", "user.online"]).await;
    })
    .await;
}

#[tokio::test]
async fn the_users_of_a_node_that_died_go_offline() {
    Host::test(Options::default(), async |host| {
        let _bo = host.client("bo").await;
        becomes(host, "bo", &["user.online"]).await;
        host.kill().await;
        host.start().await;
        becomes(host, "bo", &["user.online", "user.offline"]).await;
    })
    .await;
}

#[tokio::test]
async fn who_stays_through_the_loss_of_redis_is_not_announced_as_gone() {
    Host::test(Options::default(), async |host| {
        let mut ana = host.client("ana").await;
        becomes(host, "ana", &["user.online"]).await;
        host.redis.kill();
        host.redis.start_again().await;
        until("the host to be well again", async || host.admin.ready().await.then_some(())).await;
        // Somebody who comes and goes meanwhile shows that the sweep has gone on.
        let eve = host.client("eve").await;
        becomes(host, "eve", &["user.online"]).await;
        drop(eve);
        ana.expect_alive().await;
        becomes(host, "eve", &["user.online", "user.offline"]).await;
        assert!(!told_of(host, "ana").await.contains(&"user.offline".to_owned()));
    })
    .await;
}
