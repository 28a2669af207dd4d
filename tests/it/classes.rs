//! Classes: codes, members and their roles, the conversation of each, archives and deletion.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;

use crate::participants::admitted;

const CLASSES: &str = "/api/v1/classes";
const CONVERSATIONS: &str = "/api/v1/conversations";

/// Makes a class. Returns its id and that of its conversation.
async fn class(host: &Host, teacher: &str, code: &str) -> (String, String) {
    let made = host.rest(teacher).post(CLASSES, json!({"name": "Algebra", "code": code})).await.expect(201);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    (text(&made["class"]["id"]), text(&made["class"]["conversation_id"]))
}

async fn add(host: &Host, teacher: &str, class: &str, user: &str, role: &str) {
    let body = json!({"user_id": user, "role": role});
    let added = host.rest(teacher).post(&format!("{CLASSES}/{class}/members"), body).await.expect(201);
    assert_eq!((&added["member"]["user_id"], &added["member"]["role"]), (&json!(user), &json!(role)));
    assert!(added["member"]["joined_at"].is_string());
}

async fn roles(host: &Host, asker: &str, path: &str, list: &str) -> BTreeMap<String, String> {
    let answer = host.rest(asker).get(path).await.expect(200);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let people = answer[list].as_array().expect("a list");
    people.iter().map(|person| (text(&person["user_id"]), text(&person["role"]))).collect()
}

async fn members(host: &Host, asker: &str, class: &str) -> BTreeMap<String, String> {
    roles(host, asker, &format!("{CLASSES}/{class}/members"), "members").await
}

async fn participants(host: &Host, asker: &str, conversation: &str) -> BTreeMap<String, String> {
    roles(host, asker, &format!("{CONVERSATIONS}/{conversation}/participants"), "participants").await
}

fn are(expected: &[(&str, &str)]) -> BTreeMap<String, String> {
    expected.iter().map(|(user, role)| ((*user).to_owned(), (*role).to_owned())).collect()
}

/// Payloads of the events of one type, oldest first.
async fn events(host: &Host, event_type: &str) -> Vec<Value> {
    let connection = host.database.connect().await;
    let statement = format!(
        "select payload::text from switchboard.outbox where event_type = '{event_type}' order by position"
    );
    let rows = connection.rows(&statement).await;
    rows.iter().map(|row| serde_json::from_str(row.get(0)).unwrap()).collect()
}

#[tokio::test]
async fn a_class_comes_with_its_conversation() {
    Host::test(Options::default(), async |host| {
        let body = json!({"name": "Đại số", "code": "CS101-2025", "description": "từ đầu"});
        let made = host.rest("tea").post(CLASSES, body).await.expect(201)["class"].clone();
        for (field, expected) in [
            ("name", json!("Đại số")),
            ("code", json!("CS101-2025")),
            ("description", json!("từ đầu")),
            ("archived", json!(false)),
            ("my_role", json!("teacher")),
        ] {
            assert_eq!(made[field], expected, "{field}");
        }
        assert!(made["created_at"].is_string());
        let (id, room) = (made["id"].as_str().unwrap(), made["conversation_id"].as_str().unwrap());
        let conversation = host.rest("tea").get(&format!("{CONVERSATIONS}/{room}")).await.expect(200);
        let conversation = &conversation["conversation"];
        assert_eq!(
            (&conversation["type"], &conversation["name"], &conversation["my_role"]),
            (&json!("class"), &json!("Đại số"), &json!("owner"))
        );
        assert_eq!(host.rest("tea").get(&format!("{CLASSES}/{id}")).await.expect(200)["class"], made);
        let mine = host.rest("tea").get(CLASSES).await.expect(200);
        assert_eq!(mine["classes"], json!([made]));
        // For others it does not exist.
        assert_eq!(host.rest("eve").get(CLASSES).await.expect(200)["classes"], json!([]));
        for path in
            [format!("{CLASSES}/{id}"), format!("{CLASSES}/{id}/members"), format!("{CLASSES}/nonsense")]
        {
            host.rest("eve").get(&path).await.expect_problem(404, "not_found");
        }
        host.rest("eve")
            .put(&format!("{CLASSES}/{id}"), json!({"name": "x"}))
            .await
            .expect_problem(404, "not_found");
        host.rest("eve").delete(&format!("{CLASSES}/{id}")).await.expect_problem(404, "not_found");
        assert_eq!(events(host, "class.created").await[0]["class"]["code"], "CS101-2025");
    })
    .await;
}

#[tokio::test]
async fn members_are_participants_with_the_matching_role() {
    Host::test(Options::default(), async |host| {
        let (id, room) = class(host, "tea", "A1").await;
        let mut stu = host.client("stu").await;
        for (user, role) in [("tom", "teacher"), ("tia", "ta"), ("stu", "student"), ("obs", "observer")] {
            add(host, "tea", &id, user, role).await;
        }
        assert_eq!(
            members(host, "stu", &id).await,
            are(&[
                ("tea", "teacher"),
                ("tom", "teacher"),
                ("tia", "ta"),
                ("stu", "student"),
                ("obs", "observer")
            ])
        );
        assert_eq!(
            participants(host, "stu", &room).await,
            are(&[
                ("tea", "owner"),
                ("tom", "admin"),
                ("tia", "admin"),
                ("stu", "member"),
                ("obs", "observer")
            ])
        );
        let joined = stu.expect("member.joined").await;
        assert_eq!(joined, json!({"conversation_id": room, "user_id": "stu", "role": "member", "by": "tea"}));
        let pushed = events(host, "class.member.added").await;
        assert_eq!(pushed.len(), 4);
        let about = pushed.iter().find(|event| event["user_id"] == "stu").unwrap();
        assert_eq!(
            (&about["role"], &about["by"], &about["class"]["id"], &about["class"]["conversation_id"]),
            (&json!("student"), &json!("tea"), &json!(id), &json!(room))
        );
        // Participants change through the class only.
        let there = format!("{CONVERSATIONS}/{room}");
        let tea = host.rest("tea");
        tea.post(&format!("{there}/participants"), json!({"user_id": "x"}))
            .await
            .expect_problem(409, "managed_by_class");
        tea.delete(&format!("{there}/participants/stu")).await.expect_problem(409, "managed_by_class");
        let body = json!({"role": "admin"});
        tea.patch(&format!("{there}/participants/stu"), body).await.expect_problem(409, "managed_by_class");
        host.rest("stu").delete(&there).await.expect_problem(409, "managed_by_class");
        tea.patch(&there, json!({"name": "other"})).await.expect_problem(409, "managed_by_class");
        // But each participant sets their own mute.
        let body = json!({"notifications": "none"});
        host.rest("stu").patch(&format!("{there}/participants/stu"), body).await.expect(200);

        // Roles change, and so do the roles of participants.
        let member = |user: &str| format!("{CLASSES}/{id}/members/{user}");
        for (user, role) in [("stu", "ta"), ("tia", "student"), ("obs", "teacher"), ("tom", "observer")] {
            let turned = tea.patch(&member(user), json!({"role": role})).await.expect(200);
            assert_eq!(turned["member"]["role"], role);
        }
        assert_eq!(
            participants(host, "stu", &room).await,
            are(&[
                ("tea", "owner"),
                ("tom", "observer"),
                ("tia", "member"),
                ("stu", "admin"),
                ("obs", "admin")
            ])
        );
        // Only teachers manage.
        for asker in ["tia", "stu", "tom"] {
            let body = json!({"user_id": "x", "role": "student"});
            host.rest(asker)
                .post(&format!("{CLASSES}/{id}/members"), body)
                .await
                .expect_problem(403, "forbidden");
            host.rest(asker)
                .patch(&member("stu"), json!({"role": "ta"}))
                .await
                .expect_problem(403, "forbidden");
            host.rest(asker).delete(&member("obs")).await.expect_problem(403, "forbidden");
            host.rest(asker)
                .put(&format!("{CLASSES}/{id}"), json!({"name": "x"}))
                .await
                .expect_problem(403, "forbidden");
            host.rest(asker).delete(&format!("{CLASSES}/{id}")).await.expect_problem(403, "forbidden");
        }
        tea.delete(&member("nobody")).await.expect_problem(404, "not_found");
        tea.patch(&member("nobody"), json!({"role": "ta"})).await.expect_problem(404, "not_found");
        // A user who is already there keeps their role.
        let body = json!({"user_id": "tia", "role": "teacher"});
        let there = tea.post(&format!("{CLASSES}/{id}/members"), body).await.expect(200);
        assert_eq!(there["member"]["role"], "student");
    })
    .await;
}

#[tokio::test]
async fn a_member_joins_by_code_and_can_return() {
    Host::test(Options::default(), async |host| {
        let (id, room) = class(host, "tea", "Toán 1/2").await;
        let body = json!({"code": "Toa\u{301}n 1/2"});
        let joined = host.rest("stu").post(&format!("{CLASSES}/join"), body.clone()).await.expect(200);
        assert_eq!((&joined["class"]["id"], &joined["conversation_id"]), (&json!(id), &json!(room)));
        assert_eq!(joined["class"]["my_role"], "student");
        // The alias, and a repeated request.
        let alias = format!("{CLASSES}/join/To%C3%A1n%201%2F2");
        for user in ["bob", "stu", "bob"] {
            let joined = host.rest(user).get(&alias).await.expect(200);
            assert_eq!(joined["conversation_id"], *room);
        }
        let history = host.rest("bob").get(&format!("{CONVERSATIONS}/{room}/messages")).await.expect(200);
        let types: Vec<_> =
            history["messages"].as_array().unwrap().iter().map(|m| m["type"].clone()).collect();
        assert_eq!(types, ["system", "join", "join"]);

        // Leaving, being removed and returning, several times.
        for round in 0..3 {
            let member = format!("{CLASSES}/{id}/members/stu");
            let asker = if round % 2 == 0 { "stu" } else { "tea" };
            host.rest(asker).delete(&member).await.expect(204);
            host.rest("stu").get(&format!("{CLASSES}/{id}")).await.expect_problem(404, "not_found");
            host.rest("stu")
                .get(&format!("{CONVERSATIONS}/{room}/messages"))
                .await
                .expect_problem(404, "not_found");
            host.rest("stu").post(&format!("{CLASSES}/join"), body.clone()).await.expect(200);
        }
        let removed = events(host, "class.member.removed").await;
        assert_eq!(removed.len(), 3);
        assert_eq!((&removed[1]["by"], &removed[1]["role"]), (&json!("tea"), &json!("student")));

        for bad in ["nothing", "%00", &"c".repeat(51)] {
            host.rest("eve").get(&format!("{CLASSES}/join/{bad}")).await.expect_problem(404, "not_found");
        }
        host.rest("eve")
            .post(&format!("{CLASSES}/join"), json!({"code": "nothing"}))
            .await
            .expect_problem(404, "not_found");
        for code in [json!(null), json!(""), json!(7), json!("c".repeat(51)), json!("a\u{0}")] {
            host.rest("eve")
                .post(&format!("{CLASSES}/join"), json!({"code": code}))
                .await
                .expect_invalid("code");
        }
    })
    .await;
}

#[tokio::test]
async fn a_code_belongs_to_one_class_until_its_deletion() {
    Host::test(Options::default(), async |host| {
        let (first, room) = class(host, "tea", "A1").await;
        let body = json!({"name": "Another", "code": "A1"});
        let problem = host.rest("tom").post(CLASSES, body.clone()).await.expect_problem(409, "conflict");
        assert_eq!(problem["field"], "code");
        // The refused request left nothing behind.
        assert_eq!(host.rest("tom").get(CONVERSATIONS).await.expect(200)["conversations"], json!([]));
        let (other, _) = class(host, "tom", "B1").await;
        let path = format!("{CLASSES}/{other}");
        host.rest("tom").put(&path, json!({"code": "A1"})).await.expect_problem(409, "conflict");

        add(host, "tea", &first, "stu", "student").await;
        let mut stu = host.client("stu").await;
        stu.enter(&room).await;
        host.rest("tea").delete(&format!("{CLASSES}/{first}")).await.expect(204);
        let left = stu.expect("member.left").await;
        assert_eq!((&left["conversation_id"], &left["user_id"]), (&json!(room), &json!("stu")));
        for user in ["tea", "stu"] {
            let rest = host.rest(user);
            rest.get(&format!("{CLASSES}/{first}")).await.expect_problem(404, "not_found");
            rest.get(&format!("{CONVERSATIONS}/{room}")).await.expect_problem(404, "not_found");
            rest.delete(&format!("{CLASSES}/{first}")).await.expect_problem(404, "not_found");
            let body = json!({"content": "hello"});
            rest.post(&format!("{CONVERSATIONS}/{room}/messages"), body)
                .await
                .expect_problem(404, "not_found");
            assert_eq!(rest.get(CLASSES).await.expect(200)["classes"], json!([]));
            until("the list to lack it", async || {
                (rest.get(CONVERSATIONS).await.expect(200)["conversations"] == json!([])).then_some(())
            })
            .await;
        }
        host.rest("tom").post(CLASSES, body).await.expect(201);
        host.rest("stu").post(&format!("{CLASSES}/join"), json!({"code": "A1"})).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn an_archived_class_can_be_read() {
    Host::test(Options::default(), async |host| {
        let (id, room) = class(host, "tea", "A1").await;
        add(host, "tea", &id, "stu", "student").await;
        let (path, tea) = (format!("{CLASSES}/{id}"), host.rest("tea"));
        let messages = format!("{CONVERSATIONS}/{room}/messages");
        let kept = json!({"content": "kept", "client_msg_id": "k"});
        host.rest("stu").post(&messages, kept.clone()).await.expect(201);
        let archived = tea.put(&path, json!({"archived": true})).await.expect(200);
        assert_eq!(archived["class"]["archived"], true);
        let members_path = format!("{path}/members");
        let body = json!({"user_id": "x", "role": "student"});
        tea.post(&members_path, body).await.expect_problem(409, "archived");
        tea.patch(&format!("{members_path}/stu"), json!({"role": "ta"}))
            .await
            .expect_problem(409, "archived");
        tea.delete(&format!("{members_path}/stu")).await.expect_problem(409, "archived");
        host.rest("stu").delete(&format!("{members_path}/stu")).await.expect_problem(409, "archived");
        tea.put(&path, json!({"name": "x"})).await.expect_problem(409, "archived");
        host.rest("new")
            .post(&format!("{CLASSES}/join"), json!({"code": "A1"}))
            .await
            .expect_problem(409, "archived");
        let body = json!({"content": "hello"});
        host.rest("stu").post(&messages, body.clone()).await.expect_problem(409, "archived");
        // Messages from before are stored, and a retry gets them.
        assert_eq!(host.rest("stu").post(&messages, kept).await.expect(200)["duplicate"], true);
        // A class may also begin archived.
        let made =
            tea.post(CLASSES, json!({"name": "Old", "code": "A2", "archived": true})).await.expect(201);
        assert_eq!(made["class"]["archived"], true);
        let of_old =
            format!("{CONVERSATIONS}/{}/messages", made["class"]["conversation_id"].as_str().unwrap());
        tea.post(&of_old, body.clone()).await.expect_problem(409, "archived");
        let changed = json!({"settings": {"a": 1}});
        tea.patch(&format!("{CONVERSATIONS}/{room}"), changed).await.expect_problem(409, "archived");
        // Reading still works.
        host.rest("stu").get(&messages).await.expect(200);
        assert_eq!(members(host, "stu", &id).await.len(), 2);
        tea.put(&path, json!({"archived": true})).await.expect(200);
        // Back again.
        let opened = tea.put(&path, json!({"archived": false, "name": "Algebra II"})).await.expect(200);
        assert_eq!(
            (&opened["class"]["archived"], &opened["class"]["name"]),
            (&json!(false), &json!("Algebra II"))
        );
        host.rest("stu").post(&messages, body).await.expect(201);
        let conversation = tea.get(&format!("{CONVERSATIONS}/{room}")).await.expect(200);
        assert_eq!(conversation["conversation"]["name"], "Algebra II");
    })
    .await;
}

#[tokio::test]
async fn the_last_teacher_stays_and_the_longest_serving_teacher_inherits() {
    Host::test(Options::default(), async |host| {
        let (id, room) = class(host, "tea", "A1").await;
        let member = |user: &str| format!("{CLASSES}/{id}/members/{user}");
        add(host, "tea", &id, "stu", "student").await;
        host.rest("tea").delete(&member("tea")).await.expect_problem(409, "conflict");
        host.rest("tea").patch(&member("tea"), json!({"role": "ta"})).await.expect_problem(409, "conflict");
        for user in ["tom", "tim"] {
            add(host, "tea", &id, user, "teacher").await;
        }
        host.rest("tea").delete(&member("tea")).await.expect(204);
        assert_eq!(
            participants(host, "stu", &room).await,
            are(&[("tom", "owner"), ("tim", "admin"), ("stu", "member")])
        );
        // A change of the owner's role also hands over.
        host.rest("tom").patch(&member("tom"), json!({"role": "student"})).await.expect(200);
        assert_eq!(
            participants(host, "stu", &room).await,
            are(&[("tom", "member"), ("tim", "owner"), ("stu", "member")])
        );
        // A user who returns is the last in the order.
        add(host, "tim", &id, "tea", "teacher").await;
        host.rest("tea").delete(&member("tim")).await.expect(204);
        assert_eq!(participants(host, "stu", &room).await["tea"], "owner");
    })
    .await;
}

/// Teachers leave and change their roles, and students join and leave, all at once. There is always a teacher
/// and one owner, and each member is a participant of the conversation with the matching role.
#[tokio::test]
async fn concurrent_joins_and_leaves_keep_class_and_conversation_equal() {
    Host::test(Options::default(), async |host| {
        let (id, room) = class(host, "tea", "A1").await;
        let teachers = ["tea", "t1", "t2", "t3"];
        for teacher in &teachers[1..] {
            add(host, "tea", &id, teacher, "teacher").await;
        }
        let mut tries = Vec::new();
        for teacher in teachers {
            let (rest, path) = (host.rest(teacher), format!("{CLASSES}/{id}/members/{teacher}"));
            tries.push(tokio::spawn(async move { vec![rest.delete(&path).await] }));
        }
        for n in 0..20 {
            let (rest, own) = (host.rest(&format!("s{n}")), format!("{CLASSES}/{id}/members/s{n}"));
            tries.push(tokio::spawn(async move {
                let join = format!("{CLASSES}/join");
                let mut answers = vec![rest.post(&join, json!({"code": "A1"})).await];
                if n % 2 == 0 {
                    answers.push(rest.delete(&own).await);
                }
                if n % 4 == 0 {
                    answers.push(rest.post(&join, json!({"code": "A1"})).await);
                }
                answers
            }));
        }
        let mut stayed = 0;
        for answers in tries {
            for answer in answers.await.unwrap() {
                assert!(matches!(answer.status, 200 | 204 | 409), "{answer}");
                stayed += usize::from(answer.status == 409);
            }
        }
        assert_eq!(stayed, 1, "one teacher could not go");
        let members = members(host, "s1", &id).await;
        let seats = participants(host, "s1", &room).await;
        assert_eq!(members.len(), 16);
        assert_eq!(members.keys().collect::<Vec<_>>(), seats.keys().collect::<Vec<_>>());
        for (user, role) in &members {
            let expected = if role == "teacher" { "owner" } else { "member" };
            assert_eq!(seats[user], expected, "{user}");
        }
        // The seqs of all these events have no gaps.
        let history =
            host.rest("s1").get(&format!("{CONVERSATIONS}/{room}/messages?limit=100")).await.expect(200);
        let seqs: Vec<_> =
            history["messages"].as_array().unwrap().iter().map(|m| m["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn a_class_has_the_capacity_of_its_conversation() {
    Host::test(Options::default(), async |host| {
        let (id, room) = class(host, "tea", "A1").await;
        host.rest("tea").patch(&format!("{CONVERSATIONS}/{room}"), json!({"capacity": 2})).await.expect(200);
        let joins = (0..20).map(|n| {
            let rest = host.rest(&format!("s{n}"));
            tokio::spawn(async move { rest.post(&format!("{CLASSES}/join"), json!({"code": "A1"})).await })
        });
        let joined = admitted(joins.collect()).await;
        assert_eq!((joined, members(host, "tea", &id).await.len()), (1, 2));
    })
    .await;
}

#[tokio::test]
async fn an_invalid_class_or_member_names_its_field() {
    Host::test(Options::default(), async |host| {
        let (id, _) = class(host, "tea", "A1").await;
        let tea = host.rest("tea");
        for (field, value) in [
            ("name", json!(null)),
            ("name", json!("")),
            ("name", json!("n".repeat(256))),
            ("name", json!("a\u{0}")),
            ("name", json!(7)),
            ("code", json!(null)),
            ("code", json!("")),
            ("code", json!("c".repeat(51))),
            ("code", json!({})),
            ("description", json!("d".repeat(2001))),
            ("description", json!([])),
        ] {
            let mut body = json!({"name": "x", "code": "c"});
            body[field] = value.clone();
            tea.post(CLASSES, body).await.expect_invalid(field);
            if field != "description" || !value.is_null() {
                tea.put(&format!("{CLASSES}/{id}"), json!({ field: value })).await.expect_invalid(field);
            }
        }
        tea.put(&format!("{CLASSES}/{id}"), json!({"archived": 1})).await.expect_invalid("archived");
        for (body, field) in [
            (json!({"role": "student"}), "user_id"),
            (json!({"user_id": "", "role": "student"}), "user_id"),
            (json!({"user_id": "u".repeat(65), "role": "student"}), "user_id"),
            (json!({"user_id": 7, "role": "student"}), "user_id"),
            (json!({"user_id": "x"}), "role"),
            (json!({"user_id": "x", "role": "owner"}), "role"),
            (json!({"user_id": "x", "role": 7}), "role"),
        ] {
            tea.post(&format!("{CLASSES}/{id}/members"), body).await.expect_invalid(field);
        }
        for body in [json!({}), json!({"role": "king"}), json!({"role": null})] {
            tea.patch(&format!("{CLASSES}/{id}/members/tea"), body).await.expect_invalid("role");
        }
        for query in ["limit=0", "limit=1001", "cursor=%00"] {
            let field = query.split('=').next().unwrap();
            tea.get(&format!("{CLASSES}/{id}/members?{query}")).await.expect_invalid(field);
        }
        tea.get(&format!("{CLASSES}?cursor=nonsense")).await.expect_invalid("cursor");
        tea.get(&format!("{CLASSES}?limit=101")).await.expect_invalid("limit");
        // Read the list page by page.
        for n in 0..3 {
            class(host, "tea", &format!("page {n}")).await;
        }
        let first = tea.get(&format!("{CLASSES}?limit=3")).await.expect(200);
        assert_eq!(first["classes"][0]["code"], "page 2");
        let next = first["next_cursor"].as_str().unwrap();
        let second = tea.get(&format!("{CLASSES}?limit=3&cursor={next}")).await.expect(200);
        assert_eq!((&second["classes"][0]["code"], &second["next_cursor"]), (&json!("A1"), &Value::Null));
    })
    .await;
}
