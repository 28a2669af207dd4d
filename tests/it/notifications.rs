//! Notifications made from messages: once for each person who was not looking.

use serde_json::json;
use switchboard_tests::host::{Host, Options};

#[tokio::test]
async fn who_is_not_looking_is_notified_once() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut looking) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        let path = format!("/api/v1/conversations/{room}/participants");
        host.rest("ana").post(&path, json!({"user_id": "cy"})).await.expect(201);
        let mut cy = host.client("cy").await;
        let sent = ana.send("are you there?").await.expect_sent();
        let pushed = cy.expect("notification.new").await;
        let notification = &pushed["notification"];
        assert_eq!(notification["type"], "new_message", "{pushed}");
        assert_eq!(notification["user_id"], "cy");
        looking.expect_message("added").await;
        // Bo saw the message itself, Ana wrote it.
        looking.expect_message("are you there?").await;
        let rows = host.database.connect().await;
        let count = rows
            .rows("select user_id, count(*) from app.notifications where type = 'new_message' group by 1")
            .await;
        let counts: Vec<(String, i64)> = count.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(counts, [("cy".to_owned(), 1)], "{sent}");
    })
    .await;
}
