//! Statements are planned for tables of any size: the host forbids plans that scan a table if an index can
//! serve. So a table that an endpoint, frame or rebuild still scans lacks an index, also inside functions of
//! the database.

use serde_json::json;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;

use super::document;
use super::requests::Draft;
use super::world::{World, token};

/// The number of scans of each table that was read.
async fn counted(host: &Host) -> Vec<(String, i64)> {
    let rows = host
        .database
        .rows(
            "select relname::text, seq_scan from pg_stat_user_tables
             where schemaname = 'app' and (seq_scan > 0 or idx_scan > 0) order by relname",
        )
        .await;
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_scans_a_whole_table() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let world = World::make(host, "here").await;
        host.database.run("select pg_stat_reset()").await;

        let mut operations = document::operations();
        // Operations that delete come last; otherwise the others would find nothing.
        operations.sort_by_key(|operation| {
            ["GET", "POST", "PUT", "PATCH"].iter().position(|m| operation.method == *m).unwrap_or(4)
        });
        for operation in &operations {
            for least in [false, true] {
                for (draft, _) in Draft::good(operation, &world, least) {
                    let rest = host.rest_with(token(operation, &world.owner));
                    draft.request().send(&rest).await.expect("an answer");
                }
            }
        }
        let mut owner = host.client(&world.owner).await;
        let room = json!({"type": "group", "name": "frames", "members": [world.member]});
        let room = host.rest(&world.owner).post("/api/v1/conversations", room).await.expect(201);
        let room = &room["conversation"]["id"];
        let sent = owner
            .request("message.send", json!({"conversation_id": room, "content": "x"}))
            .await
            .expect_sent();
        let message = &sent["id"];
        for (frame_type, reply, mut payload) in [
            (
                "subscribe",
                "subscribed",
                json!({"conversation_ids": [room], "positions": {(world.conversation.as_str()): 0}}),
            ),
            ("history", "history", json!({})),
            ("read", "read.ok", json!({"up_to_seq": 2})),
            ("message.edit", "message.edited", json!({"message_id": message, "content": "y"})),
            ("message.delete", "message.deleted", json!({"message_id": message})),
            ("presence.set", "presence.ok", json!({"status": "busy"})),
            ("presence.watch", "presence.snapshot", json!({"user_ids": [world.member]})),
        ] {
            payload["conversation_id"] = room.clone();
            owner.request(frame_type, payload).await.expect(reply);
        }
        for (frame_type, payload) in [
            ("typing", json!({"conversation_id": room})),
            ("focus", json!({"conversation_id": room})),
            ("delivered", json!({"positions": {(room.as_str().expect("an id")): 2}})),
        ] {
            owner.write(json!({"type": frame_type, "payload": payload})).await;
        }
        owner.expect_alive().await;
        drop(owner);
        // A client that reconnects gets the frames that it missed.
        let body = json!({"content": "while away"});
        let messages = format!("/api/v1/conversations/{}/messages", room.as_str().expect("an id"));
        host.rest(&world.owner).post(&messages, body).await.expect(201);
        let mut back = host.client(&world.member).await;
        back.expect_where("message.new", |push| push["message"]["content"] == "while away").await;
        drop(back);
        host.command(&["rebuild", "--json"]).await;
        host.outbox_read().await;

        // A server process reports its counts when it ends, and the host's processes end soon after the host.
        host.terminate();
        assert!(host.ended().await.success());
        let of_the_host = "select pid from pg_stat_activity
             where datname = current_database() and application_name like 'switchboard%'";
        until("the connections of the host to end", async || {
            host.database.rows(of_the_host).await.is_empty().then_some(())
        })
        .await;
        let counted = counted(host).await;
        let known = |name: &str| counted.iter().any(|(table, _)| table.starts_with(name));
        assert!(
            ["messages_2", "participants", "class_members", "marks"].iter().all(|name| known(name)),
            "{counted:?}"
        );
        let scanned: Vec<_> = counted.iter().filter(|(_, scans)| *scans > 0).collect();
        assert!(scanned.is_empty(), "read from end to end: {scanned:?}");
    })
    .await;
}
