//! Presence: many connections are one person, and only those who share a conversation see it.

use serde_json::{Value, json};
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};

async fn watch(client: &mut Client, user: &str) -> Value {
    let snapshot = client.request("presence.watch", json!({"user_ids": [user]})).await;
    snapshot.expect("presence.snapshot")["presence"][0]["status"].clone()
}

#[tokio::test]
async fn coming_and_going_is_seen() {
    Host::test(Options::default(), async |host| {
        host.group("lobby", &["ana", "bo"]).await;
        let mut ana = host.client("ana").await;
        assert_eq!(watch(&mut ana, "bo").await, "offline");
        let of_bo =
            |status: &'static str| move |push: &Value| push["user_id"] == "bo" && push["status"] == status;
        let phone = host.client("bo").await;
        ana.expect_where("presence.update", of_bo("online")).await;
        let laptop = host.client("bo").await;
        drop(phone);
        // One connection is left: still the same person.
        assert_eq!(watch(&mut ana, "bo").await, "online");
        drop(laptop);
        let update = ana.expect_where("presence.update", of_bo("offline")).await;
        assert!(update["last_seen"].is_string(), "{update}");
        assert_eq!(watch(&mut ana, "bo").await, "offline");
    })
    .await;
}

#[tokio::test]
async fn strangers_are_always_offline() {
    Host::test(Options::default(), async |host| {
        host.group("lobby", &["ana", "bo"]).await;
        let _bo = host.client("bo").await;
        let mut eve = host.client("eve").await;
        assert_eq!(watch(&mut eve, "bo").await, "offline");
    })
    .await;
}
