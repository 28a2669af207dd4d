//! Over TCP, against a real Postgres. Releases are their manifests here: what a compiler says to a file is tested elsewhere.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use hyper::client::conn::http1::handshake;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;
use crate::config::Config;
use crate::fanout::{Seat, Taken, Wakes};
use crate::ids::{ConnectionId, Digest, NodeId, UserId};
use crate::redis::Redis;
use crate::releases::Trust;
use crate::releases::database::with_database;
use crate::releases::manifests::{Manifests, SEND, file};
use crate::releases::repository::{Repository, Shadowed};
use crate::releases::signature::{self, Signature};
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::wire::close::Close;

const TOKEN: &str = "token-of-the-admin-tests";

struct Host {
    address: std::net::SocketAddr,
    hub: Hub,
    echo: Arc<Echo>,
    _shutdown: Shutdown,
}

fn hub(node: NodeId) -> Hub {
    let redis_url = std::env::var("SWITCHBOARD_TEST_REDIS_URL")
        .expect("SWITCHBOARD_TEST_REDIS_URL names a Redis that these tests may write to");
    let redis = Redis::connect(&Config { redis_url: Some(redis_url), ..Config::default() }).unwrap();
    Hub::start(&redis, &node.to_string(), node, Wakes::default())
}

/// A handler of two routes for operators: one says what it was asked, one takes as long as the test wants.
#[derive(Default)]
struct Echo {
    begun: Notify,
    may_end: Notify,
}

impl Handlers for Echo {
    fn ask(&self, request: HttpIn) -> BoxFuture<'_, Result<crate::contract::http::Response, Problem>> {
        Box::pin(async move {
            match (&*request.method, &*request.path) {
                ("POST", "/admin/v1/echo") => {}
                ("POST", "/admin/v1/slow") => {
                    self.begun.notify_one();
                    self.may_end.notified().await;
                }
                _ => return Err(Code::NotFound.problem("nothing answers this method and path")),
            }
            let caller = request.caller.unwrap();
            let said = json!({
                "by": caller.user_id,
                "roles": caller.roles,
                "query": request.query,
                "body": String::from_utf8(request.body.into()).unwrap(),
            });
            Ok(crate::contract::http::Response {
                status: 200,
                headers: Vec::new(),
                body: said.to_string().into_bytes(),
            })
        })
    }
}

/// An answer, read whole.
struct Said {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Host {
    /// With a hub of its own on the test's Redis.
    async fn start(pool: sqlx::PgPool, token: Option<&str>, readiness: Readiness) -> Self {
        let node = NodeId::random();
        let config = Arc::new(Config::default());
        let metrics = telemetry::start(&config, node).unwrap();
        let (loader, repository) = (Manifests { of: "a" }, Repository::new(pool.clone()));
        let rollout =
            Arc::new(Rollout::new(node, config, loader, Arc::default(), repository, Trust::default(), || 3));
        rollout.join().await.unwrap();
        let (hub, echo) = (hub(node), Arc::<Echo>::default());
        let admin = Admin {
            token: token.map(str::to_owned),
            rollout,
            postgres: pool.clone(),
            hub: hub.clone(),
            handlers: echo.clone(),
            revocations: Revocations::start(pool, hub.clone()).await.unwrap(),
            metrics,
            readiness,
            deploys: Semaphore::new(limits::DEPLOYS_AT_ONCE),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        tokio::spawn(serve(listener, Arc::new(admin), shutdown.guard()));
        Self { address, hub, echo, _shutdown: shutdown }
    }

    async fn send<B>(&self, request: Request<B>) -> Said
    where
        B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let (parts, body) = sender.send_request(request).await.map(Response::into_parts).unwrap();
        let body = body.collect().await.unwrap().to_bytes();
        Said { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Said {
        self.send(request("GET", path, Bytes::new())).await
    }

    async fn ask(&self, token: &str, method: &str, path: &str, body: impl Into<Bytes>) -> Said {
        let mut asked = request(method, path, body);
        asked.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        self.send(asked).await
    }

    async fn post(&self, path: &str, body: impl Into<Bytes>) -> Said {
        self.send(request("POST", path, body)).await
    }
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }

    /// Status and code of a problem, after a look at what every problem has.
    fn problem(&self) -> (u16, String) {
        assert_eq!(self.headers["content-type"], http::PROBLEM_JSON);
        let problem = self.json();
        assert_eq!(problem["request_id"], self.headers["x-request-id"].to_str().unwrap());
        assert_eq!(problem["status"], self.status);
        (self.status, problem["code"].as_str().unwrap().to_owned())
    }
}

fn request(method: &str, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "admin")
        .header("authorization", format!("Bearer {TOKEN}"))
        .body(Full::new(body.into()))
        .unwrap()
}

async fn with_host<F: Future<Output = ()> + Send>(test: impl FnOnce(Host) -> F + Send + 'static) {
    with_database(|pool| async move {
        test(Host::start(pool, Some(TOKEN), Readiness::default()).await).await;
    })
    .await;
}

#[tokio::test]
async fn a_release_is_deployed_listed_and_taken_back() {
    with_host(|host| async move {
        let (first, second) = (file("send", SEND, "first"), file("send", SEND, "second"));
        let deployed = host.post("/admin/v1/releases?note=the%20first+one", first.clone()).await;
        assert_eq!(deployed.status, 200);
        let deployed = deployed.json();
        assert_eq!(
            (&deployed["handler"], &deployed["release"]),
            (&json!("send"), &json!(Digest::of(&first)))
        );
        assert_eq!(deployed["complete"], true);
        assert_eq!(deployed["nodes"][0]["state"], "live");
        assert_eq!(host.post("/admin/v1/releases", second.clone()).await.status, 200);

        let list = host.get("/admin/v1/releases?handler=send").await.json();
        let current: Vec<_> =
            list["releases"].as_array().unwrap().iter().map(|r| (&r["note"], &r["current"])).collect();
        assert_eq!(current, [(&Value::Null, &json!(true)), (&json!("the first one"), &json!(false))]);

        let back = host.post("/admin/v1/handlers/send/rollback", r#"{"note":"worse"}"#).await;
        assert_eq!(back.status, 200);
        assert_eq!(back.json()["release"], json!(Digest::of(&first)));
        let history = host.get("/admin/v1/history?handler=send").await.json();
        assert_eq!(history["history"][0]["action"], "rollback");
        assert_eq!(history["history"][0]["note"], "worse");
        assert_eq!(history["history"][0]["by"], "admin");

        let kept = host.get(&format!("/admin/v1/releases/{}", Digest::of(&second).short())).await;
        assert_eq!((kept.status, kept.body), (200, second));
        let nodes = host.get("/admin/v1/nodes").await.json();
        assert_eq!(nodes["nodes"][0]["connections"], 3);
        assert_eq!(nodes["nodes"][0]["handlers"][0]["release"], json!(Digest::of(&first)));
    })
    .await;
}

#[tokio::test]
async fn what_is_refused_is_a_problem_with_the_field_and_the_rule() {
    with_host(|host| async move {
        host.post("/admin/v1/releases", file("send", SEND, "")).await;
        for (path, body, status, code) in [
            ("/admin/v1/releases", Bytes::from_static(b"garbage"), 422, "invalid"),
            ("/admin/v1/releases", Bytes::new(), 422, "invalid"),
            ("/admin/v1/releases", file("other", SEND, ""), 409, "conflict"),
            ("/admin/v1/releases?note=%ff", file("send", SEND, "x"), 400, "malformed"),
            ("/admin/v1/releases?note=a%00b", file("send", SEND, "x"), 422, "invalid"),
            ("/admin/v1/handlers/send/rollback", Bytes::new(), 409, "conflict"),
            ("/admin/v1/handlers/none/rollback", Bytes::new(), 404, "not_found"),
            ("/admin/v1/handlers/send/rollback", Bytes::from_static(b"{"), 400, "malformed"),
            ("/admin/v1/handlers/send/rollback", Bytes::from_static(b"[]"), 400, "malformed"),
            ("/admin/v1/handlers/send/rollback", Bytes::from_static(br#"{"release":1}"#), 422, "invalid"),
            ("/admin/v1/handlers/send/rollback", Bytes::from_static(br#"{"release":"%"}"#), 422, "invalid"),
            (
                "/admin/v1/handlers/send/rollback",
                vec![b' '; limits::BODY_BYTES_MAX + 1].into(),
                413,
                "too_large",
            ),
            ("/admin/v1/nowhere", Bytes::new(), 404, "not_found"),
            ("/admin/v1/nodes", Bytes::new(), 405, "malformed"),
        ] {
            let said = host.post(path, body.clone()).await;
            assert_eq!(said.problem(), (status, code.to_owned()), "{path} {body:?}: {}", said.json());
        }
        assert_eq!(host.post("/admin/v1/nodes", "").await.headers["allow"], "GET, HEAD");
    })
    .await;
}

#[tokio::test]
async fn a_file_over_the_bound_is_refused_before_it_is_read() {
    with_host(|host| async move {
        // Announced, never sent: whoever wants to read it first waits for ever.
        let announced = Request::builder()
            .method("POST")
            .uri("/admin/v1/releases")
            .header("host", "admin")
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-length", limits::RELEASE_BYTES_MAX + 1)
            .body(http_body_util::StreamBody::new(futures_util::stream::pending::<
                Result<hyper::body::Frame<Bytes>, Infallible>,
            >()))
            .unwrap();
        assert_eq!(host.send(announced).await.problem(), (413, "too_large".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn nothing_is_done_without_the_token() {
    with_host(|host| async move {
        for authorization in ["", "Bearer", "Bearer wrong", "Basic dG9rZW4=", &format!("Bearer {TOKEN}x")] {
            let mut asked = request("POST", "/admin/v1/releases", file("send", SEND, ""));
            asked.headers_mut().insert("authorization", authorization.parse().unwrap());
            let said = host.send(asked).await;
            assert_eq!(said.problem(), (401, "unauthorized".to_owned()), "{authorization}");
            assert_eq!(said.headers["www-authenticate"], "Bearer");
        }
        for open in ["/healthz", "/readyz", "/metrics"] {
            let mut asked = request("GET", open, "");
            asked.headers_mut().remove("authorization");
            assert_eq!(host.send(asked).await.status, 200, "{open}");
        }
        assert_eq!(host.get("/admin/v1/releases").await.json()["releases"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn a_handler_answers_operators_on_a_route_of_its_own() {
    with_host(|host| async move {
        let said = host.post("/admin/v1/echo?a=b", "{}").await;
        assert_eq!(said.status, 200);
        let said = said.json();
        assert_eq!(said["by"], "admin");
        assert_eq!(said["roles"], json!(["operator"]));
        assert_eq!((&said["query"], &said["body"]), (&json!([["a", "b"]]), &json!("{}")));
        // What no handler binds is not there.
        assert_eq!(host.get("/admin/v1/echo").await.status, 404);
        assert_eq!(host.post("/admin/v1/other", "{}").await.status, 404);
    })
    .await;
}

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
                let said = host.ask(token, method, path, body.clone()).await;
                assert_eq!(said.status, expected, "{method} {path}: {}", said.json());
                if expected == 403 {
                    assert_eq!(said.problem().1, "forbidden");
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
        // Nor is anybody called as the host is in history and audit.
        for name in ["admin", "serve", "switchboard"] {
            let said = host.post("/admin/v1/tokens", json!({"name": name, "role": "read"}).to_string()).await;
            assert_eq!(said.status, 409, "{name}");
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
            let said = host.post("/admin/v1/tokens", body.to_string()).await;
            assert_eq!((said.problem().0, &said.json()["field"]), (422, &json!(field)), "{body}");
        }
        let listed = host.get("/admin/v1/tokens").await.json();
        assert_eq!(listed["tokens"].as_array().unwrap().len(), 1);
        assert_eq!(
            (&listed["tokens"][0]["name"], &listed["tokens"][0]["role"]),
            (&json!("ci"), &json!("deploy"))
        );
        assert!(!listed.to_string().contains(&token));
        // Who reads the database can not use what is there.
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
        for (query, said) in [("canary=10", ", canary 10 %"), ("shadow=20", ", shadow 20 %")] {
            let tried = host.post(&format!("/admin/v1/releases?{query}"), second.clone()).await;
            assert_eq!(tried.status, 200, "{}", tried.json());
            let audit = host.get("/admin/v1/audit?limit=1").await.json();
            let expected = format!("send {}{said}", Digest::of(&second).short());
            assert_eq!(audit["audit"][0]["detail"], expected, "{audit}");
        }
        // The same file is refused while it runs; the record says which it was.
        assert_eq!(host.post("/admin/v1/releases?canary=10", first.clone()).await.status, 409);
        let audit = host.get("/admin/v1/audit?limit=1").await.json();
        let entry = &audit["audit"][0];
        let expected = format!("{}, canary 10 %", Digest::of(&first).short());
        assert_eq!((&entry["detail"], &entry["outcome"]), (&json!(expected), &json!("conflict")));

        let seen = Shadowed {
            digest: None,
            same: 5,
            differing: 1,
            dropped: 0,
            examples: vec!["it answered \"hello bo\"".to_owned()],
        };
        let repository = Repository::new(pool);
        repository.shadowed(NodeId::random(), "send", Digest::of(&second), &seen).await.unwrap();
        for (token, examples) in [(TOKEN, json!(seen.examples)), (eyes, json!([]))] {
            let said = host.ask(token, "GET", "/admin/v1/handlers/send/shadow", "").await.json();
            let shadow = &said["shadows"][0];
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
        // Its connection is closed; the node notices sooner or later.
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
            let said = host.send(asked).await;
            assert_eq!(said.status, 200, "{path}");
            assert!(said.headers["content-type"].to_str().unwrap().starts_with(kind), "{path}");
            assert!(
                said.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'")
            );
        }
        assert_eq!(host.post("/console", "").await.status, 405);
    })
    .await;
}

#[tokio::test]
async fn a_signature_comes_with_its_file_or_the_deploy_is_refused() {
    with_database(|pool| async move {
        let host = Host::start(pool.clone(), Some(TOKEN), Readiness::default()).await;
        let (release, other) = (file("send", SEND, "signed"), file("send", SEND, "other"));
        let (secret, _) = signature::new_key();
        let key = signature::parse_secret(&secret).unwrap();
        let deploy = async |release: &Bytes, header: &str| {
            let mut asked = request("POST", "/admin/v1/releases", release.clone());
            asked.headers_mut().insert("x-release-signature", header.parse().unwrap());
            host.send(asked).await
        };
        let good = Signature::sign(Digest::of(&release), &key).to_string();
        for bad in ["nonsense", &Signature::sign(Digest::of(&other), &key).to_string()] {
            let said = deploy(&release, bad).await;
            assert_eq!(
                (said.problem().0, &said.json()["field"]),
                (422, &json!("x-release-signature")),
                "{bad}"
            );
        }
        assert_eq!(deploy(&release, &good).await.status, 200);
        let kept = Repository::new(pool)
            .signatures(Digest::of(&release), &[key.verifying_key().to_bytes().to_vec()])
            .await
            .unwrap();
        assert_eq!(kept.iter().map(ToString::to_string).collect::<Vec<_>>(), [good]);
    })
    .await;
}

#[tokio::test]
async fn without_a_token_of_its_own_a_node_lets_nobody_in() {
    with_database(|pool| async move {
        let host = Host::start(pool, None, Readiness::default()).await;
        let said = host.get("/admin/v1/nodes").await;
        assert_eq!(said.status, 401);
        assert!(said.json()["detail"].as_str().unwrap().contains("SWITCHBOARD_ADMIN_TOKEN"));
    })
    .await;
}

#[tokio::test]
async fn readiness_says_what_is_in_the_way() {
    with_database(|pool| async move {
        let readiness = Readiness::default()
            .check("postgres", || async { Ok(()) })
            .check("redis", || async { Err("no connection".to_owned()) });
        let host = Host::start(pool, Some(TOKEN), readiness).await;
        let said = host.get("/readyz").await;
        assert_eq!(said.status, 503);
        let expected = json!({"ready": false, "checks": {"postgres": "ok", "redis": "no connection"}});
        assert_eq!(said.json(), expected);
        assert_eq!(host.get("/healthz").await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_user_is_disconnected_with_4003_and_the_others_stay() {
    with_host(|host| async move {
        let seat = |name: &str| Seat {
            connection: ConnectionId::random(),
            user: UserId::parse(name).unwrap(),
            session: name.into(),
        };
        let (ana, bo) = (host.hub.join(seat("ana")).await, host.hub.join(seat("bo")).await);
        let said = host.post("/admin/v1/disconnect", r#"{"user_id":"ana"}"#).await;
        assert_eq!(said.status, 202, "{}", said.json());
        assert_eq!(ana.take(&mut Vec::new(), 1), Taken::Close(Close::DISCONNECTED));
        assert_eq!(bo.take(&mut Vec::new(), 1), Taken::All);
        assert_eq!(host.post("/admin/v1/disconnect", "{}").await.problem(), (422, "invalid".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn a_revocation_counts_at_once_and_a_wrong_one_names_its_field() {
    with_host(|host| async move {
        let said = host.post("/admin/v1/revocations", r#"{"user_id":"ana"}"#).await;
        assert_eq!(said.status, 201, "{}", said.json());
        assert_eq!(said.json()["revocation"]["user_id"], "ana");
        let said = host.post("/admin/v1/revocations", r#"{"user_id":"ana","before":"soon"}"#).await;
        assert_eq!((said.problem(), &said.json()["field"]), ((422, "invalid".to_owned()), &json!("before")));
    })
    .await;
}

#[tokio::test]
async fn what_a_consumer_gave_up_is_listed_delivered_again_or_dropped() {
    with_database(|pool| async move {
        let host = Host::start(pool.clone(), Some(TOKEN), Readiness::default()).await;
        let ids: Vec<String> = sqlx::query_scalar(
            "insert into switchboard.parked
               (consumer, shard, position, id, event_type, key, payload, created_at, attempts, error)
             select 'notify', 1, n, gen_random_uuid(), 'message.created', 'conv:1', '{}', now(), 8, 'trap'
             from generate_series(1, 2) n returning id::text",
        )
        .fetch_all(&pool)
        .await
        .unwrap();

        let events = host.get("/admin/v1/events?state=failed").await.json();
        assert_eq!(events["events"].as_array().unwrap().len(), 2);
        assert_eq!(events["events"][0]["error"], "trap");
        let consumers = host.get("/admin/v1/consumers").await.json();
        assert_eq!(consumers["consumers"], json!([{"consumer":"notify","behind":0,"retries":0,"failed":2}]));

        let retry = format!("/admin/v1/events/{}/retry", ids[0]);
        assert_eq!(host.post(&retry, "").await.json()["consumers"], 1);
        assert_eq!(host.post(&retry, "").await.problem(), (404, "not_found".to_owned()));
        assert_eq!(host.post(&format!("/admin/v1/events/{}/drop", ids[1]), "").await.status, 200);
        let consumers = host.get("/admin/v1/consumers").await.json();
        assert_eq!(consumers["consumers"], json!([{"consumer":"notify","behind":0,"retries":1,"failed":0}]));
        assert_eq!(host.post("/admin/v1/events/x/drop", "").await.status, 404);
        assert_eq!(host.get("/admin/v1/events?state=done").await.problem(), (422, "invalid".to_owned()));
    })
    .await;
}
