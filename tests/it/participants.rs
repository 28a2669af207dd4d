//! Participants of a conversation: joining, leaving, roles, and the pushes about them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::rest::Answer;
use tokio::task::JoinHandle;

const CONVERSATIONS: &str = "/api/v1/conversations";

fn people(room: &str) -> String {
    format!("{CONVERSATIONS}/{room}/participants")
}

fn person(room: &str, user: &str) -> String {
    format!("{CONVERSATIONS}/{room}/participants/{user}")
}

/// A group of ana, with an admin, a member and an observer.
async fn four_roles(host: &Host) -> String {
    let room = host.group("four", &["ana"]).await;
    for (user, role) in [("adm", "admin"), ("mem", "member"), ("obs", "observer")] {
        let body = json!({"user_id": user, "role": role});
        let added = host.rest("ana").post(&people(&room), body).await.expect(201);
        assert_eq!(
            (&added["participant"]["user_id"], &added["participant"]["role"]),
            (&json!(user), &json!(role))
        );
        assert_eq!(added["participant"]["notifications"], "all");
    }
    room
}

async fn roles(host: &Host, asker: &str, room: &str) -> BTreeMap<String, String> {
    let list = host.rest(asker).get(&people(room)).await.expect(200);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let people = list["participants"].as_array().expect("a list");
    people.iter().map(|person| (text(&person["user_id"]), text(&person["role"]))).collect()
}

fn owners(roles: &BTreeMap<String, String>) -> Vec<&str> {
    roles.iter().filter(|(_, role)| *role == "owner").map(|(user, _)| user.as_str()).collect()
}

async fn channel(host: &Host, owner: &str, more: Value) -> String {
    let mut body = json!({"type": "channel", "name": "news", "visibility": "public", "members": []});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = host.rest(owner).post(CONVERSATIONS, body).await.expect(201);
    made["conversation"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_role_adds_removes_and_changes_only_what_it_may() {
    Host::test(Options::default(), async |host| {
        let room = four_roles(host).await;
        // Adding: the caller, the role, and the result.
        for (asker, role, status) in [
            ("obs", "member", 403),
            ("mem", "member", 403),
            ("mem", "observer", 403),
            ("adm", "admin", 403),
            ("adm", "member", 201),
            ("ana", "observer", 201),
            ("ana", "admin", 201),
            ("eve", "member", 404),
        ] {
            let newcomer = format!("new-{asker}-{role}");
            let body = json!({"user_id": newcomer, "role": role});
            let answer = host.rest(asker).post(&people(&room), body).await;
            assert_eq!(answer.status, status, "{asker} adds a {role}: {answer}");
        }
        // A user who is already there keeps their role.
        let again = json!({"user_id": "obs", "role": "member"});
        let there = host.rest("adm").post(&people(&room), again).await.expect(200);
        assert_eq!(there["participant"]["role"], "observer");
        // Only the owner changes roles.
        for asker in ["adm", "mem", "obs"] {
            let body = json!({"role": "admin"});
            host.rest(asker).patch(&person(&room, "mem"), body).await.expect_problem(403, "forbidden");
        }
        host.rest("eve")
            .patch(&person(&room, "mem"), json!({"role": "admin"}))
            .await
            .expect_problem(404, "not_found");
        host.rest("ana")
            .patch(&person(&room, "eve"), json!({"role": "admin"}))
            .await
            .expect_problem(404, "not_found");
        let turned =
            host.rest("ana").patch(&person(&room, "mem"), json!({"role": "observer"})).await.expect(200);
        assert_eq!(turned["participant"]["role"], "observer");
        host.rest("ana").patch(&person(&room, "mem"), json!({"role": "member"})).await.expect(200);
        // Removing participants.
        for (asker, subject, status) in [
            ("obs", "mem", 403),
            ("mem", "obs", 403),
            ("adm", "ana", 403),
            ("adm", "new-ana-admin", 403),
            ("eve", "mem", 404),
            ("adm", "eve", 404),
            ("adm", "mem", 204),
            ("ana", "new-ana-admin", 204),
            ("ana", "obs", 204),
        ] {
            let answer = host.rest(asker).delete(&person(&room, subject)).await;
            assert_eq!(answer.status, status, "{asker} removes {subject}: {answer}");
        }
        let left = roles(host, "ana", &room).await;
        let expected = [
            ("adm", "admin"),
            ("ana", "owner"),
            ("new-adm-member", "member"),
            ("new-ana-observer", "observer"),
        ];
        assert_eq!(left, expected.map(|(user, role)| (user.to_owned(), role.to_owned())).into());
    })
    .await;
}

#[tokio::test]
async fn handing_over_makes_the_old_owner_an_admin() {
    Host::test(Options::default(), async |host| {
        let room = four_roles(host).await;
        let ana = host.rest("ana");
        ana.delete(&format!("{CONVERSATIONS}/{room}")).await.expect_problem(409, "owner_must_hand_over");
        ana.delete(&person(&room, "ana")).await.expect_problem(409, "owner_must_hand_over");
        ana.patch(&person(&room, "ana"), json!({"role": "member"}))
            .await
            .expect_problem(409, "owner_must_hand_over");
        let mut watcher = host.client("mem").await;
        watcher.enter(&room).await;
        let handed = ana.patch(&person(&room, "obs"), json!({"role": "owner"})).await.expect(200);
        assert_eq!(handed["participant"]["role"], "owner");
        let roles = roles(host, "ana", &room).await;
        assert_eq!((roles["ana"].as_str(), owners(&roles)), ("admin", vec!["obs"]));
        let push = watcher.expect("conversation.updated").await;
        assert_eq!(push["conversation_id"], *room);
        assert_eq!(
            (&push["by"], &push["participants"]),
            (
                &json!("ana"),
                &json!([{"user_id": "ana", "role": "admin"}, {"user_id": "obs", "role": "owner"}])
            )
        );
        // She is not the owner any more, and may leave.
        ana.patch(&person(&room, "mem"), json!({"role": "admin"})).await.expect_problem(403, "forbidden");
        ana.delete(&format!("{CONVERSATIONS}/{room}")).await.expect(204);
    })
    .await;
}

#[tokio::test]
async fn handing_over_twice_at_once_leaves_one_owner() {
    Host::test(Options::default(), async |host| {
        for round in 0..5 {
            let heirs = ["bo", "cy", "di", "ed"];
            let room = host.group(&format!("round {round}"), &["ana", "bo", "cy", "di", "ed"]).await;
            let mut tries = Vec::new();
            for heir in heirs {
                let (ana, path) = (host.rest("ana"), person(&room, heir));
                tries.push(tokio::spawn(async move { ana.patch(&path, json!({"role": "owner"})).await }));
                // At the same time the owner tries to leave.
                let (ana, path) = (host.rest("ana"), format!("{CONVERSATIONS}/{room}"));
                tries.push(tokio::spawn(async move { ana.delete(&path).await }));
            }
            let mut handed = 0;
            for answer in tries {
                let answer = answer.await.unwrap();
                assert!(matches!(answer.status, 200 | 204 | 403 | 404 | 409), "{answer}");
                handed += usize::from(answer.status == 200);
            }
            assert_eq!(handed, 1);
            let roles = roles(host, "bo", &room).await;
            assert_eq!(owners(&roles).len(), 1, "{roles:?}");
        }
    })
    .await;
}

/// Concurrent hand-over to and removal of the new owner: in either order there is an owner, who is a
/// participant.
#[tokio::test]
async fn a_concurrent_handover_and_removal_leave_one_owner() {
    Host::test(Options::default(), async |host| {
        for round in 0..8 {
            let room = host.group(&format!("round {round}"), &["ana", "bo", "cy"]).await;
            let (ana, path) = (host.rest("ana"), person(&room, "bo"));
            let handing = tokio::spawn(async move { ana.patch(&path, json!({"role": "owner"})).await });
            let (bo, path) = (host.rest("bo"), format!("{CONVERSATIONS}/{room}"));
            let leaving = tokio::spawn(async move { bo.delete(&path).await });
            let (handing, leaving) = (handing.await.unwrap(), leaving.await.unwrap());
            let roles = roles(host, "cy", &room).await;
            match (handing.status, leaving.status) {
                (200, 409) => assert_eq!(owners(&roles), ["bo"]),
                (404, 204) => assert_eq!(owners(&roles), ["ana"]),
                _ => panic!("{handing}, {leaving}"),
            }
        }
    })
    .await;
}

/// The number of successful joins; the others got `conversation_full`.
pub(crate) async fn admitted(joins: Vec<JoinHandle<Answer>>) -> usize {
    let mut admitted = 0;
    for answer in joins {
        let answer = answer.await.unwrap();
        if answer.status == 200 {
            admitted += 1;
        } else {
            answer.expect_problem(409, "conversation_full");
        }
    }
    admitted
}

#[tokio::test]
async fn one_of_fifty_concurrent_joins_gets_the_last_place() {
    Host::test(Options::default(), async |host| {
        let room = channel(host, "ana", json!({"capacity": 2})).await;
        let joins = (0..50).map(|n| {
            let (rest, path) = (host.rest(&format!("u{n}")), format!("{CONVERSATIONS}/{room}/join"));
            tokio::spawn(async move { rest.post(&path, json!({})).await })
        });
        let joined = admitted(joins.collect()).await;
        assert_eq!((joined, roles(host, "ana", &room).await.len()), (1, 2));
        // A smaller capacity removes nobody, a larger one admits the next user.
        let path = format!("{CONVERSATIONS}/{room}");
        host.rest("ana").patch(&path, json!({"capacity": 1})).await.expect_problem(409, "conversation_full");
        host.rest("ana").patch(&path, json!({"capacity": 3})).await.expect(200);
        host.rest("late").post(&format!("{path}/join"), json!({})).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn removal_ends_the_subscription_before_the_next_message() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        // A device of his that looks at no conversation.
        let mut phone = host.client("bo").await;
        host.rest("ana").delete(&person(&room, "bo")).await.expect(204);
        ana.send("now without him").await.expect_sent();
        for connection in [&mut bo, &mut phone] {
            let left = connection.expect("member.left").await;
            assert_eq!(
                left,
                json!({"conversation_id": room, "user_id": "bo", "role": "member", "by": "ana"})
            );
            connection.expect_silence().await;
        }
        ana.expect_where("member.left", |push| push["user_id"] == "bo").await;
        let leave = ana.expect_where("message.new", |push| push["message"]["type"] == "leave").await;
        assert_eq!(
            (&leave["message"]["sender_id"], &leave["message"]["metadata"]["user_id"]),
            (&json!("ana"), &json!("bo"))
        );
        // For bo the conversation does not exist any more.
        let rest = host.rest("bo");
        rest.get(&format!("{CONVERSATIONS}/{room}")).await.expect_problem(404, "not_found");
        rest.get(&format!("{CONVERSATIONS}/{room}/messages")).await.expect_problem(404, "not_found");
        rest.get(&people(&room)).await.expect_problem(404, "not_found");
        rest.delete(&format!("{CONVERSATIONS}/{room}")).await.expect_problem(404, "not_found");
        rest.post(&format!("{CONVERSATIONS}/{room}/join"), json!({})).await.expect_problem(404, "not_found");
        let refused = bo.request("subscribe", json!({"conversation_ids": [room]})).await.expect("subscribed");
        assert_eq!(refused["refused"][0]["code"], "not_found");

        // After the return: all earlier messages are visible, and none is unread.
        host.rest("ana").post(&people(&room), json!({"user_id": "bo"})).await.expect(201);
        let joined = phone.expect("member.joined").await;
        assert_eq!(joined, json!({"conversation_id": room, "user_id": "bo", "role": "member", "by": "ana"}));
        let detail = rest.get(&format!("{CONVERSATIONS}/{room}")).await.expect(200);
        assert_eq!(detail["conversation"]["last_read_seq"], 4);
        let history = rest.get(&format!("{CONVERSATIONS}/{room}/messages")).await.expect(200);
        let types: Vec<_> =
            history["messages"].as_array().unwrap().iter().map(|m| m["type"].clone()).collect();
        assert_eq!(types, ["system", "leave", "text", "join"]);
        bo.enter(&room).await;
        ana.send("welcome back").await.expect_sent();
        bo.expect_message("welcome back").await;
    })
    .await;
}

#[tokio::test]
async fn the_user_who_leaves_is_the_sender_of_the_message() {
    Host::test(Options::default(), async |host| {
        let (mut ana, bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        drop(bo);
        host.rest("bo").delete(&format!("{CONVERSATIONS}/{room}")).await.expect(204);
        let left = ana.expect("member.left").await;
        assert_eq!(left, json!({"conversation_id": room, "user_id": "bo", "role": "member", "by": "bo"}));
        let leave = ana.expect_where("message.new", |push| push["message"]["type"] == "leave").await;
        assert_eq!(
            (&leave["message"]["sender_id"], &leave["message"]["content"]),
            (&json!("bo"), &json!("left"))
        );
        until("the list to lack it", async || {
            (host.rest("bo").get(CONVERSATIONS).await.expect(200)["conversations"] == json!([])).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_group_ends_with_its_last_participant_and_a_channel_waits_for_the_next() {
    Host::test(Options::default(), async |host| {
        let ana = host.rest("ana");
        let body = json!({"type": "group", "name": "alone", "members": [], "slug": "my-place"});
        ana.post(CONVERSATIONS, body.clone()).await.expect(201);
        ana.delete(&format!("{CONVERSATIONS}/my-place")).await.expect(204);
        ana.get(&format!("{CONVERSATIONS}/my-place")).await.expect_problem(404, "not_found");
        // The slug is free again.
        ana.post(CONVERSATIONS, body).await.expect(201);

        let room = channel(host, "ana", json!({"slug": "plaza"})).await;
        ana.delete(&person(&room, "ana")).await.expect(204);
        let joined =
            host.rest("bo").post(&format!("{CONVERSATIONS}/plaza/join"), json!({})).await.expect(200);
        assert_eq!(joined["conversation"]["id"], *room);
        assert_eq!(owners(&roles(host, "bo", &room).await), ["bo"]);
        ana.post(&format!("{CONVERSATIONS}/{room}/join"), json!({})).await.expect(200);
        assert_eq!(owners(&roles(host, "bo", &room).await), ["bo"]);
    })
    .await;
}

#[tokio::test]
async fn a_direct_conversation_hides_until_the_next_message() {
    Host::test(Options::default(), async |host| {
        let with_bo = json!({"type": "direct", "members": ["bo"]});
        let made = host.rest("ana").post(CONVERSATIONS, with_bo).await.expect(201);
        let room = made["conversation"]["id"].as_str().unwrap().to_owned();
        let (mut ana, mut bo) = (host.client("ana").await, host.client("bo").await);
        ana.enter(&room).await;
        bo.enter(&room).await;
        let path = format!("{CONVERSATIONS}/{room}");
        let listed = async |user: &str| {
            let list = host.rest(user).get(CONVERSATIONS).await.expect(200);
            list["conversations"].as_array().unwrap().iter().any(|listed| listed["id"] == *room)
        };
        until("both to see it", async || (listed("ana").await && listed("bo").await).then_some(())).await;
        host.rest("bo").delete(&path).await.expect(204);
        until("it to be out of his sight", async || (!listed("bo").await).then_some(())).await;
        assert!(listed("ana").await);
        let left = bo.expect("member.left").await;
        assert_eq!(left["user_id"], "bo");
        // She gets no push, and her next message restores the conversation.
        ana.expect_silence().await;
        ana.send("are you there").await.expect_sent();
        bo.expect_message("are you there").await;
        until("it to be back", async || listed("bo").await.then_some(())).await;
        // A request of the other user for it restores it too.
        host.rest("bo").delete(&path).await.expect(204);
        until("it to be out of his sight again", async || (!listed("bo").await).then_some(())).await;
        let again = json!({"type": "direct", "members": ["ana"]});
        let same = host.rest("bo").post(CONVERSATIONS, again).await.expect(200);
        assert_eq!(same["conversation"]["id"], *room);
        until("it to be shown", async || listed("bo").await.then_some(())).await;

        // A direct conversation always has these two people.
        let body = json!({"user_id": "cy"});
        host.rest("ana").post(&people(&room), body).await.expect_problem(403, "forbidden");
        host.rest("ana").delete(&person(&room, "bo")).await.expect_problem(403, "forbidden");
        let body = json!({"role": "owner"});
        host.rest("ana").patch(&person(&room, "bo"), body).await.expect_problem(403, "forbidden");
        host.rest("ana").patch(&path, json!({"name": "us"})).await.expect_problem(403, "forbidden");
        host.rest("cy").get(&path).await.expect_problem(404, "not_found");
    })
    .await;
}

#[tokio::test]
async fn a_user_can_mute_only_for_themself() {
    Host::test(Options::default(), async |host| {
        let room = four_roles(host).await;
        for (user, notifications) in [("ana", "none"), ("mem", "mentions"), ("obs", "none"), ("obs", "all")] {
            let body = json!({"notifications": notifications});
            let muted = host.rest(user).patch(&person(&room, user), body).await.expect(200);
            assert_eq!(muted["participant"]["notifications"], notifications);
            let detail = host.rest(user).get(&format!("{CONVERSATIONS}/{room}")).await.expect(200);
            assert_eq!(detail["conversation"]["notifications"], notifications);
            until("the list to show it", async || {
                let list = host.rest(user).get(CONVERSATIONS).await.expect(200);
                (list["conversations"][0]["notifications"] == notifications).then_some(())
            })
            .await;
        }
        let body = json!({"notifications": "none"});
        host.rest("ana").patch(&person(&room, "mem"), body).await.expect_problem(403, "forbidden");
        // Both fields in one request, and neither.
        let body = json!({"notifications": "all", "role": "admin"});
        host.rest("ana").patch(&person(&room, "mem"), body).await.expect_problem(403, "forbidden");
        let body = json!({"notifications": "all", "role": "owner"});
        let both = host.rest("ana").patch(&person(&room, "ana"), body).await.expect(200);
        assert_eq!(both["participant"]["notifications"], "all");
        host.rest("mem").patch(&person(&room, "mem"), json!({})).await.expect(200);
        assert_eq!(roles(host, "ana", &room).await["mem"], "member");
    })
    .await;
}

#[tokio::test]
async fn a_user_who_joins_is_only_a_member() {
    Host::test(Options::default(), async |host| {
        let room = channel(host, "ana", json!({})).await;
        for role in ["admin", "observer"] {
            let body = json!({"user_id": "eve", "role": role});
            host.rest("eve").post(&people(&room), body).await.expect_problem(403, "forbidden");
        }
        let body = json!({"user_id": "eve", "role": "owner"});
        host.rest("eve").post(&people(&room), body).await.expect_invalid("role");
        let joined = host.rest("eve").post(&people(&room), json!({"user_id": "eve"})).await.expect(201);
        assert_eq!(joined["participant"]["role"], "member");
        // A member cannot add others either.
        host.rest("eve")
            .post(&people(&room), json!({"user_id": "mal"}))
            .await
            .expect_problem(403, "forbidden");
        let private = channel(host, "ana", json!({"visibility": "private"})).await;
        host.rest("eve")
            .post(&people(&private), json!({"user_id": "eve"}))
            .await
            .expect_problem(404, "not_found");
        host.rest("eve")
            .post(&format!("{CONVERSATIONS}/{private}/join"), json!({}))
            .await
            .expect_problem(404, "not_found");
        host.rest("ana").post(&people(&private), json!({"user_id": "eve"})).await.expect(201);
    })
    .await;
}

#[tokio::test]
async fn participants_come_in_pages() {
    Host::test(Options::default(), async |host| {
        let names: Vec<_> = (0..25).map(|n| format!("m{n:02}")).collect();
        let members: Vec<_> = std::iter::once("ana").chain(names.iter().map(String::as_str)).collect();
        let room = host.group("many", &members).await;
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("{}?limit=10{cursor}", people(&room));
            let page = host.rest("m03").get(&path).await.expect(200);
            seen.extend(page["participants"].as_array().unwrap().iter().map(|p| p["user_id"].clone()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen, members);
        assert_eq!(roles(host, "ana", &room).await.len(), 26);
        for query in ["limit=0", "limit=1001", "limit=x", "cursor=", "cursor=%00", "cursor=m03"] {
            let field = query.split('=').next().unwrap();
            host.rest("ana").get(&format!("{}?{query}", people(&room))).await.expect_invalid(field);
        }
    })
    .await;
}

#[tokio::test]
async fn an_invalid_participant_or_role_names_its_field() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let ana = host.rest("ana");
        for (body, field) in [
            (json!({}), "user_id"),
            (json!({"user_id": null}), "user_id"),
            (json!({"user_id": ""}), "user_id"),
            (json!({"user_id": 7}), "user_id"),
            (json!({"user_id": "u".repeat(65)}), "user_id"),
            (json!({"user_id": "a\u{0}"}), "user_id"),
            (json!({"user_id": "cy", "role": ""}), "role"),
            (json!({"user_id": "cy", "role": "king"}), "role"),
            (json!({"user_id": "cy", "role": ["admin"]}), "role"),
        ] {
            ana.post(&people(&room), body).await.expect_invalid(field);
        }
        for (body, field) in [
            (json!({"role": "king"}), "role"),
            (json!({"role": 7}), "role"),
            (json!({"notifications": "some"}), "notifications"),
            (json!({"notifications": true}), "notifications"),
        ] {
            ana.patch(&person(&room, "ana"), body).await.expect_invalid(field);
        }
        for nobody in ["%00", &"u".repeat(65), "eve"] {
            ana.delete(&person(&room, nobody)).await.expect_problem(404, "not_found");
            ana.patch(&person(&room, nobody), json!({"role": "admin"}))
                .await
                .expect_problem(404, "not_found");
        }
        for nothing in ["nonsense", "%00", "019a9fd9-277b-7fff-bfff-ffffffffffff", "' or 1=1 --"] {
            let nothing = nothing.replace(' ', "%20");
            ana.get(&people(&nothing)).await.expect_problem(404, "not_found");
            ana.delete(&format!("{CONVERSATIONS}/{nothing}")).await.expect_problem(404, "not_found");
            ana.patch(&format!("{CONVERSATIONS}/{nothing}"), json!({"name": "x"}))
                .await
                .expect_problem(404, "not_found");
        }
        // Any valid id may be a member: 64 characters, of any script.
        let odd = "Ünï çøđé ✓";
        ana.post(&people(&room), json!({"user_id": odd})).await.expect(201);
        ana.post(&people(&room), json!({"user_id": "ü".repeat(64)})).await.expect(201);
    })
    .await;
}
