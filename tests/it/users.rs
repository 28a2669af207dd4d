//! The directory: entries of users, their changes, and their visibility.

use serde_json::{Value, json};
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::socket::Handshake;
use switchboard_tests::token::Token;

const ME: &str = "/api/v1/users/me";

fn path(user: &str) -> String {
    format!("/api/v1/users/{user}")
}

#[tokio::test]
async fn a_user_changes_their_entry_and_others_see_it_without_the_email() {
    Host::test(Options::default(), async |host| {
        let ana = host.rest("ana");
        // Before her first connection only she can see her entry.
        assert_eq!(ana.get(ME).await.expect(200)["user"]["id"], "ana");
        host.rest("bo").get(&path("ana")).await.expect_problem(404, "not_found");

        let body = json!({
            "display_name": "Ană", "username": "Ana_1", "avatar_url": "https://x.test/a.png", "email": "Ana@x.test",
        });
        let mine = ana.put(ME, body.clone()).await.expect(200)["user"].clone();
        for (field, value) in body.as_object().unwrap() {
            assert_eq!(mine[field], *value);
        }
        assert_eq!(ana.get(&path("ana")).await.expect(200)["user"], mine);
        let seen = host.rest("bo").get(&path("ana")).await.expect(200)["user"].clone();
        assert_eq!((&seen["display_name"], &seen["username"]), (&json!("Ană"), &json!("Ana_1")));
        assert!(seen.get("email").is_none(), "{seen}");
        // Absent fields keep their values, `null` removes one.
        let mine = ana.put(ME, json!({"avatar_url": null, "unknown": 7})).await.expect(200)["user"].clone();
        assert_eq!((&mine["avatar_url"], &mine["username"]), (&Value::Null, &json!("Ana_1")));
        assert_eq!(ana.put(ME, json!({})).await.expect(200)["user"], mine);
        // A name that the user chose is not overwritten by a token's.
        let token = Token::of("ana").claim("name", json!("Somebody Else")).sign();
        let handshake = switchboard_tests::socket::Handshake::bearer(&token);
        drop(switchboard_tests::client::Client::open(host.address, "ana", &handshake).await);
        assert_eq!(ana.get(ME).await.expect(200)["user"]["display_name"], "Ană");
        // Messages have the name.
        let room = host.group("lobby", &["ana", "bo"]).await;
        let messages = format!("/api/v1/conversations/{room}/messages");
        let sent = ana.post(&messages, json!({"content": "hi"})).await.expect(201);
        assert_eq!(sent["message"]["sender"]["name"], "Ană");
    })
    .await;
}

#[tokio::test]
async fn usernames_are_unique_without_case() {
    Host::test(Options::default(), async |host| {
        host.rest("ana").put(ME, json!({"username": "Ana", "email": "a@x.test"})).await.expect(200);
        for (body, field) in [
            (json!({"username": "ana"}), "username"),
            (json!({"username": "ANA"}), "username"),
            (json!({"email": "A@X.test"}), "email"),
        ] {
            let problem = host.rest("bo").put(ME, body).await.expect_problem(409, "conflict");
            assert_eq!(problem["field"], field);
        }
        host.rest("ana").put(ME, json!({"username": "ANA"})).await.expect(200);
        // After the user gives it up, it is free.
        host.rest("ana").put(ME, json!({"username": null})).await.expect(200);
        host.rest("bo").put(ME, json!({"username": "ana"})).await.expect(200);
        // Ten concurrent requests: one gets it.
        let tries = (0..10).map(|n| {
            let rest = host.rest(&format!("u{n}"));
            tokio::spawn(async move { rest.put(ME, json!({"username": "hot"})).await.status })
        });
        let mut statuses = Vec::new();
        for answer in tries.collect::<Vec<_>>() {
            statuses.push(answer.await.unwrap());
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [[200].as_slice(), &[409; 9]].concat());
    })
    .await;
}

#[tokio::test]
async fn the_directory_is_cached_and_never_outdated() {
    Host::test(Options::default(), async |host| {
        let (ana, bo) = (host.rest("ana"), host.rest("bo"));
        let name = async |rest: &switchboard_tests::rest::Rest| {
            rest.get(&path("ana")).await.expect(200)["user"]["display_name"].clone()
        };
        for n in 0..10 {
            ana.put(ME, json!({"display_name": format!("Ana {n}")})).await.expect(200);
            assert_eq!(
                (name(&ana).await, name(&bo).await),
                (json!(format!("Ana {n}")), json!(format!("Ana {n}")))
            );
        }
        // The answer comes from the cache, not from Postgres.
        let connection = host.database.connect().await;
        connection.run("update app.users set display_name = 'behind its back' where id = 'ana'").await;
        assert_eq!((name(&ana).await, name(&bo).await), (json!("behind its back"), json!("Ana 9")));
        // Without Redis the answer comes from Postgres.
        host.redis.kill();
        assert_eq!(name(&bo).await, "behind its back");
        ana.put(ME, json!({"display_name": "Ana without"})).await.expect(200);
        assert_eq!((name(&ana).await, name(&bo).await), (json!("Ana without"), json!("Ana without")));
        host.redis.start_again().await;
        until("the cache to be used again", async || {
            let before = name(&bo).await;
            connection.run("update app.users set display_name = display_name || '.' where id = 'ana'").await;
            (name(&bo).await == before).then_some(())
        })
        .await;
    })
    .await;
}

/// `/users/me` is the caller, so no user can have this id, nor an id that clients remove from a path.
#[tokio::test]
async fn a_reserved_user_id_cannot_sign_in_or_be_named() {
    Host::test(Options::default(), async |host| {
        let ana = host.rest("ana");
        for name in ["me", ".", ".."] {
            let refused =
                host.rest(name).get("/api/v1/conversations").await.expect_problem(401, "unauthorized");
            assert!(refused["detail"].as_str().unwrap().contains("reserved"), "{refused}");
            let handshake = Handshake::bearer(&Token::of(name).sign());
            assert!(Client::connect(host.address, &handshake).await.is_err(), "{name} signed in");
            let body = json!({"type": "direct", "members": [name]});
            ana.post("/api/v1/conversations", body).await.expect_invalid("members[0]");
            let body = json!({"target": format!("user:{name}"), "type": "x", "payload": {}});
            host.publish(body).await.expect_invalid("target");
        }
        assert_eq!(ana.get(ME).await.expect(200)["user"]["id"], "ana");
        // Similar names are allowed.
        for name in ["Me", "me2", "..."] {
            assert_eq!(host.rest(name).get(ME).await.expect(200)["user"]["id"], name);
        }
    })
    .await;
}

#[tokio::test]
async fn an_invalid_entry_names_its_field() {
    Host::test(Options::default(), async |host| {
        let ana = host.rest("ana");
        for (field, values) in [
            ("display_name", vec![json!(""), json!(" "), json!("x".repeat(101)), json!("a\u{7}"), json!(7)]),
            (
                "username",
                vec![json!(""), json!("ab"), json!("x".repeat(51)), json!("a b c"), json!("đức"), json!([])],
            ),
            (
                "avatar_url",
                vec![
                    json!(""),
                    json!("javascript:alert(1)"),
                    json!("x.png"),
                    json!(format!("https://{}", "x".repeat(2048))),
                ],
            ),
            (
                "email",
                vec![
                    json!(""),
                    json!("nobody"),
                    json!("a@b@c"),
                    json!("a b@c"),
                    json!("a@b\u{0}"),
                    json!(true),
                ],
            ),
        ] {
            for value in values {
                ana.put(ME, json!({ field: value })).await.expect_invalid(field);
            }
        }
        for nobody in ["nobody", "%00", &"u".repeat(65), "'%20or%201=1"] {
            ana.get(&path(nobody)).await.expect_problem(404, "not_found");
        }
        host.rest_with(None).get(ME).await.expect_problem(401, "unauthorized");
    })
    .await;
}
