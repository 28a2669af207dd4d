//! The data that only auditors see, and the record of their access.

use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::rest::Rest;
use switchboard_tests::token::Token;

fn with_role(host: &Host, user: &str, role: &str) -> Rest {
    host.rest_with(Token::of(user).roles(&[role]).claim("jti", json!(format!("session of {user}"))).sign())
}

#[tokio::test]
async fn an_auditor_sees_every_text_and_each_access_is_recorded() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let path = format!("/api/v1/conversations/{room}/messages");
        let body = json!({"content": "first text", "metadata": {"k": "kept"}});
        let sent = host.rest("ana").post(&path, body).await.expect(201)["message"].clone();
        let one = format!("{path}/{}", sent["id"].as_str().expect("an id"));
        host.rest("ana").put(&one, json!({"content": "second text"})).await.expect(200);
        host.rest("ana").put(&one, json!({"content": "third text"})).await.expect(200);
        host.rest("ana").delete(&one).await.expect(204);
        host.rest("bo").post(&path, json!({"content": "untouched"})).await.expect(201);

        let auditor = with_role(host, "aud", "auditor");
        let page = auditor.get(&format!("/api/v1/admin/conversations/{room}/messages?reason=case%207")).await.expect(200);
        let messages = page["messages"].as_array().expect("messages");
        assert_eq!((messages.len(), &page["has_more"]), (3, &json!(false)));
        let message = &messages[1];
        assert_eq!((&message["content"], &message["metadata"]), (&json!("third text"), &json!({"k": "kept"})));
        assert!(message["deleted"] == true && message["deleted_at"].is_string(), "{message}");
        let changes: Vec<(&Value, &Value, &Value)> = message["changes"]
            .as_array()
            .expect("changes")
            .iter()
            .map(|change| (&change["kind"], &change["by"], &change["original"]["content"]))
            .collect();
        let (edit, delete, ana) = (json!("edit"), json!("delete"), json!("ana"));
        assert_eq!(
            changes,
            [
                (&edit, &ana, &json!("first text")),
                (&edit, &ana, &json!("second text")),
                (&delete, &ana, &json!("third text")),
            ]
        );
        assert_eq!((&messages[2]["deleted"], &messages[2]["changes"]), (&json!(false), &json!([])));

        let admin = with_role(host, "root", "admin");
        let query = "reason=again&limit=1&after_seq=1&type=text";
        let page = admin.get(&format!("/api/v1/admin/conversations/{room}/messages?{query}")).await.expect(200);
        assert_eq!((&page["messages"][0]["seq"], &page["has_more"]), (&json!(2), &json!(true)));

        let noted = host
            .database
            .rows("select by_user, session_id, reason, page::text, conversation_id::text from app.audits order by id")
            .await;
        let noted: Vec<[String; 5]> = noted.iter().map(|row| [0, 1, 2, 3, 4].map(|column| row.get(column))).collect();
        assert_eq!(noted.len(), 2);
        assert_eq!(noted[0][..3], ["aud", "session of aud", "case 7"].map(String::from));
        assert_eq!(noted[1][..3], ["root", "session of root", "again"].map(String::from));
        let asked: Value = serde_json::from_str(&noted[1][3]).expect("JSON");
        assert_eq!((&asked["after_seq"], &asked["limit"], &asked["type"]), (&json!(1), &json!(1), &json!("text")));
        assert_eq!(noted[0][4], room);
    })
    .await;
}

#[tokio::test]
async fn a_conversation_can_be_audited_by_its_slug() {
    Host::test(Options::default(), async |host| {
        let body = json!({"type": "group", "name": "lobby", "slug": "lobby"});
        let made = host.rest("ana").post("/api/v1/conversations", body).await.expect(201);
        let auditor = with_role(host, "aud", "auditor");
        let seen = auditor.get("/api/v1/admin/conversations/lobby/messages?reason=x").await.expect(200);
        assert_eq!(seen["messages"][0]["conversation_id"], made["conversation"]["id"]);
        let noted = host.database.rows("select conversation_id::text from app.audits").await;
        assert_eq!(json!(noted[0].get::<_, String>(0)), made["conversation"]["id"]);
    })
    .await;
}

#[tokio::test]
async fn other_users_cannot_audit_and_auditors_need_a_reason() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana"]).await;
        let path = format!("/api/v1/admin/conversations/{room}/messages");
        // The owner may not either, whether the conversation exists or not.
        let nowhere = path.replace(&room, "0199aaaa-0000-7000-8000-000000000000");
        for path in [&path, &nowhere] {
            let asked = format!("{path}?reason=x");
            host.rest("ana").get(&asked).await.expect_problem(403, "forbidden");
            with_role(host, "sys", "service").get(&asked).await.expect_problem(403, "forbidden");
            host.rest_with(None).get(&asked).await.expect_problem(401, "unauthorized");
        }
        let auditor = with_role(host, "aud", "auditor");
        let long = format!("reason={}", "x".repeat(501));
        for (query, field) in [
            ("", "reason"),
            ("reason=", "reason"),
            ("reason=%20%20", "reason"),
            ("reason=a%00b", "reason"),
            ("reason=a%0Ab", "reason"),
            (&*long, "reason"),
            ("reason=x&limit=0", "limit"),
            ("reason=x&limit=101", "limit"),
            ("reason=x&before_seq=x", "before_seq"),
            ("reason=x&after_seq=-1", "after_seq"),
            ("reason=x&before_change=x", "before_change"),
            ("reason=x&type=nonsense", "type"),
        ] {
            auditor.get(&format!("{path}?{query}")).await.expect_invalid(field);
        }
        auditor.get(&format!("{nowhere}?reason=x")).await.expect_problem(404, "not_found");
        let nobodys = path.replace(&room, "no-such-slug");
        auditor.get(&format!("{nobodys}?reason=x")).await.expect_problem(404, "not_found");
        auditor
            .get("/api/v1/admin/conversations/nonsense/messages?reason=x")
            .await
            .expect_problem(404, "not_found");
        assert!(host.database.rows("select from app.audits").await.is_empty());
    })
    .await;
}

/// A message that was edited very often shows its newest changes; another request gets the others.
#[tokio::test]
async fn many_versions_of_a_message_come_in_pages() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana"]).await;
        let path = format!("/api/v1/conversations/{room}/messages");
        let sent = host.rest("ana").post(&path, json!({"content": "now"})).await.expect(201)["message"].clone();
        let id = sent["id"].as_str().expect("an id");
        host.database
            .run(&format!(
                "insert into app.message_changes (id, conversation_id, change, message_id, seq, kind, by_user, at, original_content)
                 select app.uuid_at(now()), '{room}', n, '{id}', 2, 'edit', 'ana', now(), n || repeat('x', 1900)
                 from generate_series(1, 200) as n"
            ))
            .await;
        host.database.run(&format!("update app.messages set change = 200 where id = '{id}'")).await;
        let auditor = with_role(host, "aud", "auditor");
        let (mut before, mut seen) = (u64::MAX >> 1, Vec::new());
        while before > 1 {
            let query = format!("reason=x&after_seq=1&before_change={before}");
            let page = auditor.get(&format!("/api/v1/admin/conversations/{room}/messages?{query}")).await.expect(200);
            let changes = page["messages"][0]["changes"].as_array().expect("changes").clone();
            let omitted = page["messages"][0]["changes_omitted"].as_u64().expect("a count");
            before = changes[0]["change"].as_u64().expect("a number");
            assert_eq!(omitted, before - 1);
            assert!(page.to_string().len() < 400_000);
            seen.extend(changes.iter().map(|change| change["change"].as_u64().unwrap_or(0)));
        }
        seen.sort_unstable();
        assert_eq!(seen, (1..=200).collect::<Vec<_>>());
    })
    .await;
}
