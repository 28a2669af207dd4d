//! The set-up of a run: a Postgres, a Redis, a host without rate limits, and signed-in people.
use parking_lot::Mutex;
use serde_json::{Value, json};
use switchboard_tests::checker::{Books, Wrong};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::services::{Postgres, Redis};
use switchboard_tests::socket::{Handshake, Incoming, Socket};
use switchboard_tests::token::Token;

/// More than any row opens.
const CONNECTIONS_MAX: usize = 20_000;

/// Users who can be named when a conversation is made.
const MEMBERS_AT_ONCE: usize = 500;

pub(crate) struct Rig {
    pub host: Host,
    doing: Mutex<String>,
}

impl Rig {
    /// Without `flush` a COMMIT does not wait for the disk, which on a shared machine would measure other
    /// users; both sides of every row are on the same cluster.
    pub(crate) async fn start(flush: bool) -> Self {
        let postgres = Postgres::start(if flush { &[] } else { &["fsync = off"] }).await;
        let database = postgres.database().await;
        let options = Options::default()
            .without_rate_limits()
            .set("CONNECTIONS_MAX", CONNECTIONS_MAX)
            // All connections come from this machine.
            .set("ANONYMOUS_PER_ADDRESS_MAX", 0)
            .set("CONNECTIONS_PER_USER_MAX", CONNECTIONS_MAX)
            .set("LOG", "warn");
        let mut host = Host::over(database, Redis::start().await, options).await;
        host.start().await;
        Self { host, doing: Mutex::default() }
    }

    /// Prints a step before it begins, so that a row that reaches its maximum time shows its last step.
    pub(crate) fn is(&self, doing: impl Into<String>) {
        *self.doing.lock() = doing.into();
    }

    pub(crate) fn doing(&self) -> String {
        self.doing.lock().clone()
    }

    /// The history of everything that a row sent, read as `member`. Returns how many frames came twice.
    pub(crate) async fn check(&self, books: &Books, member: &str) -> Result<u64, Wrong> {
        self.is("comparing the received messages with the histories");
        let checked = books.check(self.host.address, |_| member.to_owned()).await?;
        println!(
            "  checked: {} stored, {} acknowledged, {} deliveries, {} of them again",
            checked.stored, checked.acknowledged, checked.delivered, checked.duplicates
        );
        Ok(checked.duplicates as u64)
    }

    /// A conversation of these users, the first its owner. People beyond the maximum of one request are
    /// inserted directly, because the row does not measure joins.
    pub(crate) async fn room(&self, users: &[String]) -> String {
        let (first, rest) = users.split_at(users.len().min(MEMBERS_AT_ONCE));
        let first: Vec<_> = first.iter().map(String::as_str).collect();
        let room = self.host.group("load", &first).await;
        if !rest.is_empty() {
            let rows: Vec<_> =
                rest.iter().map(|user| format!("('{room}', '{user}', 'member', true)")).collect();
            let connection = self.host.database.connect().await;
            let insert = "insert into app.participants (conversation_id, user_id, role, engaged) values";
            connection.run(&format!("{insert} {}", rows.join(", "))).await;
        }
        room
    }

    /// A signed-in, subscribed client, ready to be read by the measurement. With a position for a client that
    /// resumes; returns the head of the host.
    pub(crate) async fn subscribed(&self, user: &str, room: &str, position: Option<u64>) -> (Socket, u64) {
        let mut socket = self.signed_in(user).await;
        let positions = position.map_or(json!({}), |seq| json!({ room: seq }));
        let payload = json!({"conversation_ids": [room], "positions": positions});
        socket
            .write_json(&json!({"type": "subscribe", "id": "s", "payload": payload}))
            .await
            .expect("a frame is taken");
        let reply = read_until(&mut socket, |frame| frame["id"] == "s").await;
        let head = reply["payload"]["heads"][room].as_u64();
        (socket, head.unwrap_or_else(|| panic!("subscribed without a head: {reply}")))
    }

    pub(crate) async fn signed_in(&self, user: &str) -> Socket {
        let handshake = Handshake::bearer(&Token::of(user).sign());
        let opened = Socket::open(self.host.address, &handshake).await;
        let (mut socket, _) = opened.unwrap_or_else(|why| panic!("{user}: {why}"));
        read_until(&mut socket, |frame| frame["type"] == "auth.success").await;
        socket
    }
}

async fn read_until(socket: &mut Socket, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        match socket.next().await {
            Incoming::Json(frame) if wanted(&frame) => return frame,
            Incoming::Json(_) => {}
            end => panic!("the host ended a connection of the load: {end:?}"),
        }
    }
}

/// `message.send` with nothing but its text.
pub(crate) fn message(id: u64, room: &str, content: &str) -> String {
    json!({"type": "message.send", "id": id, "payload": {"conversation_id": room, "content": content}})
        .to_string()
}

/// Whether a frame is of this type, without reading it as JSON: the load must cost less than what it
/// measures.
pub(crate) fn is(frame: &[u8], frame_type: &[u8]) -> bool {
    let head = &frame[..frame.len().min(64)];
    head.windows(frame_type.len()).any(|window| window == frame_type)
}
