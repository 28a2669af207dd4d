//! Roles, the audit log, and the console.

use super::*;

#[tokio::test]
async fn every_role_may_what_it_says_and_everything_is_on_record() {
    with_host(|host| async move {
        let make = async |name: &str, role: &str| {
            let made = host.post("/admin/v1/tokens", json!({"name": name, "role": role}).to_string()).await;
            assert_eq!(made.status, 201, "{}", made.json());
            made.json()["token"].as_str().unwrap().to_owned()
        };
        let tokens = [make("eyes", "read").await, make("ci", "deploy").await, make("second", "admin").await];
        let release = file("send", SEND, "");
        let digest = Digest::of(&release).short();
        let calls: [(&str, &str, Bytes, [u16; 3]); 12] = [
            ("GET", "/admin/v1/nodes", Bytes::new(), [200, 200, 200]),
            ("GET", "/admin/v1/audit", Bytes::new(), [200, 200, 200]),
            ("POST", "/admin/v1/releases", release, [403, 200, 200]),
            ("POST", "/admin/v1/handlers/none/rollback", Bytes::new(), [403, 404, 404]),
            ("POST", "/admin/v1/handlers/send/promote", Bytes::new(), [403, 409, 409]),
            ("POST", "/admin/v1/handlers/send/unshadow", Bytes::new(), [403, 409, 409]),
            ("GET", "/admin/v1/handlers/send/shadow", Bytes::new(), [200, 200, 200]),
            ("GET", "/admin/v1/history/1/trace", Bytes::new(), [403, 404, 404]),
            ("POST", "/admin/v1/echo", Bytes::new(), [403, 403, 200]),
            ("POST", "/admin/v1/disconnect", Bytes::from_static(br#"{"user_id":"ana"}"#), [403, 403, 202]),
            ("POST", "/admin/v1/revocations", Bytes::from_static(br#"{"jti":"j7"}"#), [403, 403, 201]),
            (
                "POST",
                "/admin/v1/tokens",
                Bytes::from_static(br#"{"name":"x","role":"read"}"#),
                [403, 403, 201],
            ),
        ];
        for (method, path, body, expected) in calls {
            for (token, expected) in tokens.iter().zip(expected) {
                let answer = host.ask(token, method, path, body.clone()).await;
                assert_eq!(answer.status, expected, "{method} {path}: {}", answer.json());
                if expected == 403 {
                    assert_eq!(answer.problem().1, "forbidden");
                }
            }
        }

        let audit = host.get("/admin/v1/audit").await.json();
        let entries = audit["audit"].as_array().unwrap();
        let all: Vec<String> = entries
            .iter()
            .rev()
            .map(|entry| {
                let word = |name: &str| entry[name].as_str().unwrap_or("-").to_owned();
                assert!(entry["at"].is_string() && entry["request_id"].is_string(), "{entry}");
                [word("who"), word("role"), word("action"), word("detail"), entry["status"].to_string()]
                    .join(" ")
            })
            .collect();
        for (place, expected) in [
            (0, "admin admin POST /admin/v1/tokens eyes read 201"),
            (3, "eyes read POST /admin/v1/releases - 403"),
            (4, &format!("ci deploy POST /admin/v1/releases send {digest} 200")),
            (7, "ci deploy POST /admin/v1/handlers/none/rollback - 404"),
            (10, "ci deploy POST /admin/v1/handlers/send/promote - 409"),
            (13, "ci deploy POST /admin/v1/handlers/send/unshadow - 409"),
            (16, "ci deploy POST /admin/v1/echo - 403"),
            (17, "second admin POST /admin/v1/echo - 200"),
            (20, "second admin POST /admin/v1/disconnect user ana 202"),
            (23, "second admin POST /admin/v1/revocations token j7 201"),
            (26, "second admin POST /admin/v1/tokens x read 201"),
        ] {
            assert_eq!(all[place], expected, "{all:#?}");
        }
        assert_eq!(all.len(), 27, "reading is not on record, refusals are");
        assert_eq!(entries[0]["outcome"], "done");
        assert!(!audit.to_string().contains("sbadm_"), "a token is on record");
        let older = host.get(&format!("/admin/v1/audit?limit=1&before={}", entries[1]["id"])).await.json();
        assert_eq!((&older["audit"][0]["id"], &older["next_before"]), (&entries[2]["id"], &entries[2]["id"]));
    })
    .await;
}

#[tokio::test]
async fn a_token_is_made_once_and_taken_back() {
    with_database(|pool| async move {
        let host = Host::start(pool.clone(), Some(TOKEN), Readiness::default()).await;
        let made = host.post("/admin/v1/tokens", r#"{"name":"ci","role":"deploy"}"#).await.json();
        let token = made["token"].as_str().unwrap().to_owned();
        let again = host.post("/admin/v1/tokens", r#"{"name":"ci","role":"admin"}"#).await;
        assert_eq!(again.problem(), (409, "conflict".to_owned()));
        // No operator may have a name that the host uses in history and audit log.
        for name in ["admin", "serve", "switchboard"] {
            let answer =
                host.post("/admin/v1/tokens", json!({"name": name, "role": "read"}).to_string()).await;
            assert_eq!(answer.status, 409, "{name}");
        }
        for (body, field) in [
            (json!({"role": "read"}), "name"),
            (json!({"name": "", "role": "read"}), "name"),
            (json!({"name": "a b", "role": "read"}), "name"),
            (json!({"name": "-a", "role": "read"}), "name"),
            (json!({"name": "x".repeat(65), "role": "read"}), "name"),
            (json!({"name": "x"}), "role"),
            (json!({"name": "x", "role": "root"}), "role"),
        ] {
            let answer = host.post("/admin/v1/tokens", body.to_string()).await;
            assert_eq!((answer.problem().0, &answer.json()["field"]), (422, &json!(field)), "{body}");
        }
        let listed = host.get("/admin/v1/tokens").await.json();
        assert_eq!(listed["tokens"].as_array().unwrap().len(), 1);
        assert_eq!(
            (&listed["tokens"][0]["name"], &listed["tokens"][0]["role"]),
            (&json!("ci"), &json!("deploy"))
        );
        assert!(!listed.to_string().contains(&token));
        // A reader of the database cannot use what is stored.
        let kept: Vec<u8> = sqlx::query_scalar("select token_digest from switchboard.operators")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(kept, Digest::of(token.as_bytes()).bytes());

        assert_eq!(host.ask(&token, "GET", "/admin/v1/nodes", "").await.status, 200);
        assert_eq!(host.post("/admin/v1/tokens/ci/revoke", "").await.status, 200);
        assert_eq!(
            host.ask(&token, "GET", "/admin/v1/nodes", "").await.problem(),
            (401, "unauthorized".into())
        );
        assert_eq!(host.post("/admin/v1/tokens/ci/revoke", "").await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn a_trial_is_on_record_with_its_share_and_quotes_no_user_to_who_may_only_read() {
    with_database(|pool| async move {
        let host = Host::start(pool.clone(), Some(TOKEN), Readiness::default()).await;
        let made = host.post("/admin/v1/tokens", r#"{"name":"eyes","role":"read"}"#).await.json();
        let eyes = made["token"].as_str().unwrap();
        let (first, second) = (file("send", SEND, "first"), file("send", SEND, "second"));
        assert_eq!(host.post("/admin/v1/releases", first.clone()).await.status, 200);
        for (query, answer) in [("canary=10", ", canary 10 %"), ("shadow=20", ", shadow 20 %")] {
            let tried = host.post(&format!("/admin/v1/releases?{query}"), second.clone()).await;
            assert_eq!(tried.status, 200, "{}", tried.json());
            let audit = host.get("/admin/v1/audit?limit=1").await.json();
            let expected = format!("send {}{answer}", Digest::of(&second).short());
            assert_eq!(audit["audit"][0]["detail"], expected, "{audit}");
        }
        // The same file is refused while it runs; the record names it.
        assert_eq!(host.post("/admin/v1/releases?canary=10", first.clone()).await.status, 409);
        let audit = host.get("/admin/v1/audit?limit=1").await.json();
        let entry = &audit["audit"][0];
        let expected = format!("{}, canary 10 %", Digest::of(&first).short());
        assert_eq!((&entry["detail"], &entry["outcome"]), (&json!(expected), &json!("conflict")));

        let seen = ShadowReport {
            digest: None,
            same: 5,
            differing: 1,
            dropped: 0,
            examples: vec!["it answered \"hello bo\"".to_owned()],
        };
        let repository = Repository::new(pool);
        repository.shadowed(NodeId::random(), "send", Digest::of(&second), &seen).await.unwrap();
        for (token, examples) in [(TOKEN, json!(seen.examples)), (eyes, json!([]))] {
            let answer = host.ask(token, "GET", "/admin/v1/handlers/send/shadow", "").await.json();
            let shadow = &answer["shadows"][0];
            assert_eq!((&shadow["same"], &shadow["examples"]), (&json!(5), &examples));
        }

        assert_eq!(host.post("/admin/v1/handlers/send/promote", "").await.status, 200);
        let audit = host.get("/admin/v1/audit?limit=1").await.json();
        assert_eq!(audit["audit"][0]["detail"], Digest::of(&second).short());
    })
    .await;
}

#[tokio::test]
async fn what_an_operator_does_not_wait_for_is_on_record_too() {
    with_host(|host| async move {
        let asking = async { host.post("/admin/v1/slow", "").await.status };
        tokio::select! {
            status = asking => panic!("it was answered: {status}"),
            () = host.echo.begun.notified() => {}
        }
        // Its connection is closed; the node notices it later.
        host.echo.may_end.notify_one();
        let entry = timeout(Duration::from_secs(10), async {
            loop {
                let audit = host.get("/admin/v1/audit?limit=1").await.json();
                if !audit["audit"][0]["status"].is_null() {
                    return audit["audit"][0].clone();
                }
            }
        });
        let entry = entry.await.expect("an outcome");
        assert_eq!(
            (&entry["action"], &entry["outcome"]),
            (&json!("POST /admin/v1/slow"), &json!("done")),
            "{entry}"
        );
    })
    .await;
}

#[tokio::test]
async fn the_console_is_a_page_without_secrets() {
    with_host(|host| async move {
        for (path, kind) in [
            ("/", "text/html"),
            ("/console", "text/html"),
            ("/console/console.js", "text/javascript"),
            ("/console/console.css", "text/css"),
        ] {
            let mut asked = request("GET", path, "");
            asked.headers_mut().remove("authorization");
            let answer = host.send(asked).await;
            assert_eq!(answer.status, 200, "{path}");
            assert!(answer.headers["content-type"].to_str().unwrap().starts_with(kind), "{path}");
            assert!(
                answer.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'")
            );
        }
        assert_eq!(host.post("/console", "").await.status, 405);
    })
    .await;
}
