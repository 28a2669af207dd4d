//! Retiring a handler: its routes, frames, schedules and events end on every node, and only an operator
//! restores it.

use serde_json::json;
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;

#[tokio::test]
async fn a_retired_handler_answers_no_call_on_any_node_and_sockets_stay_open() {
    Host::test(Options::default(), async |host| {
        let mut away = host.another_node().await;
        let other = host.another_node().await;
        away.kill().await;
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        host.rest("ana").get("/api/v1/search?q=hello").await.expect(200);

        let (code, outcome) = host.switchboard(&["retire", "search", "--note", "too slow", "--json"]).await;
        assert_eq!(
            (&outcome["action"], &outcome["handler"]),
            (&json!("retire"), &json!("search")),
            "{outcome}"
        );
        // The command may still wait for the dead node; the two live nodes have removed the handler.
        assert!(code == 0 || outcome["complete"] == false, "{outcome}");
        host.admin.retire("typing").await.expect(200);
        for node in [&*host, &other] {
            node.rest("ana").get("/api/v1/search?q=hello").await.expect_problem(404, "not_found");
        }
        let typing = json!({"conversation_id": room});
        let refused = ana.request("typing", typing).await.expect("error");
        assert_eq!((&refused["code"], &refused["field"]), (&json!("malformed"), &json!("type")), "{refused}");
        ana.send("still here").await.expect_sent();
        bo.expect_message("still here").await;

        // A node that was away follows, and `handlers_dir` restores nothing.
        away.start().await;
        away.rest("ana").get("/api/v1/search?q=hello").await.expect_problem(404, "not_found");
        let releases = away.admin.releases().await;
        let runs = |handler: &str| {
            let mut list = releases["releases"].as_array().expect("a list").iter();
            list.any(|release| release["handler"] == handler && release["current"] == true)
        };
        assert!(!runs("search") && !runs("typing") && runs("send-message"), "{releases}");
        let history = host.admin.rest().get("/admin/v1/history?handler=search").await.expect(200);
        let last = &history["history"][0];
        assert_eq!((&last["action"], &last["note"]), (&json!("retire"), &json!("too slow")), "{last}");
        let audit = host.admin.rest().get("/admin/v1/audit?limit=20").await.expect(200);
        assert!(audit.to_string().contains("POST /admin/v1/handlers/search/retire"), "{audit}");
        assert!(host.log().contains("search is retired"));

        host.admin.rollback("search").await.expect(200);
        host.admin.release(&Release::built("typing")).await;
        for node in [&*host, &other, &away] {
            node.rest("ana").get("/api/v1/search?q=hello").await.expect(200);
        }
    })
    .await;
}

#[tokio::test]
async fn a_retired_consumer_continues_where_it_stopped() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let mut bo = host.client("bo").await;
        let path = format!("/api/v1/conversations/{room}/messages");
        let say = async |text: &str| {
            host.rest("ana").post(&path, json!({"content": text})).await.expect(201);
        };
        say("before").await;
        bo.expect("notification.new").await;
        host.admin.retire("notify").await.expect(200);
        say("meanwhile").await;
        until("the consumer to be listed as retired", async || {
            let consumers = host.admin.rest().get("/admin/v1/consumers").await.expect(200);
            let list = consumers["consumers"].as_array()?.clone();
            let notify = list.into_iter().find(|consumer| consumer["consumer"] == "notify")?;
            (notify["retired"] == true && notify["behind"].as_i64()? > 0).then_some(())
        })
        .await;
        let (code, status) = host.switchboard(&["status", "--json"]).await;
        assert_eq!(code, 0, "a retired consumer is nothing to complain of: {status}");
        assert!(host.admin.ready().await);

        host.admin.rollback("notify").await.expect(200);
        // If the handler was retired before its cursor was written, it pushes the first event again.
        let body = async |bo: &mut Client| bo.expect("notification.new").await["notification"]["body"].take();
        let mut pushed = body(&mut bo).await;
        while pushed == "before" {
            pushed = body(&mut bo).await;
        }
        assert_eq!(pushed, "meanwhile", "nothing was lost");
    })
    .await;
}
