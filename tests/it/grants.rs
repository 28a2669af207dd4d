//! A handler may use only what its manifest grants: enforced by a Postgres role of its own, by a check of
//! every key of every command, in scripts too, and by address patterns. The default is nothing.

use serde_json::json;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::release::Release;

#[tokio::test]
async fn postgres_and_redis_refuse_what_is_not_granted() {
    Host::test(Options::default(), async |host| {
        host.admin.release(&Release::guest("reaches-out")).await;
        let theirs = host.redis_key("presence:ana").await;
        host.redis.say(&["SET", &theirs, "secret"]).await;
        for (attempt, reason) in [
            // Another handler's table, a missing right, a table of the host, another role.
            ("table", "42501"),
            ("delete", "42501"),
            ("host", "42501"),
            ("role", "Refused"),
            // A key outside of the patterns: as first key, as second key, found by a scan, used by a script,
            // declared to a script.
            ("key", "is not granted"),
            ("second-key", "is not granted"),
            ("scan", "is not a command for handlers"),
            ("script", "is not granted"),
            ("script-key", "is not granted"),
            ("channel", "Refused"),
            // Granted work goes on; the script that left its grants had written its own key before.
            ("own-key", "Ok(Integer("),
            ("own-script", "Ok("),
            ("own-channel", "Ok("),
        ] {
            let path = format!("/api/v1/guests/reaches-out/{attempt}");
            let answer = host.rest("eve").post(&path, json!({})).await.expect(200);
            let text = answer["told"].as_str().unwrap();
            assert!(text.contains(reason), "{attempt}: {text}");
        }
        assert_eq!(host.redis.say(&["GET", &theirs]).await, "secret");
    })
    .await;
}

#[tokio::test]
async fn an_import_without_a_grant_is_refused() {
    Host::test(Options::default(), async |host| {
        let bare = Release::guest("reaches-out").with_manifest(|manifest| {
            manifest.remove("grants");
        });
        let refused = host.admin.deploy(&bare).await;
        let detail = refused.expect_problem(422, "invalid")["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("does not grant it"), "{detail}");
        for without in ["postgres", "redis", "publish"] {
            let less = Release::guest("reaches-out").with_manifest(|manifest| {
                manifest["grants"].as_table_mut().unwrap().remove(without);
            });
            let detail = host.admin.deploy(&less).await.expect_problem(422, "invalid")["detail"].to_string();
            assert!(detail.contains(&format!("grants.{without}")), "{without}: {detail}");
        }
        let without_secrets = Release::guest("leaks").with_manifest(|manifest| {
            manifest["grants"].as_table_mut().unwrap().remove("secrets");
        });
        let refused = host.admin.deploy(&without_secrets).await.expect_problem(422, "invalid");
        assert!(refused["detail"].as_str().unwrap().contains("grants.secrets"), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn fetch_needs_a_grant() {
    Host::test(Options::default(), async |host| {
        let without = Release::guest("fetches").with_manifest(|manifest| {
            manifest.remove("grants");
        });
        let refused = host.admin.deploy(&without).await;
        let detail = refused.expect_problem(422, "invalid")["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("switchboard:host/fetch") && detail.contains("`grants.fetch`"), "{detail}");

        // A URL outside of the grants is refused, and nothing is resolved or sent.
        let one = Release::guest("fetches").with_manifest(|manifest| {
            let text = r#"fetch = [{ methods = ["GET"], url = "https://service.example/v1/*" }]"#;
            manifest["grants"] = text.parse::<toml::Table>().unwrap().into();
        });
        host.admin.release(&one).await;
        for (method, url) in [
            ("POST", "https://service.example/v1/a"),
            ("GET", "http://service.example/v1/a"),
            ("GET", "https://service.example/v2/a"),
            ("GET", "https://service.example/v1/../v2/a"),
            ("GET", "https://service.example:8443/v1/a"),
            ("GET", "https://other.example/v1/a"),
        ] {
            let asked = json!({ "requests": [{ "method": method, "url": url }] });
            let answer = host.rest("eve").post("/api/v1/guests/fetches", asked).await.expect(200);
            let why = answer["results"][0]["why"].as_str().unwrap();
            assert!(why.contains("is not granted (grants.fetch)"), "{method} {url}: {why}");
        }

        // A pattern or a setting that is not one is refused at the deploy, without the value of the setting.
        for (url, base, rule) in [
            ("https://x.example", "", "has no path"),
            ("https://x.example/v1/../*", "", "write its path as `/`"),
            ("{nothing}/*", "", "names a setting that the manifest does not have"),
            ("{base}/*", "s3cret.example", "with the present values of base"),
        ] {
            let wrong = Release::guest("fetches").with_manifest(|manifest| {
                let mut grant = toml::Table::new();
                grant.insert("methods".into(), vec!["GET"].into());
                grant.insert("url".into(), url.into());
                manifest["grants"]["fetch"] = vec![grant].into();
                manifest["config"]["base"] = base.into();
            });
            let detail = host.admin.deploy(&wrong).await.expect_problem(422, "invalid")["detail"].to_string();
            assert!(detail.contains(rule) && !detail.contains("s3cret"), "{url}: {detail}");
        }
    })
    .await;
}
