//! Tests over TCP, with a real Postgres. Releases consist of their manifests here; other tests cover the
//! compiler.

mod operators;

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::*;
use crate::calls::HttpIn;
use switchboard_core::config::Config;
use switchboard_core::ids::{ConnectionId, Digest, NodeId, UserId};
use switchboard_core::shutdown::Shutdown;
use switchboard_fanout::{ConnectionInfo, Subject, Taken, Wakes};
use switchboard_postgres::epochs::Epochs;
use switchboard_postgres::poll::Poll;
use switchboard_postgres::revocations;
use switchboard_protocol::wire::close::Close;
use switchboard_redis::{Keyspace, Redis};
use switchboard_releases::Trust;
use switchboard_releases::repository::{Repository, ShadowReport};
use switchboard_releases::signature::{self, Signature};
use switchboard_telemetry::{self as telemetry, Telemetry, Tracer};
use switchboard_testing::manifests::{Manifests, SEND, file};
use switchboard_testing::with_database;

const TOKEN: &str = "token-of-the-admin-tests";

struct Host {
    address: std::net::SocketAddr,
    hub: Hub,
    echo: Arc<Echo>,
    _shutdown: Shutdown,
}

fn hub(node: NodeId) -> (Hub, Redis) {
    let redis_url = std::env::var("SWITCHBOARD_TEST_REDIS_URL")
        .expect("SWITCHBOARD_TEST_REDIS_URL names a Redis that these tests may write to");
    let config = Config { redis_url: Some(redis_url), ..Config::default() };
    let redis = Redis::connect(&config, Keyspace::bare()).unwrap();
    (Hub::start(&redis, &node.to_string(), node, Wakes::default(), Tracer::default()), redis)
}

/// A handler with two routes for operators: one returns its request, one takes as long as the test wants.
#[derive(Default)]
struct Echo {
    begun: Notify,
    may_end: Notify,
}

impl OperatorCalls for Echo {
    fn operator(
        &self,
        request: HttpIn,
    ) -> BoxFuture<'_, Result<switchboard_contract::http::Response, Problem>> {
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
            let answer = json!({
                "by": caller.user_id,
                "roles": caller.roles,
                "query": request.query,
                "body": String::from_utf8(request.body.into()).unwrap(),
            });
            Ok(switchboard_contract::http::Response {
                status: 200,
                headers: Vec::new(),
                body: answer.to_string().into_bytes(),
            })
        })
    }
}

/// A complete answer.
struct TestAnswer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Host {
    /// With its own hub on the test's Redis.
    async fn start(pool: sqlx::PgPool, token: Option<&str>, readiness: Readiness) -> Self {
        let node = NodeId::random();
        let config = Arc::new(Config::default());
        let Telemetry { metrics, .. } = telemetry::start(&config, node).unwrap();
        let (loader, repository) = (Manifests::of("a"), Repository::new(pool.clone()));
        let poll = Poll::new(pool.clone(), node, config.admin_listen);
        let rollout =
            Arc::new(Rollout::new(poll, config, loader, Arc::default(), repository, Trust::default(), || 3));
        rollout.join().await.unwrap();
        let ((hub, redis), echo) = (hub(node), Arc::<Echo>::default());
        let admin = Admin {
            token: token.map(str::to_owned),
            rollout,
            operators: Operators::new(pool.clone()),
            outbox: Outbox::new(pool.clone()),
            timers: Timers::new(pool.clone()),
            hub: hub.clone(),
            redis,
            calls: echo.clone(),
            revocations: Revocations::start(
                revocations::Revocations::new(pool.clone()),
                Epochs::new(pool),
                hub.clone(),
            )
            .await
            .unwrap(),
            metrics,
            readiness,
            deploys: Semaphore::new(limits::DEPLOY_REQUESTS_MAX),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let settings = Settings::of(&Config::default());
        tokio::spawn(serve(listener, Arc::new(admin), settings, shutdown.guard()));
        Self { address, hub, echo, _shutdown: shutdown }
    }

    async fn send<B>(&self, request: Request<B>) -> TestAnswer
    where
        B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let (parts, body) = sender.send_request(request).await.map(Response::into_parts).unwrap();
        let body = body.collect().await.unwrap().to_bytes();
        TestAnswer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> TestAnswer {
        self.send(request("GET", path, Bytes::new())).await
    }

    async fn ask(&self, token: &str, method: &str, path: &str, body: impl Into<Bytes>) -> TestAnswer {
        let mut asked = request(method, path, body);
        asked.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        self.send(asked).await
    }

    async fn post(&self, path: &str, body: impl Into<Bytes>) -> TestAnswer {
        self.send(request("POST", path, body)).await
    }
}

impl TestAnswer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }

    /// Returns status and code of a problem, after a check of what every problem has.
    fn problem(&self) -> (u16, String) {
        assert_eq!(self.headers["content-type"], answers::PROBLEM_JSON);
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
            let answer = host.post(path, body.clone()).await;
            assert_eq!(answer.problem(), (status, code.to_owned()), "{path} {body:?}: {}", answer.json());
        }
        assert_eq!(host.post("/admin/v1/nodes", "").await.headers["allow"], "GET, HEAD");
    })
    .await;
}

#[tokio::test]
async fn a_file_over_the_bound_is_refused_before_it_is_read() {
    with_host(|host| async move {
        // A body that is announced but never sent: reading it first would wait for ever.
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
            let answer = host.send(asked).await;
            assert_eq!(answer.problem(), (401, "unauthorized".to_owned()), "{authorization}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
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
        let answer = host.post("/admin/v1/echo?a=b", "{}").await;
        assert_eq!(answer.status, 200);
        let answer = answer.json();
        assert_eq!(answer["by"], "admin");
        assert_eq!(answer["roles"], json!(["operator"]));
        assert_eq!((&answer["query"], &answer["body"]), (&json!([["a", "b"]]), &json!("{}")));
        // A path that no handler binds does not exist.
        assert_eq!(host.get("/admin/v1/echo").await.status, 404);
        assert_eq!(host.post("/admin/v1/other", "{}").await.status, 404);
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
            let answer = deploy(&release, bad).await;
            assert_eq!(
                (answer.problem().0, &answer.json()["field"]),
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
        let answer = host.get("/admin/v1/nodes").await;
        assert_eq!(answer.status, 401);
        assert!(answer.json()["detail"].as_str().unwrap().contains("SWITCHBOARD_ADMIN_TOKEN"));
    })
    .await;
}

#[tokio::test]
async fn a_handler_is_retired_and_comes_back_by_a_rollback() {
    with_host(|host| async move {
        let upload = file("send", SEND, "");
        let deployed = host.post("/admin/v1/releases", upload).await;
        assert_eq!(deployed.status, 200, "{}", deployed.json());
        let retire = "/admin/v1/handlers/send/retire";
        let answer = host.post(retire, r#"{"note":"nobody uses it"}"#).await.json();
        assert_eq!((&answer["action"], &answer["unchanged"]), (&json!("retire"), &json!(false)), "{answer}");
        assert_eq!(host.post(retire, "").await.json()["unchanged"], true);
        assert_eq!(
            host.post("/admin/v1/handlers/x/retire", "").await.problem(),
            (404, "not_found".to_owned())
        );
        assert_eq!(host.post(retire, r#"{"note":1}"#).await.problem(), (422, "invalid".to_owned()));
        let history = host.get("/admin/v1/history?handler=send").await.json();
        assert_eq!(history["history"][0]["note"], "nobody uses it");
        assert_eq!(host.post("/admin/v1/handlers/send/rollback", "").await.status, 200);
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
        let answer = host.get("/readyz").await;
        assert_eq!(answer.status, 503);
        let expected = json!({"ready": false, "checks": {"postgres": "ok", "redis": "no connection"}});
        assert_eq!(answer.json(), expected);
        assert_eq!(host.get("/healthz").await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_user_is_disconnected_with_4003_and_the_others_stay() {
    with_host(|host| async move {
        let info = |name: &str| ConnectionInfo {
            connection: ConnectionId::random(),
            user: UserId::parse(name).unwrap(),
            session: name.into(),
        };
        let (ana, bo) =
            (host.hub.open_connection(info("ana")).await, host.hub.open_connection(info("bo")).await);
        let answer = host.post("/admin/v1/disconnect", r#"{"user_id":"ana"}"#).await;
        assert_eq!(answer.status, 202, "{}", answer.json());
        assert_eq!(ana.take(&mut Vec::new(), 1), Taken::Close(Close::DISCONNECTED));
        assert_eq!(bo.take(&mut Vec::new(), 1), Taken::All);
        assert_eq!(host.post("/admin/v1/disconnect", "{}").await.problem(), (422, "invalid".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn a_revocation_counts_at_once_and_a_wrong_one_names_its_field() {
    with_host(|host| async move {
        let answer = host.post("/admin/v1/revocations", r#"{"user_id":"ana"}"#).await;
        assert_eq!(answer.status, 201, "{}", answer.json());
        assert_eq!(answer.json()["revocation"]["user_id"], "ana");
        let answer = host.post("/admin/v1/revocations", r#"{"user_id":"ana","before":"soon"}"#).await;
        assert_eq!(
            (answer.problem(), &answer.json()["field"]),
            ((422, "invalid".to_owned()), &json!("before"))
        );
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

#[tokio::test]
async fn an_operator_watches_what_passes_the_filter_and_a_wrong_filter_is_refused() {
    with_host(|host| async move {
        for (query, field) in [
            ("handler=nobody", "handler"),
            ("user=a%00b", "user"),
            ("trigger=http2", "trigger"),
            ("failed=yes", "failed"),
            ("hanlder=send", "hanlder"),
        ] {
            let refused = host.get(&format!("/admin/v1/tail?{query}")).await;
            assert_eq!(refused.problem(), (422, "invalid".to_owned()), "{query}");
            assert_eq!(refused.json()["field"], field);
        }
        assert_eq!(host.get("/admin/v1/tail?watch=1").await.problem(), (404, "not_found".to_owned()));
        assert!(!host.hub.watches().is_watched());

        let opened = host.get("/admin/v1/tail?failed=true&user=ana").await.json();
        let path = format!("/admin/v1/tail?watch={}", opened["watch"].as_str().unwrap());
        let subject = |user, is_failure| Subject {
            handler: "send",
            user: Some(user),
            trigger: Some("frame"),
            is_failure,
        };
        for (user, is_failure) in [("ana", false), ("bo", true), ("ana", true)] {
            let event = || json!({ "user": user, "is_failure": is_failure }).to_string();
            host.hub.watches().record(&subject(user, is_failure), event);
        }
        let taken = host.get(&path).await.json();
        assert_eq!(taken["events"], json!([{ "user": "ana", "is_failure": true }]));
        assert_eq!((&taken["dropped"], &taken["watch"]), (&json!(0), &opened["watch"]));
    })
    .await;
}

#[tokio::test]
async fn a_hundred_watching_operators_are_refused_beyond_the_bound() {
    with_host(|host| async move {
        let mut refused = 0;
        for _ in 0..100 {
            let answer = host.get("/admin/v1/tail").await;
            if answer.status != 200 {
                assert_eq!(answer.problem(), (503, "unavailable".to_owned()));
                refused += 1;
            }
        }
        assert_eq!(refused, 100 - limits::WATCHERS_MAX);
        assert_eq!(host.get("/admin/v1/nodes").await.status, 200);
    })
    .await;
}
