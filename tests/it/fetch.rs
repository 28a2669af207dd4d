//! Fetches of handlers: what they reach and what they cannot reach, and what a bad service costs. The
//! services are on the loopback, so each grant names their addresses; without that, the same URLs are
//! refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options, free_address};
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;
use switchboard_tests::web::{Authority, Web};

const PATH: &str = "/api/v1/guests/fetches";

/// A host that trusts the services of the test.
fn trusting(authority: &Authority) -> Options {
    Options::default().variable("SSL_CERT_FILE", authority.file().display())
}

/// The guest, with grants for these URLs beside its own.
fn granted(urls: &[String]) -> Release {
    Release::guest("fetches").with_manifest(|manifest| {
        let fetch = manifest["grants"]["fetch"].as_array_mut().expect("its grants");
        for url in urls {
            let mut grant = toml::Table::new();
            grant.insert("methods".into(), vec!["GET", "HEAD", "POST"].into());
            grant.insert("url".into(), url.as_str().into());
            fetch.push(grant.into());
        }
    })
}

/// The results of these requests, made by one call.
async fn fetched(host: &Host, requests: Value) -> Vec<Value> {
    let answer = host.rest("eve").post(PATH, json!({ "requests": requests })).await.expect(200);
    answer["results"].as_array().expect("results").clone()
}

async fn one(host: &Host, request: Value) -> Value {
    fetched(host, json!([request])).await.remove(0)
}

#[track_caller]
fn expect_error(result: &Value, kind: &str, why: &str) {
    let text = result["why"].as_str().unwrap_or_default();
    assert!(result["error"] == kind && text.contains(why), "expected {kind} with {why:?}: {result}");
}

#[tokio::test]
async fn a_granted_service_is_reached_and_its_connections_are_reused() {
    let authority = Authority::make();
    let web = Web::https(&authority).await;
    Host::test(trusting(&authority), async |host| {
        host.admin.release(&granted(&[web.url("/v1/*")])).await;
        let headers = json!({ "x-mine": "yes", "authorization": "Bearer t" });
        let post =
            json!({ "method": "POST", "url": web.url("/v1/a?b=c"), "body": "hello", "headers": headers });
        let result = one(host, post).await;
        assert_eq!(
            (&result["status"], &result["url"]),
            (&json!(200), &json!(web.url("/v1/a?b=c"))),
            "{result}"
        );
        let echo: Value = serde_json::from_str(result["body"].as_str().unwrap()).unwrap();
        assert_eq!(
            (&echo["method"], &echo["target"], &echo["body"]),
            (&json!("POST"), &json!("/v1/a?b=c"), &json!("hello"))
        );
        assert_eq!(echo["headers"]["host"], web.address.to_string());
        assert_eq!(
            (&echo["headers"]["x-mine"], &echo["headers"]["content-length"]),
            (&json!("yes"), &json!("5"))
        );
        assert!(echo["headers"]["user-agent"].as_str().unwrap().starts_with("switchboard/"), "{echo}");
        assert_eq!(result["headers"]["set-cookie"], "a=b");

        for _ in 0..20 {
            let result = one(host, json!({ "url": web.url("/v1/more") })).await;
            assert_eq!(result["status"], 200, "{result}");
        }
        assert_eq!((web.seen().len(), web.connections()), (21, 1), "each fetch opened a connection");
        // Together they are in flight together, each on a connection of its own, and their answers are in
        // order.
        let several: Vec<_> = (0..8).map(|n| json!({ "url": web.url(&format!("/v1/{n}")) })).collect();
        let body = json!({ "requests": several, "together": true });
        let answer = host.rest("eve").post(PATH, body).await.expect(200);
        for (number, result) in answer["results"].as_array().unwrap().iter().enumerate() {
            assert_eq!(result["url"], web.url(&format!("/v1/{number}")), "{result}");
        }
        assert!((2..=8).contains(&web.connections()), "{}", web.connections());
        // A server that closes the connection after its answer costs the next fetch nothing.
        for _ in 0..3 {
            assert_eq!(one(host, json!({ "url": web.url("/v1/close") })).await["body"], "ok");
            assert_eq!(one(host, json!({ "url": web.url("/v1/then") })).await["status"], 200);
        }
        let head = one(host, json!({ "method": "HEAD", "url": web.url("/v1/h") })).await;
        assert_eq!((&head["status"], &head["bytes"]), (&json!(200), &json!(0)), "{head}");
        assert!(head["headers"]["content-length"].is_string(), "{head}");
    })
    .await;
}

#[tokio::test]
async fn a_setting_of_the_operator_names_the_service() {
    let authority = Authority::make();
    let web = Web::https(&authority).await;
    let options = trusting(&authority).set("HANDLERS__FETCHES__BASE", web.url("/v1"));
    Host::test(options, async |host| {
        host.admin.release(&granted(&[])).await;
        assert_eq!(one(host, json!({ "url": web.url("/v1/a") })).await["status"], 200);
        expect_error(&one(host, json!({ "url": web.url("/v2/a") })).await, "refused", "not a public address");
    })
    .await;
}

/// The operator changes the service while the handler runs: the next call fetches from the new one only.
#[tokio::test]
async fn a_live_setting_moves_the_grant() {
    let authority = Authority::make();
    let (old, new) = (Web::https(&authority).await, Web::https(&authority).await);
    Host::test(trusting(&authority), async |host| {
        host.admin.release(&granted(&[])).await;
        let path = "/admin/v1/handlers/fetches/config";
        let (at_old, at_new) = (json!({ "url": old.url("/a") }), json!({ "url": new.url("/a") }));
        expect_error(&one(host, at_old.clone()).await, "refused", "not a public address");
        host.admin.rest().post(path, json!({ "set": { "base": old.base() } })).await.expect(200);
        assert_eq!(one(host, at_old.clone()).await["status"], 200);
        host.admin.rest().post(path, json!({ "set": { "base": new.base() } })).await.expect(200);
        assert_eq!(one(host, at_new).await["status"], 200);
        // Its idle connection to the old one is not used any more.
        expect_error(&one(host, at_old).await, "refused", "not a public address");
        assert_eq!((old.seen().len(), new.seen().len()), (1, 1));
    })
    .await;
}

/// Whatever a URL looks like: it reaches nothing but what the grants name.
#[tokio::test]
async fn the_ssrf_table_is_refused() {
    let authority = Authority::make();
    let (inner, web) = (Web::http().await, Web::https(&authority).await);
    Host::test(trusting(&authority), async |host| {
        // The guest may fetch any host at any port, at public addresses; and a part of `web`.
        host.admin.release(&granted(&[web.url("/open/*")])).await;
        let port = inner.address.port();
        let not_public = [
            format!("http://127.0.0.1:{port}/"),
            format!("http://127.1:{port}/"),
            format!("http://127.000.000.001:{port}/"),
            format!("http://2130706433:{port}/"),
            format!("http://017700000001:{port}/"),
            format!("http://0177.0.0.1:{port}/"),
            format!("http://0x7f.0.0.1:{port}/"),
            format!("http://0x7F000001:{port}/"),
            format!("http://127.8.8.8:{port}/"),
            format!("http://0.0.0.0:{port}/"),
            format!("http://0:{port}/"),
            format!("http://[::1]:{port}/"),
            format!("http://[::]:{port}/"),
            format!("http://[::ffff:127.0.0.1]:{port}/"),
            format!("http://[::ffff:7f00:1]:{port}/"),
            format!("http://[::127.0.0.1]:{port}/"),
            format!("http://[64:ff9b::7f00:1]:{port}/"),
            format!("http://[2002:7f00:1::]:{port}/"),
            format!("http://１２７。０。０。１:{port}/"),
            format!("http://%31%32%37.0.0.1:{port}/"),
            format!("http://localhost:{port}/"),
            format!("http://LOCALHOST:{port}/"),
            "http://169.254.169.254/latest/meta-data/".to_owned(),
            "http://[fd00:ec2::254]/latest/meta-data/".to_owned(),
            "http://10.0.0.1/".to_owned(),
            "http://172.16.0.1/".to_owned(),
            "http://192.168.0.1/".to_owned(),
            "http://100.64.0.1/".to_owned(),
            "http://[fe80::1]/".to_owned(),
            "http://[fd00::1]/".to_owned(),
            "http://255.255.255.255/".to_owned(),
            "http://224.0.0.1/".to_owned(),
            // The grant names `/open/` of this server, and no other path of it.
            web.url("/closed/a"),
            web.url("/open/../closed/a"),
        ];
        for url in &not_public {
            expect_error(&one(host, json!({ "url": url })).await, "refused", "not a public address");
        }
        let inner_address = inner.address;
        for (url, why) in [
            ("file:///etc/passwd".to_owned(), "scheme file is not supported"),
            ("ftp://127.0.0.1/".to_owned(), "scheme ftp is not supported"),
            ("gopher://127.0.0.1:6379/_FLUSHALL".to_owned(), "scheme gopher is not supported"),
            ("redis://127.0.0.1:6379/".to_owned(), "scheme redis is not supported"),
            ("data:text/plain,x".to_owned(), "scheme data is not supported"),
            ("javascript:alert(1)".to_owned(), "scheme javascript is not supported"),
            (format!("//{inner_address}/"), "not absolute"),
            ("/etc/passwd".to_owned(), "not absolute"),
            (String::new(), "not absolute"),
            (format!("http://user:password@{inner_address}/"), "a user or a password"),
            (format!("http://x.example@{inner_address}/"), "a user or a password"),
            (format!("http://x.example\\@{inner_address}/"), "backslashes"),
            (format!("http://{inner_address}\r\nx: y/"), "control characters"),
            (format!("http://{inner_address}/ HTTP/1.1"), "spaces"),
            (format!("http://localhost.:{port}/"), "must not end with a dot"),
            (web.url("/open/..%2fclosed/a"), "encoded dot segments"),
            (web.url("/open/%2e%2e%5cclosed/a"), "encoded dot segments"),
            (web.url("/open/..;/closed/a"), "encoded dot segments"),
            (format!("http://x.example/{}", "a".repeat(9000)), "at most 8192 bytes"),
        ] {
            expect_error(&one(host, json!({ "url": url })).await, "refused", why);
        }
        // Headers that would make another request, or another host, of it.
        let open = web.url("/open/a");
        for (name, value, why) in [
            ("host", "x.example", "the host sets the header host itself"),
            ("content-length", "0", "the host sets the header content-length itself"),
            ("transfer-encoding", "chunked", "the host sets the header transfer-encoding itself"),
            ("connection", "upgrade", "the host sets the header connection itself"),
            ("Accept", "x", "lower case"),
            ("x-a", "1\r\nx-b: 2", "not one that HTTP can carry"),
            ("x a", "1", "is not the name of a header"),
        ] {
            let asked = json!({ "url": open, "headers": { name: value } });
            expect_error(&one(host, asked).await, "refused", why);
        }
        for method in ["get", "CONNECT", "TRACE", "OPTIONS", "GET / HTTP/1.1\r\n"] {
            expect_error(&one(host, json!({ "url": open, "method": method })).await, "refused", "the method");
        }
        expect_error(
            &one(host, json!({ "url": open, "method": "DELETE" })).await,
            "refused",
            "is not granted",
        );

        // Redirects leave the grant in the same ways. Each was sent to `web`, and none to its target.
        let before = web.seen().len();
        let targets = [
            (format!("http://{inner_address}/"), "not a public address"),
            (format!("http://[::1]:{port}/"), "not a public address"),
            (format!("http://localhost:{port}/"), "not a public address"),
            (web.url("/closed/a"), "not a public address"),
            ("/closed/a".to_owned(), "not a public address"),
            ("../../closed/a".to_owned(), "not a public address"),
            ("file:///etc/passwd".to_owned(), "scheme file is not supported"),
            (format!("https://u:p@{}/open/a", web.address), "a user or a password"),
            (format!("//{inner_address}/"), "not a public address"),
        ];
        for (target, why) in &targets {
            let asked = json!({ "url": web.url(&format!("/open/redirect?{target}")), "redirects": 3 });
            expect_error(&one(host, asked).await, "refused", why);
        }
        assert_eq!(web.seen().len(), before + targets.len());
        assert!(web.seen().iter().all(|seen| !seen.target.contains("closed/a") || seen.target.contains('?')));
        assert_eq!((inner.seen().len(), inner.connections()), (0, 0), "{:?}", inner.seen());
    })
    .await;
}

#[tokio::test]
async fn a_redirect_is_followed_within_the_grants_and_without_credentials() {
    let authority = Authority::make();
    let (web, other) = (Web::https(&authority).await, Web::https(&authority).await);
    Host::test(trusting(&authority), async |host| {
        let release = granted(&[web.url("/*"), other.url("/to/*")]).with_manifest(|manifest| {
            // Only the named URLs.
            manifest["grants"]["fetch"].as_array_mut().unwrap().drain(..2);
        });
        host.admin.release(&release).await;
        let headers = json!({ "authorization": "Bearer t", "cookie": "a=b", "x-api-key": "k", "accept": "x/y" });
        let to = |target: &str, redirects: u8| {
            json!({ "url": web.url(&format!("/redirect?{target}")), "redirects": redirects, "headers": headers })
        };
        let result = one(host, to(&other.url("/to/a"), 1)).await;
        assert_eq!((&result["status"], &result["url"]), (&json!(200), &json!(other.url("/to/a"))), "{result}");
        let seen = other.seen().pop().expect("a request");
        let sent: Vec<_> = ["authorization", "cookie", "x-api-key"].iter().filter(|n| seen.headers.contains_key(**n)).collect();
        assert!(sent.is_empty() && seen.headers["accept"] == "x/y", "{seen:?}");
        assert_eq!(seen.headers["host"], other.address.to_string());
        // At the same origin they stay.
        let result = one(host, to("/here", 1)).await;
        assert_eq!(result["url"], web.url("/here"), "{result}");
        assert_eq!(web.seen().pop().unwrap().headers["authorization"], "Bearer t");

        let before = other.seen().len();
        expect_error(&one(host, to(&other.url("/else"), 1)).await, "refused", "is not granted");
        assert_eq!(other.seen().len(), before);
        // Without redirects, after the last one, and for a POST, the 3xx is the answer.
        for asked in [
            to(&other.url("/to/a"), 0),
            json!({ "url": web.url("/loop"), "redirects": 5 }),
            json!({ "url": web.url("/redirect?/here"), "method": "POST", "redirects": 5 }),
        ] {
            let result = one(host, asked).await;
            assert_eq!(result["status"], 302, "{result}");
        }
        assert_eq!(other.seen().len(), before);
        expect_error(&one(host, to("/here", 6)).await, "refused", "`redirects` is 0 to 5");
    })
    .await;
}

#[tokio::test]
async fn an_endless_body_ends_at_fetch_bytes() {
    let authority = Authority::make();
    let web = Web::https(&authority).await;
    Host::test(trusting(&authority), async |host| {
        host.admin.release(&granted(&[web.url("/*")])).await;
        for path in ["/endless", "/huge", "/endless-head", "/many-headers"] {
            let begun = Instant::now();
            let result = one(host, json!({ "url": web.url(path) })).await;
            expect_error(&result, "too-large", " bytes");
            assert!(begun.elapsed() < Duration::from_secs(4), "{path} ended only at the deadline");
        }
        let large = json!({ "method": "POST", "url": web.url("/post"), "bytes": 1024 * 1024 + 1 });
        expect_error(&one(host, large).await, "too-large", "1048576 bytes");
        assert!(web.seen().iter().all(|seen| seen.target != "/post"), "it was sent");
        let fits = json!({ "method": "POST", "url": web.url("/post"), "bytes": 1024 * 1024 });
        let seen = one(host, fits).await;
        expect_error(&seen, "too-large", "1048576 bytes");
        assert_eq!(web.seen().last().unwrap().body.len(), 1024 * 1024, "the echo is what was too large");
        // Answers that are no HTTP, or that break off, are neither an answer nor a trap.
        for path in ["/short", "/not-http", "/reset"] {
            expect_error(&one(host, json!({ "url": web.url(path) })).await, "unknown-outcome", "broke");
        }
    })
    .await;
}

#[tokio::test]
async fn a_slow_peer_ends_at_the_deadline() {
    let authority = Authority::make();
    let web = Web::https(&authority).await;
    // It accepts connections, and never speaks TLS.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mute_url = format!("https://{}/", mute.local_addr().expect("an address"));
    Host::test(trusting(&authority), async |host| {
        host.admin.release(&granted(&[web.url("/*"), format!("{mute_url}*")])).await;
        for path in ["/slow", "/hang"] {
            let result = one(host, json!({ "url": web.url(path), "timeout_ms": 200 })).await;
            expect_error(&result, "unknown-outcome", "in time");
        }
        let result = one(host, json!({ "url": mute_url, "timeout_ms": 200 })).await;
        expect_error(&result, "unavailable", "TLS with");
        // Without a time-out of its own, the fetch lasts as long as the call may.
        let short = granted(&[web.url("/*")]).with_manifest(|manifest| {
            manifest["limits"]["deadline_ms"] = 500.into();
        });
        host.admin.release(&short).await;
        let begun = Instant::now();
        let body = json!({ "requests": [{ "url": web.url("/slow") }] });
        let answer = host.rest("eve").post(PATH, body).await;
        assert!(matches!(answer.status, 200 | 503), "{answer}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        if answer.status == 200 {
            expect_error(&answer.expect(200)["results"][0], "unknown-outcome", "in time");
        }
    })
    .await;
}

#[tokio::test]
async fn a_dead_service_costs_milliseconds_after_five_failures() {
    let authority = Authority::make();
    let (web, dead) = (Web::https(&authority).await, free_address());
    Host::test(trusting(&authority), async |host| {
        let urls = [web.url("/*"), format!("https://{dead}/*")];
        host.admin.release(&granted(&urls)).await;
        // A call with a time of 900 ms for each fetch of a service that never answers.
        let hang = json!({ "url": web.url("/hang"), "timeout_ms": 900 });
        for _ in 0..5 {
            expect_error(&one(host, hang.clone()).await, "unknown-outcome", "in time");
        }
        let begun = Instant::now();
        let result = one(host, hang.clone()).await;
        let why = format!("circuit breaker for {} is open: 5 failures, last: no whole answer", web.address);
        expect_error(&result, "unavailable", &why);
        expect_error(&result, "unavailable", "next attempt in ");
        assert!(begun.elapsed() < Duration::from_millis(450), "it took {:?}", begun.elapsed());
        let before = web.seen().len();
        for _ in 0..20 {
            one(host, hang.clone()).await;
        }
        assert!(web.seen().len() <= before + 2, "an open breaker sends nothing but its trials");
        // No server listens at the other one.
        for _ in 0..5 {
            let result = one(host, json!({ "url": format!("https://{dead}/") })).await;
            expect_error(&result, "unavailable", "cannot connect");
        }
        let result = one(host, json!({ "url": format!("https://{dead}/") })).await;
        expect_error(&result, "unavailable", "circuit breaker");
        until("the gauge of open breakers", async || {
            one(host, json!({ "url": format!("https://{dead}/") })).await;
            (host.admin.metric("switchboard_fetch_breakers_open").await >= Some(1.0)).then_some(())
        })
        .await;
        assert!(host.log().contains("the circuit breaker of fetches for 127.0.0.1:"), "no line in the log");
        // The service answers again: one of the trials notices.
        until("the breaker to close", async || {
            let result = one(host, json!({ "url": web.url("/well"), "timeout_ms": 900 })).await;
            (result["status"] == 200).then_some(())
        })
        .await;
        for _ in 0..3 {
            assert_eq!(one(host, json!({ "url": web.url("/well") })).await["status"], 200);
        }
        assert!(host.log().contains("has closed: the service answers again"), "no line in the log");
    })
    .await;
}

#[tokio::test]
async fn the_fetches_of_a_call_and_of_a_handler_are_bounded() {
    let authority = Authority::make();
    let web = Web::https(&authority).await;
    Host::test(trusting(&authority), async |host| {
        let release = granted(&[web.url("/*")]).with_manifest(|manifest| {
            manifest["limits"].as_table_mut().unwrap().extend([
                ("fetches".to_owned(), toml::Value::from(3)),
                ("fetch_concurrency".to_owned(), toml::Value::from(2)),
            ]);
        });
        host.admin.release(&release).await;
        let four: Vec<_> = (0..4).map(|n| json!({ "url": web.url(&format!("/{n}")) })).collect();
        let results = fetched(host, json!(four)).await;
        assert!(results[..3].iter().all(|result| result["status"] == 200), "{results:?}");
        expect_error(&results[3], "refused", "this call made 3 fetches, its maximum (limits.fetches)");
        // Two hang, and the third one of the handler is busy at once.
        let hang = json!({ "url": web.url("/hang"), "timeout_ms": 3000 });
        let body = json!({ "requests": [hang, hang, hang], "together": true });
        let answer = host.rest("eve").post(PATH, body).await.expect(200);
        let errors: Vec<_> =
            answer["results"].as_array().unwrap().iter().map(|r| r["error"].clone()).collect();
        assert_eq!(errors, ["unknown-outcome", "unknown-outcome", "busy"]);
        let after = one(host, json!({ "url": web.url("/after") })).await;
        assert_eq!(after["status"], 200, "the places were given back: {after}");
    })
    .await;
}

/// Together, the answers of one host call have room within `limits.host_bytes`. The requests of a long list
/// beyond `limits.fetches` are refused, each in its place.
#[tokio::test]
async fn the_answers_of_one_host_call_are_bounded_together() {
    let authority = Authority::make();
    let web = Web::https(&authority).await;
    Host::test(trusting(&authority), async |host| {
        let release = granted(&[web.url("/*")]).with_manifest(|manifest| {
            manifest["limits"]
                .as_table_mut()
                .unwrap()
                .extend([("host_bytes".to_owned(), toml::Value::from(1024 * 1024))]);
        });
        host.admin.release(&release).await;
        let half = json!({ "url": web.url("/sized?400000") });
        let body = json!({ "requests": [half, half, half, half], "together": true });
        let answer = host.rest("eve").post(PATH, body).await.expect(200);
        let results = answer["results"].as_array().unwrap();
        let large = results.iter().filter(|result| result["error"] == "too-large").count();
        let whole = results.iter().filter(|result| result["bytes"] == 400_000).count();
        assert!((1..=2).contains(&whole) && whole + large == 4, "{answer}");

        let many: Vec<_> = (0..100).map(|_| json!({ "url": web.url("/a") })).collect();
        let body = json!({ "requests": many, "together": true });
        let answer = host.rest("eve").post(PATH, body).await.expect(200);
        let results = answer["results"].as_array().unwrap();
        assert!(results[..8].iter().all(|result| result["status"] == 200), "{answer}");
        for result in &results[8..] {
            expect_error(result, "refused", "its maximum (limits.fetches)");
        }
        assert_eq!(results.len(), 100);
    })
    .await;
}

#[tokio::test]
async fn a_shadow_fetches_nothing() {
    let authority = Authority::make();
    let web = Web::https(&authority).await;
    Host::test(trusting(&authority), async |host| {
        let release = granted(&[web.url("/*")]);
        host.admin.release(&release).await;
        let same = release.variant(1);
        assert_eq!(host.admin.try_out(&same, "shadow=100%").await.expect(200)["complete"], true);
        let mut calls = 0;
        let seen = until("the shadow to be shown some", async || {
            assert_eq!(one(host, json!({ "url": web.url("/a") })).await["status"], 200);
            calls += 1;
            let path = "/admin/v1/handlers/fetches/shadow";
            let seen = host.admin.rest().get(path).await.expect(200)["shadows"][0].clone();
            (seen["same"].as_u64() >= Some(3)).then_some(seen)
        })
        .await;
        assert_eq!(seen["differing"], 0, "{seen}");
        assert_eq!(web.seen().len(), calls, "the shadow fetched");
    })
    .await;
}

#[tokio::test]
async fn a_fetch_is_recorded_and_replayed_without_the_service() {
    let authority = Authority::make();
    let web = Web::https(&authority).await;
    let kept = tempfile::tempdir().expect("a directory");
    let options = trusting(&authority)
        .set("RECORDING_DIR", kept.path().display())
        .set("RECORDING_CALLS", "all")
        .set("RECORDING_BODIES", true);
    let release = granted(&[web.url("/*")]);
    Host::test(options, async |host| {
        host.admin.release(&release).await;
        let headers = json!({ "authorization": "Bearer of-nobody-else" });
        let asked = json!({ "url": web.url("/a?token=of-nobody-else&b=c"), "headers": headers });
        assert_eq!(one(host, asked).await["status"], 200);
        let first = recordings(kept.path(), 1).await.remove(0);
        let recorded = fs::read_to_string(&first).expect("the recording");
        assert!(
            recorded.contains("\nfetch.send\n") && recorded.contains("?token=[redacted]&b=c"),
            "{recorded}"
        );
        assert!(!recorded.contains("Bearer of-nobody-else"), "{recorded}");

        assert_eq!(one(host, json!({ "url": web.url("/plain") })).await["status"], 200);
        let mut both = recordings(kept.path(), 2).await;
        both.retain(|path| *path != first);
        // The replay has the answer of the service in the recording, and asks nobody.
        let seen = web.seen().len();
        let file = kept.path().join("fetches.wasm");
        fs::write(&file, &release.bytes).expect("a release file");
        let (path, file) = (both[0].display().to_string(), file.display().to_string());
        let (code, printed) = host.switchboard_text(&["replay", &path, "--release", &file]).await;
        assert!(code == 0 && printed.contains("does what the recording did"), "{code}: {printed}");
        assert_eq!(web.seen().len(), seen, "a replay fetched");
    })
    .await;
}

/// The recordings of the guest's calls, once there are so many whole ones.
async fn recordings(directory: &Path, count: usize) -> Vec<PathBuf> {
    let directory = directory.join("fetches");
    until("the recordings of the calls", async || {
        let files = fs::read_dir(&directory).ok()?.flatten().map(|entry| entry.path());
        let is_whole =
            |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains("\nreturned\n"));
        let whole: Vec<_> = files.filter(is_whole).collect();
        (whole.len() == count).then_some(whole)
    })
    .await
}
