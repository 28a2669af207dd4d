//! A gateway with a hub on the test's Redis and a few small handlers, and a client for tests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastwebsockets::{FragmentCollector, Frame, OpCode};
use futures_util::future::BoxFuture;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::calls::{ClientCalls, FrameIn, HandshakeIn, HttpIn, Reach};
use crate::gateway::auth::Auth;
use crate::gateway::{Gateway, Tickets};
use switchboard_contract::channels::Target;
use switchboard_contract::connection::{Closed, Opened};
use switchboard_contract::frame::{Reply, Subscription};
use switchboard_contract::http as contract;
use switchboard_contract::types::{Problem, Push};
use switchboard_core::config::Config;
use switchboard_core::ids::{Address, ConnectionId, NodeId, UserId};
use switchboard_core::shutdown::Shutdown;
use switchboard_core::timestamp;
use switchboard_fanout::{Hub, Wakes};
use switchboard_http::http_server::bind;
use switchboard_protocol::wire::close::Close;
use switchboard_protocol::wire::problem::Code;
use switchboard_redis::{Keyspace, Redis};
use switchboard_telemetry::Tracer;

pub(super) const SECRET: &str = "a secret of the tests";
/// The size of the reply to an `overlaps-large` frame.
pub(super) const LARGE_REPLY_BYTES: usize = 30_000;
/// The time-out of every step. No step takes long, so a longer one hangs.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(STEP_TIMEOUT, future).await.expect("it hangs")
}

#[derive(Default)]
pub(super) struct Rooms {
    pub connections: Mutex<HashMap<String, ConnectionId>>,
    pub touches: Mutex<Vec<(String, bool)>>,
    /// `slow` and `overlaps` frames and `/slow` wait for a permit.
    pub gate: Gate,
}

pub(super) struct Gate(pub Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

struct Handlers {
    rooms: Arc<Rooms>,
    hub: Hub,
    /// The events of connections, in order.
    events: mpsc::UnboundedSender<ConnectionEvent>,
}

#[derive(Debug, PartialEq)]
pub(super) enum ConnectionEvent {
    Opened { user: String, user_agent: Option<String>, remote: String },
    Called(String),
    Closed { user: String, code: u16 },
}

impl ClientCalls for Handlers {
    fn reach(&self, method: &str, path: &str) -> Reach {
        match (method, path) {
            ("GET" | "POST", "/api/v1/echo") => Reach::Bound { public: false },
            ("GET", "/public" | "/slow" | "/odd") => Reach::Bound { public: true },
            (_, "/api/v1/echo") => Reach::MethodNotAllowed { allow: vec!["GET".into(), "POST".into()] },
            (_, "/public") => Reach::MethodNotAllowed { allow: vec!["GET".into()] },
            _ => Reach::Nothing,
        }
    }

    fn http(&self, request: HttpIn) -> BoxFuture<'_, Result<contract::Response, Problem>> {
        Box::pin(async move {
            if request.path == "/slow" {
                self.events.send(ConnectionEvent::Called("/slow".into())).unwrap();
                self.rooms.gate.0.acquire().await.unwrap().forget();
            }
            if request.path == "/odd" {
                let headers =
                    [("content-length", "3"), ("x-own", "yes"), ("x-bad", "a\nb"), ("connection", "x")];
                let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
                return Ok(contract::Response { status: 201, headers, body: b"{}".to_vec() });
            }
            if request.query.iter().any(|(key, _)| key == "limited") {
                return Err(Code::RateLimited.problem("slow down").retry_after(Duration::from_millis(2500)));
            }
            let seen = json!({
                "id": &*request.id,
                "method": request.method,
                "query": request.query,
                "tester": request.tester.as_deref(),
                "headers": request.headers.iter().map(|(name, _)| name).collect::<Vec<_>>(),
                "body": String::from_utf8(request.body.to_vec()).unwrap(),
                "caller": request.caller.map(|caller| caller.user_id),
            });
            Ok(contract::Response { status: 200, headers: Vec::new(), body: seen.to_string().into_bytes() })
        })
    }

    fn opened(&self, connection: ConnectionId, opened: Opened, _: HandshakeIn) -> BoxFuture<'_, Vec<Push>> {
        let Opened { caller, user_agent, remote, .. } = opened;
        self.rooms.connections.lock().unwrap().insert(caller.user_id.clone(), connection);
        self.events.send(ConnectionEvent::Opened { user: caller.user_id, user_agent, remote }).unwrap();
        Box::pin(async move {
            // `auth.success` and the pushes of this handler must come before this push.
            self.hub.send(connection, r#"{"type":"early.push","payload":{}}"#).await.unwrap();
            vec![Push {
                frame: r#"{"type":"message.new","payload":{"late":true}}"#.to_owned(),
                position: None,
            }]
        })
    }

    /// Every frame subscribes to an address with the name of its type; only a reply confirms it.
    fn frame<'a>(&'a self, frame: FrameIn<'a>) -> BoxFuture<'a, Result<Option<Reply>, Problem>> {
        let FrameIn { frame_type, payload, connection, mut rank, .. } = frame;
        self.events.send(ConnectionEvent::Called(frame_type.to_owned())).unwrap();
        let address = Address::parse(&format!("frame:{frame_type}")).unwrap();
        Box::pin(async move {
            let reply = |payload: &str| Reply {
                frame_type: "echoed".to_owned(),
                payload: payload.to_owned(),
                subscriptions: vec![Subscription {
                    address: address.to_string(),
                    after: Vec::new(),
                    missed: false,
                }],
            };
            self.hub.gate(connection, std::slice::from_ref(&address)).await.unwrap();
            match frame_type {
                "echo" => Ok(Some(reply(&payload))),
                "slow" => {
                    self.rooms.gate.0.acquire().await.unwrap().forget();
                    Ok(Some(reply(&payload)))
                }
                "overlaps" => {
                    rank.reach_ordered_point();
                    self.rooms.gate.0.acquire().await.unwrap().forget();
                    Ok(Some(reply(&payload)))
                }
                "overlaps-large" => {
                    rank.reach_ordered_point();
                    self.rooms.gate.0.acquire().await.unwrap().forget();
                    Ok(Some(reply(&format!(r#""{}""#, "x".repeat(LARGE_REPLY_BYTES)))))
                }
                "silent" => Ok(None),
                "refuse" => Err(Code::Forbidden.problem("not you")),
                _ => Err(Code::Malformed.problem("no frame of this type is known").field("type")),
            }
        })
    }

    fn closed(&self, connection: ConnectionId, closed: Closed, _: HandshakeIn) -> BoxFuture<'_, ()> {
        let is_in_hub = self.hub.connections().iter().any(|(id, _)| *id == connection);
        assert!(!is_in_hub, "the handlers are notified after the connection has left the hub");
        // At the end of a test there is no receiver any more.
        let _ = self.events.send(ConnectionEvent::Closed { user: closed.user_id, code: closed.code });
        Box::pin(async {})
    }

    fn touch(&self, _: ConnectionId, user: &UserId, active: bool) {
        self.rooms.touches.lock().unwrap().push((user.to_string(), active));
    }
}

/// A running gateway.
pub(super) struct TestGateway {
    pub address: SocketAddr,
    pub rooms: Arc<Rooms>,
    pub hub: Hub,
    pub gateway: Arc<Gateway>,
    pub shutdown: Option<Shutdown>,
    events: mpsc::UnboundedReceiver<ConnectionEvent>,
}

impl TestGateway {
    pub(super) async fn open() -> Self {
        Self::open_with(Config::default()).await
    }

    pub(super) async fn open_with(config: Config) -> Self {
        let redis_url = config.redis_url.unwrap_or_else(|| {
            std::env::var("SWITCHBOARD_TEST_REDIS_URL")
                .expect("SWITCHBOARD_TEST_REDIS_URL names a Redis that these tests may write to")
        });
        let config = Config { jwt_secret: Some(SECRET.to_owned()), redis_url: Some(redis_url), ..config };
        let (sender, events) = mpsc::unbounded_channel();
        let (node, rooms) = (NodeId::random(), Arc::new(Rooms::default()));
        let redis = Redis::connect(&config, Keyspace::bare()).unwrap();
        let hub = Hub::start(&redis, &node.to_string(), node, Wakes::default(), Tracer::default());
        let handlers = Arc::new(Handlers { rooms: rooms.clone(), hub: hub.clone(), events: sender });
        let auth = Arc::new(Auth::new(&config, Arc::default()).unwrap());
        let gateway = Gateway::new(&config, node, auth, Tickets::new(redis), None, handlers, hub.clone());
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        tokio::spawn(gateway.clone().serve(listener, shutdown.guard()));
        Self { address, rooms, hub, gateway, shutdown: Some(shutdown), events }
    }

    pub(super) async fn next_event(&mut self) -> ConnectionEvent {
        within(self.events.recv()).await.unwrap()
    }

    pub(super) fn try_next_event(&mut self) -> Result<ConnectionEvent, mpsc::error::TryRecvError> {
        self.events.try_recv()
    }

    fn connection_of(&self, user: &str) -> ConnectionId {
        self.rooms.connections.lock().unwrap()[user]
    }

    /// Sends a frame to the connection of this user through the hub.
    pub(super) async fn push(&self, user: &str, frame: &str) {
        self.hub.send(self.connection_of(user), frame).await.unwrap();
    }

    /// Closes the connection of this user as an operator does.
    pub(super) async fn disconnect(&self, user: &str) {
        let target = Target::Connection(self.connection_of(user).to_string());
        self.hub.disconnect(&target, &Close::DISCONNECTED).await.unwrap();
    }

    /// A client that signed in with a header and has received `auth.success`.
    pub(super) async fn client(&mut self, user: &str) -> Client {
        let bearer = format!("Bearer {}", token(user));
        let mut client = self.connect("/ws", &[("authorization", &bearer)]).await.unwrap();
        client.expect("auth.success").await;
        client.expect("message.new").await;
        client.expect("early.push").await;
        assert!(matches!(self.next_event().await, ConnectionEvent::Opened { .. }));
        client
    }

    /// The error is the answer when the server did not upgrade.
    pub(super) async fn connect(&self, path: &str, headers: &[(&str, &str)]) -> Result<Client, String> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let mut request = Request::builder()
            .uri(format!("http://{}{path}", self.address))
            .header("host", self.address.to_string())
            .header("upgrade", "websocket")
            .header("connection", "upgrade")
            .header("sec-websocket-key", fastwebsockets::handshake::generate_key())
            .header("sec-websocket-version", "13");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let shaken = within(fastwebsockets::handshake::client(&TokioExecutor::new(), request, stream)).await;
        match shaken {
            Ok((mut socket, response)) => {
                socket.set_auto_close(false);
                Ok(Client { socket: FragmentCollector::new(socket), response })
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Sends bytes unchanged, and returns the whole answer.
    pub(super) async fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(request.as_ref()).await;
        let mut answer = Vec::new();
        let _ = within(stream.read_to_end(&mut answer)).await;
        String::from_utf8(answer).unwrap()
    }

    pub(super) async fn rest(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Rest {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            request += &format!("content-length: {}\r\n", body.len());
        }
        Rest::parse(&self.raw(format!("{request}\r\n{body}")).await)
    }
}

pub(super) struct Rest {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Rest {
    pub(super) fn parse(answer: &str) -> Self {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Self { status, headers, body: body.to_owned() }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    /// The problem in the body, after a check of what every problem has.
    pub(super) fn problem(&self) -> Value {
        let problem = self.json();
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(problem["status"], self.status);
        assert_eq!(problem["request_id"], self.headers["x-request-id"].as_str());
        problem
    }
}

pub(super) fn token(user: &str) -> String {
    token_for(user, 3600)
}

pub(super) fn token_for(user: &str, seconds: i64) -> String {
    let claims = json!({ "sub": user, "exp": (timestamp::now_ms() / 1000) as i64 + seconds });
    encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

pub(super) struct Client {
    pub socket: FragmentCollector<TokioIo<Upgraded>>,
    pub response: Response<hyper::body::Incoming>,
}

impl Client {
    pub(super) async fn send(&mut self, text: &str) {
        within(self.socket.write_frame(Frame::text(text.as_bytes().into()))).await.unwrap();
    }

    pub(super) async fn receive(&mut self) -> Value {
        let frame = within(self.socket.read_frame()).await.unwrap();
        assert_eq!(frame.opcode, OpCode::Text, "{:?}", String::from_utf8_lossy(&frame.payload));
        serde_json::from_slice(&frame.payload).unwrap()
    }

    pub(super) async fn expect(&mut self, frame_type: &str) -> Value {
        let frame = self.receive().await;
        assert_eq!(frame["type"], frame_type, "{frame}");
        frame
    }

    pub(super) async fn expect_close(&mut self, code: u16) {
        let frame = within(self.socket.read_frame()).await.unwrap();
        assert_eq!(frame.opcode, OpCode::Close, "{:?}", String::from_utf8_lossy(&frame.payload));
        assert_eq!(u16::from_be_bytes([frame.payload[0], frame.payload[1]]), code);
    }
}
