//! A server under measurement: the node, or a peer that does the same stored send. The load drives both with
//! the same frames, in turn.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt, stream};
use serde_json::{Value, json};
use switchboard_tests::checker::{Books, Wrong};
use switchboard_tests::ledger::{History, Stored};
use switchboard_tests::services::{Connection, Database};
use switchboard_tests::socket::{Handshake, Incoming, Socket};
use switchboard_tests::token::Token;

use crate::figures::{Figures, PeerFigures};
use crate::peers::Peer;
use crate::process::{self, Meter};
use crate::rig::Rig;

/// Clients that sign in at the same time.
const AT_ONCE: usize = 64;
/// The node may work on after a load, for example on the presence of those who left. It is quiet when it used
/// less than this in one look.
const QUIET_CPU: Duration = Duration::from_millis(20);
const QUIET_LOOK: Duration = Duration::from_millis(250);
/// A node that is not quiet by then is measured all the same.
const QUIET_WITHIN: Duration = Duration::from_secs(30);
/// Interval between two checks whether the measured process still runs.
const ENDED_LOOK: Duration = Duration::from_millis(100);
/// Time from the end of its connections to the end of a process.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

#[derive(Clone, Copy)]
pub(crate) struct Server<'a> {
    pub rig: &'a Rig,
    peer: Option<&'a Peer>,
}

/// The medians of the node and of each peer.
pub(crate) struct Turns {
    pub node: Figures,
    pub peers: Vec<PeerFigures>,
}

/// Measures the node and the peers in turn, so that the noise of a shared machine falls on all of them.
pub(crate) async fn in_turn<const N: usize>(
    rig: &Rig,
    measure: impl AsyncFn(Server<'_>) -> io::Result<[Figures; N]>,
) -> io::Result<[Turns; N]> {
    let peers = rig.start_peers().await?;
    let servers: Vec<_> = std::iter::once(rig.node())
        .chain(peers.iter().map(|peer| Server { rig, peer: Some(peer) }))
        .collect();
    let mut rounds: Vec<Vec<[Figures; N]>> = servers.iter().map(|_| Vec::new()).collect();
    for _ in 0..rig.rounds {
        for (server, rounds) in servers.iter().zip(&mut rounds) {
            quiet(rig).await;
            rounds.push(guarded(*server, &measure).await?);
        }
    }
    Ok(std::array::from_fn(|n| {
        let mut medians =
            rounds.iter().map(|rounds| Figures::median(rounds.iter().map(|figures| &figures[n])));
        let node = medians.next().unwrap_or_default();
        let peers = peers
            .iter()
            .zip(medians)
            .map(|(peer, figures)| PeerFigures { name: peer.kind.to_string(), figures })
            .collect();
        Turns { node, peers }
    }))
}

/// Measures each of them once: rows about a fresh process. The node is fresh only until its first row.
pub(crate) async fn each_once<const N: usize>(
    rig: &Rig,
    measure: impl AsyncFn(Server<'_>) -> io::Result<[Figures; N]>,
) -> io::Result<[Turns; N]> {
    let node = guarded(rig.node(), &measure).await?;
    let mut peers: [Vec<PeerFigures>; N] = std::array::from_fn(|_| Vec::new());
    for peer in rig.start_peers().await? {
        quiet(rig).await;
        let figures = guarded(Server { rig, peer: Some(&peer) }, &measure).await?;
        for (peers, figures) in peers.iter_mut().zip(figures) {
            peers.push(PeerFigures { name: peer.kind.to_string(), figures });
        }
    }
    let mut peers = peers.into_iter();
    Ok(node.map(|node| Turns { node, peers: peers.next().unwrap_or_default() }))
}

/// The figures, or an error if the server ended meanwhile: then no figure of it means anything.
async fn guarded<T>(
    server: Server<'_>,
    measure: &impl AsyncFn(Server<'_>) -> io::Result<T>,
) -> io::Result<T> {
    let pid = server.pid();
    let ended = || async move {
        while !process::has_ended(pid) {
            tokio::time::sleep(ENDED_LOOK).await;
        }
    };
    let measured = tokio::select! {
        measured = AssertUnwindSafe(measure(server)).catch_unwind() => Some(measured),
        () = ended() => None,
    };
    // A process closes its sockets shortly before its end, which may be why the measurement failed.
    let has_ended = match &measured {
        Some(Ok(Ok(_))) => process::has_ended(pid),
        _ => tokio::time::timeout(ENDS_WITHIN, ended()).await.is_ok(),
    };
    match measured {
        Some(Ok(figures)) if !has_ended => figures,
        Some(Err(panic)) if !has_ended => resume_unwind(panic),
        _ => {
            let doing = server.rig.doing();
            let name = server.name();
            Err(io::Error::other(format!(
                "{name} (pid {pid}) ended while it was measured; where it stood: {doing}"
            )))
        }
    }
}

/// Waits until the node has done what is left of an earlier load.
pub(crate) async fn quiet(rig: &Rig) {
    let deadline = Instant::now() + QUIET_WITHIN;
    while Instant::now() < deadline {
        let before = process::cpu(rig.host.pid());
        tokio::time::sleep(QUIET_LOOK).await;
        if process::cpu(rig.host.pid()) - before < QUIET_CPU {
            break;
        }
    }
}

/// Longest wait for the consumers of a node.
const CONSUMED_WITHIN: Duration = Duration::from_secs(120);

impl<'a> Server<'a> {
    /// Waits until all consumers of the node have handled all events, so that no later row pays for this one.
    /// Clients stay connected meanwhile: `notify` writes a row for everybody who has left a room before it
    /// comes to the message. A peer has no consumers.
    pub(crate) async fn consumed(&self) {
        const BEHIND: &str = "select count(*) from switchboard.cursors as c
            where c.high < (select max(position) from switchboard.outbox as o where o.shard = c.shard)";
        if !self.is_node() {
            return;
        }
        self.is("waiting for the consumers");
        let (connection, start) = (self.rig.host.database.connect().await, Instant::now());
        while connection.rows(BEHIND).await[0].get::<_, i64>(0) > 0 {
            if start.elapsed() > CONSUMED_WITHIN {
                eprintln!(
                    "  the consumers are not through after {CONSUMED_WITHIN:?}; the next row is slower for it"
                );
                break;
            }
            tokio::time::sleep(QUIET_LOOK).await;
        }
    }

    pub(crate) fn node(rig: &'a Rig) -> Self {
        Self { rig, peer: None }
    }

    pub(crate) fn is_node(&self) -> bool {
        self.peer.is_none()
    }

    fn name(&self) -> String {
        self.peer.map_or_else(|| "the node".into(), |peer| format!("the peer {}", peer.kind))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.peer.map_or(self.rig.host.address, |peer| peer.program.address)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.peer.map_or_else(|| self.rig.host.pid(), |peer| peer.program.pid())
    }

    fn database(&self) -> &Database {
        self.peer.map_or(&self.rig.host.database, |peer| &peer.database)
    }

    pub(crate) async fn connect_database(&self) -> Connection {
        self.database().connect().await
    }

    pub(crate) fn meter(&self) -> Meter {
        Meter::start(self.pid(), Some(self.database().postgres.pid()))
    }

    /// Keeps the step of this server, for the report of a row that does not end.
    pub(crate) fn is(&self, doing: impl std::fmt::Display) {
        self.rig.is(format!("{}: {doing}", self.name()));
    }

    /// A conversation of these users.
    pub(crate) async fn room(&self, users: &[String]) -> String {
        let Some(peer) = self.peer else { return self.rig.room(users).await };
        let connection = peer.database.connect().await;
        let made = "insert into chat.conversations (id) values (gen_random_uuid()) returning id::text";
        let room: String = connection.rows(made).await[0].get(0);
        let members: Vec<_> = users.iter().map(|user| format!("('{room}', '{user}')")).collect();
        let insert = "insert into chat.members (conversation_id, user_id) values";
        connection.run(&format!("{insert} {}", members.join(", "))).await;
        room
    }

    /// Makes so many conversations of one user alone.
    pub(crate) async fn rooms(&self, user: &str, conversations: usize) -> Vec<String> {
        let mut rooms = Vec::new();
        for _ in 0..conversations {
            rooms.push(self.room(&[user.to_owned()]).await);
        }
        rooms
    }

    /// Compares with what is stored, which a member of each conversation reads. Returns how many frames came
    /// twice.
    pub(crate) async fn check(&self, books: &Books, member: impl Fn(&str) -> String) -> Result<u64, Wrong> {
        let Some(peer) = self.peer else { return self.rig.check(books, member).await };
        self.is("comparing the acknowledged messages with the stored ones");
        let connection = peer.database.connect().await;
        for room in books.conversations() {
            let stored = format!("select seq, id::text from chat.messages where conversation_id = '{room}'");
            let rows = connection.rows(&stored).await;
            let history: History = rows
                .iter()
                .map(|row| {
                    let stored = Stored { id: row.get(1), content: String::new(), kind: "text".into() };
                    (row.get::<_, i64>(0) as u64, stored)
                })
                .collect();
            books.compare(room, &history)?;
        }
        Ok(0)
    }

    pub(crate) async fn signed_in(&self, user: &str) -> Socket {
        let handshake = Handshake::bearer(&Token::of(user).sign());
        let opened = Socket::open(self.address(), &handshake).await;
        let (mut socket, _) = opened.unwrap_or_else(|why| panic!("{user}: {why}"));
        read_until(&mut socket, |frame| frame["type"] == "auth.success").await;
        socket
    }

    /// A signed-in, subscribed client, ready to be read by the measurement. With a position for a client that
    /// resumes; returns the head.
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

    /// The same for many users, in their order.
    pub(crate) async fn all_subscribed(&self, users: &[String], room: &str) -> Vec<(Socket, u64)> {
        self.is(format!("{} people subscribe", users.len()));
        let clients = users.iter().map(|user| self.subscribed(user, room, None));
        stream::iter(clients).buffered(AT_ONCE).collect().await
    }
}

async fn read_until(socket: &mut Socket, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        match socket.next().await {
            Incoming::Json(frame) if wanted(&frame) => return frame,
            Incoming::Json(_) => {}
            end => panic!("the server ended a connection of the load: {end:?}"),
        }
    }
}
