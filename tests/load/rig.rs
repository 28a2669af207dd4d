//! The set-up of a run: a Postgres, a Redis, a host without rate limits, and the peers.

use std::io;

use parking_lot::Mutex;
use serde_json::json;
use switchboard_tests::checker::{Books, Wrong};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::services::{Database, Postgres, Redis};
use tokio::sync::OnceCell;

use crate::peers::{self, Kind, Peer};
use crate::process::Meter;
use crate::server::Server;

/// More than any row opens.
const CONNECTIONS_MAX: usize = 20_000;

/// Users who can be named when a conversation is made.
const MEMBERS_AT_ONCE: usize = 500;

pub(crate) struct Rig {
    pub host: Host,
    /// The number of times that the node and each peer are measured in turn.
    pub rounds: usize,
    peers: Vec<Kind>,
    peers_database: OnceCell<Database>,
    doing: Mutex<String>,
}

impl Rig {
    /// Without `flush` a COMMIT does not wait for the disk, which on a shared machine would measure other
    /// users; both sides of every row are on the same cluster.
    pub(crate) async fn start(flush: bool, peers: &[Kind], rounds: usize) -> Self {
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
        let (peers, peers_database, doing) = (peers.to_vec(), OnceCell::new(), Mutex::default());
        Self { host, rounds, peers, peers_database, doing }
    }

    /// The node, as a server beside its peers.
    pub(crate) fn node(&self) -> Server<'_> {
        Server::node(self)
    }

    /// Starts a new process of each peer of this run. They share a database.
    pub(crate) async fn start_peers(&self) -> io::Result<Vec<Peer>> {
        let mut started = Vec::new();
        for kind in &self.peers {
            let database = self.peers_database.get_or_init(async || {
                let database = self.host.database.postgres.database().await;
                peers::prepare(&database).await;
                database
            });
            started.push(Peer::start(*kind, database.await).await?);
        }
        Ok(started)
    }

    /// Measures the processor time of the node and of Postgres from now on.
    pub(crate) fn meter(&self) -> Meter {
        self.node().meter()
    }

    /// Prints a step before it begins, so that a row that reaches its maximum time shows its last step.
    pub(crate) fn is(&self, doing: impl Into<String>) {
        *self.doing.lock() = doing.into();
    }

    pub(crate) fn doing(&self) -> String {
        self.doing.lock().clone()
    }

    /// The history of everything that a row sent, read as a member of each conversation. Returns how many
    /// frames came twice.
    pub(crate) async fn check(&self, books: &Books, member: impl Fn(&str) -> String) -> Result<u64, Wrong> {
        self.is("comparing the received messages with the histories");
        let checked = books.check(self.host.address, member).await?;
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
        // People who were added are engaged once they act. Only the engaged see each other's presence.
        let engage = format!("update app.participants set engaged = true where conversation_id = '{room}'");
        self.host.database.connect().await.run(&engage).await;
        room
    }
}

/// `message.send` with nothing but its text.
pub(crate) fn message(id: u64, room: &str, content: &str) -> String {
    json!({"type": "message.send", "id": id, "payload": {"conversation_id": room, "content": content}})
        .to_string()
}

/// The number that the content of a message begins with. Figures that need to know which message a frame is
/// about begin the content with its number.
pub(crate) fn number_of(frame: &[u8]) -> Option<usize> {
    number_after(frame, b"\"content\":\"")
}

/// The number behind these bytes.
pub(crate) fn number_after(frame: &[u8], name: &[u8]) -> Option<usize> {
    let place = frame.windows(name.len()).position(|window| window == name)? + name.len();
    let digits = frame[place..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}

/// Whether a frame is of this type, without reading it as JSON: the load must cost less than what it
/// measures.
pub(crate) fn is(frame: &[u8], frame_type: &[u8]) -> bool {
    let head = &frame[..frame.len().min(64)];
    head.windows(frame_type.len()).any(|window| window == frame_type)
}
