//! A handler that breaks the contract in its results, log lines and recordings: no client and no operator
//! sees any of it.

use std::fs;

use serde_json::json;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;

const PATH: &str = "/api/v1/guests/bad-answers";
const KEY: &str = "a-key-that-nobody-may-see";

#[tokio::test]
async fn an_answer_that_violates_the_contract_counts_as_a_failure_of_the_release() {
    const BROKEN: [(&str, &str); 8] = [
        ("status-101", "status 101 is not"),
        ("problem-101", "status 101 of a problem"),
        ("problem-200", "status 200 of a problem"),
        ("code", "of a problem is not lower-case"),
        ("many-headers", "32768 headers"),
        ("header-name", "`x a` is not a header"),
        ("header-value", "`x-a` is not a header"),
        ("large-body", "bytes of a body"),
    ];
    Host::test(Options::default(), async |host| {
        host.admin.release(&Release::guest("bad-answers")).await;
        let eve = host.rest("eve");
        for (how, _) in BROKEN {
            eve.post(&format!("{PATH}/{how}"), json!({})).await.expect_problem(500, "internal");
        }
        // A client may cause a long sentence, so the host cuts it.
        let answer = eve.post(&format!("{PATH}/long-detail"), json!({})).await;
        let problem = answer.expect_problem(404, "not_found");
        assert_eq!(problem["detail"].as_str().unwrap().len(), 4096);
        // The host call itself refuses invalid arguments.
        let text = eve.post(&format!("{PATH}/publish"), json!({})).await.expect(200)["said"].to_string();
        assert!(text.contains("Refused") && text.contains("not a JSON object"), "{text}");
        eve.post(&format!("{PATH}/fine"), json!({})).await.expect(200);

        let mut client = host.client("eve").await;
        for how in ["not-json", "not-an-object", "large", "problem"] {
            client.request("guests.bad-answer", json!({ "how": how })).await.expect_error("internal");
        }
        client.request("guests.bad-answer", json!({ "how": "fine" })).await.expect("answered");

        let log = host.log();
        for (how, rule) in BROKEN {
            let of_http = log.lines().filter(|line| line.contains("trigger=\"http\""));
            let lines = of_http.filter(|line| line.contains("answer: ") && line.contains(rule)).count();
            assert_eq!(lines, 1, "{how} is logged once\n{log}");
        }
        let page = host.admin.rest().get("/metrics").await;
        let page = String::from_utf8_lossy(&page.body).into_owned();
        let failed = |trigger: &str| {
            let outcome = format!("trigger=\"{trigger}\",outcome=\"answer\"");
            let line = page.lines().find(|line| line.contains("bad-answers") && line.contains(&outcome));
            line.and_then(|line| line.rsplit_once(' ')).map(|(_, count)| count.to_owned())
        };
        assert_eq!((failed("http"), failed("frame")), (Some("8".to_owned()), Some("4".to_owned())), "{page}");
    })
    .await;
}

#[tokio::test]
async fn text_of_handlers_and_clients_never_begins_a_log_line() {
    for json in [false, true] {
        let options = Options::default().set("LOG_JSON", json).set("LOG", "debug,h2=off,hyper=off");
        Host::test(options, async |host| {
            host.admin.release(&Release::guest("bad-answers")).await;
            host.rest("eve").post(&format!("{PATH}/log"), json!({})).await.expect(200);
            let log = until("the handler's line", async || {
                Some(host.log()).filter(|log| log.lines().any(|line| line.contains("ERROR forged")))
            })
            .await;
            assert!(!log.contains(['\r', '\0', '\u{1b}', '\u{202e}', '\u{2028}']), "{log:?}");
            assert!(!log.lines().any(|line| line.starts_with("2026-11-20T12:00:00Z ERROR forged")), "{log}");
            let line = log.lines().find(|line| line.contains("ERROR forged")).unwrap();
            assert!(line.contains("bad-answers") && !line.contains(KEY), "{line}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_setting_that_is_not_public_is_never_shown() {
    let kept = tempfile::tempdir().expect("a directory");
    let options = Options::default()
        .set("TRACE_DIR", kept.path().display())
        .set("TRACE_CALLS", "all")
        .set("TRACE_BODIES", "true");
    Host::test(options, async |host| {
        let guest = Release::guest("bad-answers");
        host.admin.release(&guest).await;
        let eve = host.rest("eve");
        let answer = eve.post(&format!("{PATH}/secret"), json!({})).await.expect(200);
        assert_eq!(answer["key"], KEY, "what a handler answers is its own affair");
        eve.post(&format!("{PATH}/trap"), json!({})).await.expect_problem(500, "internal");
        eve.post(&format!("{PATH}/log"), json!({})).await.expect(200);

        let recordings = until("three recordings", async || {
            let files = fs::read_dir(kept.path().join("bad-answers")).ok()?.flatten();
            let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
            let texts: Vec<_> =
                texts.filter(|text| text.contains("\nreturned\n") || text.contains("\nfailed")).collect();
            (texts.len() == 3).then_some(texts)
        })
        .await;
        for text in &recordings {
            assert!(!text.contains(KEY) && text.contains("[setting key]"), "{text}");
        }
        let public = recordings.iter().find(|text| text.contains("config.get\n  key: \"shown\"")).unwrap();
        assert!(public.contains("a-word-that-everybody-may-see"), "{public}");
        assert!(!host.log().contains(KEY), "{}", host.log());

        let file = kept.path().join("bad-answers.wasm");
        fs::write(&file, &guest.bytes).expect("a file");
        let event = kept.path().join("event.json");
        fs::write(
            &event,
            json!({ "http": { "path": format!("{PATH}/secret"), "method": "POST", "caller": "eve" } })
                .to_string(),
        )
        .expect("an event");
        let (file, event) = (file.display().to_string(), event.display().to_string());
        for arguments in
            [vec!["inspect", &file], vec!["--json", "inspect", &file], vec!["invoke", &file, &event]]
        {
            let (code, text) = host.switchboard_text(&arguments).await;
            assert!(code == 0 && !text.contains(KEY), "{arguments:?}: {code} {text}");
            assert!(text.contains("a-word-that-everybody-may-see"), "{arguments:?}: {text}");
        }
    })
    .await;
}
