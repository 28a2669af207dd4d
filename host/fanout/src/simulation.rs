//! A simulation of the rooms: two nodes, a bus that delays, drops, repeats, reorders and disconnects, clients
//! of every speed, and handlers that fail. One history is the truth. In every order of events, each client's
//! stream must be the history after the position with which it subscribed: in order, without repetition or
//! omission, and after the reply.
//!
//! The seed decides everything. A failure prints it.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::panic::catch_unwind;
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::envelope::{Batch, Envelope, addressed, pack};
use super::local::{Local, Mail};
use super::missing::{Missing, Reader};
use super::outlet::{ConnectionInfo, Outlet};
use super::room::{Page, Rules, Sound};
use switchboard_contract::channels::Publication;
use switchboard_contract::frame::Subscription;
use switchboard_contract::types::{Position, Push};
use switchboard_core::ids::{Address, ConnectionId, UserId};
use switchboard_protocol::wire::websocket::encode_text;

const NODES: usize = 2;
const ADDRESSES: usize = 3;
const CLIENTS: usize = 5;
const STEPS: usize = 2_000;
const SEEDS: u64 = 60;
const TRACKS: u8 = 2;

#[test]
fn every_stream_is_the_history_after_its_start() {
    for seed in 0..SEEDS {
        run(seed);
    }
}

/// A simulation that never fails proves nothing. Each of these bugs could occur around the rooms, in the hub,
/// the gateway or a handler, and the simulation must notice each within the seeds above.
#[test]
fn every_bug_is_noticed() {
    let notices = |bug| (0..SEEDS).any(|seed| catch_unwind(|| run_with::<Sound>(seed, Some(bug))).is_err());
    let unnoticed: Vec<_> = Bug::ALL.into_iter().filter(|bug| !notices(*bug)).collect();
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
}

/// The same for mistakes inside the rooms.
#[test]
fn every_mistake_is_noticed() {
    fn notices<R: Rules>() -> bool {
        (0..SEEDS).any(|seed| catch_unwind(|| run_with::<R>(seed, None)).is_err())
    }
    assert!(notices::<JumpOverlooked>(), "the simulation does not notice an overlooked jump");
    assert!(notices::<RefusalForgotten>(), "the simulation does not notice a forgotten refusal");
}

/// The room treats a jump like the next position.
enum JumpOverlooked {}

impl Rules for JumpOverlooked {
    fn follows(_: Option<u64>, _: u64) -> bool {
        true
    }
}

/// The room treats a refused push as delivered.
enum RefusalForgotten {}

impl Rules for RefusalForgotten {
    fn stays_live(_: bool) -> bool {
        true
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// The gate opens before the reply is in the queue.
    PushBeforeReply,
    /// The bus reconnects, and the rooms are not notified.
    LostOnResubscribe,
    /// The reply states a position that is one higher than the client's.
    AfterTooFar,
    /// A page has the newest first.
    PageInReverse,
    /// A page states that it reaches further than it does.
    PageLeavesOutOne,
    /// A request is neither answered nor given up.
    QuestionForgotten,
    /// An outlet has space again, and the rooms are not notified.
    DrainNotNotified,
    /// The gateway writes the same piece again after a short write.
    PieceWrittenTwice,
    /// A failed call leaves its gate shut.
    CallNotUndone,
    /// The client has unsubscribed, and the rooms are not notified.
    UnsubscribeNotNotified,
}

impl Bug {
    const ALL: [Self; 10] = [
        Self::PushBeforeReply,
        Self::LostOnResubscribe,
        Self::AfterTooFar,
        Self::PageInReverse,
        Self::PageLeavesOutOne,
        Self::QuestionForgotten,
        Self::DrainNotNotified,
        Self::PieceWrittenTwice,
        Self::CallNotUndone,
        Self::UnsubscribeNotNotified,
    ];
}

/// Panics with the seed in the message.
fn run(seed: u64) {
    run_with::<Sound>(seed, None);
}

fn run_with<R: Rules>(seed: u64, bug: Option<Bug>) {
    let mut world = World::<R>::new(seed);
    world.bug = bug;
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
}

struct World<R> {
    seed: u64,
    bug: Option<Bug>,
    random: StdRng,
    nodes: Vec<Node<R>>,
    /// For each address: its commits, and how many of them the relay has published, in commit order.
    histories: Vec<History>,
    clients: Vec<Client>,
    clock: u64,
}

#[derive(Default)]
struct History {
    commits: Vec<Position>,
    published: usize,
}

struct Node<R> {
    local: Local<R>,
    mail: Mail,
    /// Publications that the bus has not delivered yet.
    coming: VecDeque<(usize, Vec<Position>)>,
    connected: bool,
    /// A publication was lost, and the node was not notified of it.
    unaware: bool,
    asked: Vec<Missing>,
}

struct Client {
    node: usize,
    connection: ConnectionId,
    outlet: Arc<Outlet>,
    /// For each address: the number that must come next on each track. None: not subscribed.
    expects: Vec<Option<[u64; TRACKS as usize]>>,
    /// The values of `expects` that unread replies will set.
    replies: HashMap<u64, (usize, [u64; TRACKS as usize])>,
    calling: Option<Call>,
    /// The number of steps between two reads.
    pace: usize,
}

/// A `subscribe` that its handler has not answered yet.
struct Call {
    address: usize,
    /// The client's positions when the call began.
    has: [u64; TRACKS as usize],
}

impl<R: Rules> World<R> {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let nodes: Vec<_> = (0..NODES)
            .map(|_| {
                let (local, mail) = Local::new();
                Node {
                    local,
                    mail,
                    coming: VecDeque::new(),
                    connected: true,
                    unaware: false,
                    asked: Vec::new(),
                }
            })
            .collect();
        let clients = (0..CLIENTS).map(|id| {
            let node = id % NODES;
            let connection = ConnectionId::parse(&format!("00000000-0000-7000-8000-{id:012}")).unwrap();
            let user = UserId::parse(&format!("user{id}")).unwrap();
            let outlet =
                nodes[node].local.open_connection(ConnectionInfo { connection, user, session: "s".into() });
            Client {
                node,
                connection,
                outlet,
                expects: vec![None; ADDRESSES],
                replies: HashMap::new(),
                calling: None,
                pace: *[1, 2, 10, 200].get(random.random_range(0..4)).unwrap(),
            }
        });
        let clients = clients.collect();
        let histories = (0..ADDRESSES).map(|_| History::default()).collect();
        Self { seed, bug: None, random, nodes, histories, clients, clock: 0 }
    }

    fn step(&mut self) {
        self.clock += 1;
        match self.random.random_range(0..100) {
            0..25 => self.commit(),
            25..45 => self.publish(),
            45..65 => self.deliver(),
            65..75 => drop(self.answer(true)),
            75..80 => self.wait_is_over(),
            80..85 => self.drained(),
            85..95 => self.call(),
            95..96 => self.unsubscribe(),
            96..97 => self.lose_or_find_the_bus(),
            _ => self.disturb_the_bus(),
        }
        for client in 0..CLIENTS {
            if self.clock.is_multiple_of(self.clients[client].pace as u64) {
                let bytes_max = self.random.random_range(1..200_000);
                self.read(client, bytes_max);
            }
        }
    }

    /// No more failures: everything must arrive.
    fn settle(&mut self) {
        for client in 0..CLIENTS {
            self.end_call(client, false);
        }
        for address in 0..ADDRESSES {
            while self.histories[address].published < self.histories[address].commits.len() {
                self.publish_of(address);
            }
        }
        for node in &mut self.nodes {
            // A real bus reports every loss. Without a loss, every push must arrive without `suspect_loss`.
            if !node.connected || node.unaware {
                if node.connected || self.bug != Some(Bug::LostOnResubscribe) {
                    node.local.suspect_loss();
                }
                node.connected = true;
            }
            while let Some((address, positions)) = node.coming.pop_front() {
                node.local.deliver(&name(address), &encode(address, &positions));
            }
        }
        for _ in 0..10_000 {
            self.wait_is_over();
            self.drained();
            let answered = self.answer(false);
            let mut read = 0;
            for client in 0..CLIENTS {
                read += self.read(client, 100_000);
            }
            self.nodes.iter_mut().for_each(Node::collect);
            if !answered && read == 0 && self.nodes.iter().all(|node| node.asked.is_empty()) {
                break;
            }
        }
        for (id, client) in self.clients.iter().enumerate() {
            for (address, expects) in client.expects.iter().enumerate() {
                let Some(expects) = expects else { continue };
                let end = self.histories[address].ends();
                assert_eq!(
                    *expects,
                    end.map(|number| number + 1),
                    "seed {}: client {id} did not get all of address {address}",
                    self.seed
                );
            }
        }
    }

    // ---- the truth ----

    fn commit(&mut self) {
        let address = self.random.random_range(0..ADDRESSES);
        let track = u8::from(self.random.random_bool(0.2));
        let history = &mut self.histories[address];
        let number = history.ends()[usize::from(track)] + 1;
        history.commits.push(Position { track, number });
    }

    /// The relay lags behind the commits, and publishes several at once.
    fn publish(&mut self) {
        let address = self.random.random_range(0..ADDRESSES);
        self.publish_of(address);
    }

    fn publish_of(&mut self, address: usize) {
        let history = &mut self.histories[address];
        let until = (history.published + self.random.random_range(1..5)).min(history.commits.len());
        let batch = history.commits[history.published..until].to_vec();
        history.published = until;
        for node in self.nodes.iter_mut().filter(|node| node.connected) {
            node.coming.push_back((address, batch.clone()));
        }
    }

    // ---- the bus ----

    fn deliver(&mut self) {
        let node = self.random.random_range(0..NODES);
        for _ in 0..self.random.random_range(1..4) {
            let Some((address, positions)) = self.nodes[node].coming.pop_front() else { return };
            let batch = encode(address, &positions);
            self.nodes[node].local.deliver(&name(address), &batch);
        }
    }

    fn disturb_the_bus(&mut self) {
        let node = self.random.random_range(0..NODES);
        let waiting = self.nodes[node].coming.len();
        if waiting == 0 {
            return;
        }
        let at = self.random.random_range(0..waiting);
        match self.random.random_range(0..3) {
            // Only in some runs, because `suspect_loss` at the end would also hide other losses.
            0 if self.seed.is_multiple_of(2) => {
                self.nodes[node].coming.remove(at);
                self.nodes[node].unaware = true;
            }
            1 => {
                let again = self.nodes[node].coming[at].clone();
                self.nodes[node].coming.push_back(again);
            }
            _ => self.nodes[node].coming.swap(at, waiting - 1),
        }
    }

    fn lose_or_find_the_bus(&mut self) {
        let node = self.random.random_range(0..NODES);
        let node = &mut self.nodes[node];
        node.connected = !node.connected;
        match node.connected {
            true if self.bug == Some(Bug::LostOnResubscribe) => {}
            true => {
                node.unaware = false;
                node.local.suspect_loss();
            }
            false => node.coming.clear(),
        }
    }

    // ---- the handler of `missed` ----

    /// Answers one request. Returns false when there is none.
    fn answer(&mut self, may_fail: bool) -> bool {
        let node = self.random.random_range(0..NODES);
        self.nodes[node].collect();
        if self.nodes[node].asked.is_empty() {
            return self.nodes.iter().any(|node| !node.asked.is_empty());
        }
        let which = self.random.random_range(0..self.nodes[node].asked.len());
        let missing = self.nodes[node].asked.swap_remove(which);
        if may_fail && self.random.random_bool(0.1) {
            if self.bug == Some(Bug::QuestionForgotten) {
                return true;
            }
            self.nodes[node].local.give_up(&missing);
            return true;
        }
        let pushes_max = self.random.random_range(1..20);
        let address = index(missing.address());
        let in_reverse = self.bug == Some(Bug::PageInReverse);
        let mut page = self.histories[address].page(address, missing.gap().after, pushes_max, in_reverse);
        if self.bug == Some(Bug::PageLeavesOutOne)
            && let Some(last) = page.reached.last_mut()
            && self.histories[address].ends()[usize::from(last.track)] > last.number
        {
            last.number += 1;
        }
        self.nodes[node].local.fill(&missing, &page);
        true
    }

    fn wait_is_over(&mut self) {
        for node in &mut self.nodes {
            while let Ok(missing) = node.mail.retries.try_recv() {
                node.mail.ask.send(missing).unwrap();
            }
        }
    }

    fn drained(&mut self) {
        for node in &mut self.nodes {
            while let Ok(connection) = node.mail.drained.try_recv() {
                if self.bug != Some(Bug::DrainNotNotified) {
                    node.local.drained(connection);
                }
            }
        }
    }

    // ---- the clients ----

    /// Begins a `subscribe`, or ends the running one.
    fn call(&mut self) {
        let id = self.random.random_range(0..CLIENTS);
        if self.clients[id].calling.is_some() {
            let fails = self.random.random_bool(0.2);
            return self.end_call(id, fails);
        }
        let address = self.random.random_range(0..ADDRESSES);
        // Somewhere in the history, or at its end.
        let ends = self.histories[address].ends();
        let resumes = self.random.random_bool(0.5);
        let has = ends.map(|end| if resumes { self.random.random_range(0..=end) } else { end });
        let client = &mut self.clients[id];
        self.nodes[client.node].local.gate(client.connection, &[name(address)]).unwrap();
        client.calling = Some(Call { address, has });
    }

    fn end_call(&mut self, id: usize, fails: bool) {
        let client = &mut self.clients[id];
        let Some(Call { address, has }) = client.calling.take() else { return };
        let local = &self.nodes[client.node].local;
        if fails && self.bug == Some(Bug::CallNotUndone) {
            return;
        }
        if fails {
            return local.undo_gates(client.connection);
        }
        // The head, as the handler reads it after the gate. A client whose positions equal the head misses
        // nothing.
        let ends = self.histories[address].ends();
        let too_far = u64::from(self.bug == Some(Bug::AfterTooFar));
        let after = (0..TRACKS).map(|track| Position { track, number: has[usize::from(track)] + too_far });
        let subscription =
            Subscription { address: name(address).to_string(), after: after.collect(), missed: has != ends };
        client.replies.insert(self.clock, (address, has.map(|number| number + 1)));
        let reply = format!("reply {}", self.clock);
        if self.bug == Some(Bug::PushBeforeReply) {
            local.open_gates(client.connection, &[subscription]);
            while self.answer(false) {}
            return self.clients[id].outlet.push_reply(encode_text(&reply));
        }
        client.outlet.push_reply(encode_text(&reply));
        local.open_gates(client.connection, &[subscription]);
    }

    fn unsubscribe(&mut self) {
        let id = self.random.random_range(0..CLIENTS);
        let address = self.random.random_range(0..ADDRESSES);
        if self.clients[id].calling.is_some() {
            return; // frames of one connection are handled one after the other
        }
        // Queued frames are read first, so that none of them is taken for a frame of the next subscription.
        while self.read(id, 1_000_000) > 0 {}
        let client = &mut self.clients[id];
        if self.bug != Some(Bug::UnsubscribeNotNotified) {
            self.nodes[client.node].local.unsubscribe(client.connection, &[name(address)]);
        }
        while self.read(id, 1_000_000) > 0 {}
        self.clients[id].expects[address] = None;
    }

    /// Reads frames and checks them. Returns their number.
    fn read(&mut self, id: usize, bytes_max: usize) -> usize {
        let client = &mut self.clients[id];
        let mut pieces = Vec::new();
        client.outlet.take(&mut pieces, bytes_max);
        if self.bug == Some(Bug::PieceWrittenTwice) && bytes_max.is_multiple_of(50) {
            pieces.extend(pieces.last().cloned());
        }
        let frames: Vec<_> = pieces.into_iter().flat_map(texts).collect();
        for frame in &frames {
            let mut words = frame.split(' ');
            let kind = words.next().unwrap();
            let mut number = || words.next().unwrap().parse::<u64>().unwrap();
            if kind == "reply" {
                let (address, expects) = client.replies.remove(&number()).unwrap();
                client.expects[address] = Some(expects);
                continue;
            }
            let (address, track, number) = (number() as usize, number() as usize, number());
            let Some(expects) = &mut client.expects[address] else {
                panic!("seed {}: client {id} got a push of address {address} before its reply", self.seed);
            };
            assert_eq!(
                number, expects[track],
                "seed {}, step {}: client {id}, address {address}, track {track}",
                self.seed, self.clock
            );
            expects[track] += 1;
        }
        frames.len()
    }
}

impl History {
    fn ends(&self) -> [u64; TRACKS as usize] {
        let mut ends = [0; TRACKS as usize];
        for commit in &self.commits {
            ends[usize::from(commit.track)] = commit.number;
        }
        ends
    }

    /// Makes a page as a handler does: one track after the other.
    fn page(&self, address: usize, after: Vec<Position>, pushes_max: usize, in_reverse: bool) -> Page {
        let mut reached = after;
        let mut missed = Vec::new();
        for track in 0..TRACKS {
            let from = reached.iter().find(|position| position.track == track);
            // A request never names a track that the room does not know.
            let Some(from) = from.map(|position| position.number) else { continue };
            let of_track = |commit: &&Position| commit.track == track && commit.number > from;
            missed.extend(self.commits.iter().filter(of_track).copied());
        }
        let more = missed.len() > pushes_max;
        missed.truncate(pushes_max);
        reached.extend(&missed);
        let push = |position: &Position| Push { frame: text(address, position), position: Some(*position) };
        let mut pushes: Vec<_> = missed.iter().map(push).collect();
        if in_reverse {
            pushes.reverse();
        }
        Page { pushes: Batch::of_page(&pushes), reached, more }
    }
}

impl<R: Rules> Node<R> {
    /// Takes the requests for missed pushes, in an order that does not depend on that of a map.
    fn collect(&mut self) {
        while let Ok(missing) = self.mail.asks.try_recv() {
            self.asked.push(missing);
        }
        self.asked.sort_by_key(|missing| {
            let reader = match missing.reader {
                Reader::Live => None,
                Reader::One(connection) => Some(connection),
            };
            (missing.address.clone(), reader, missing.ticket)
        });
    }
}

fn name(address: usize) -> Address {
    Address::parse(&format!("conv:{address}")).unwrap()
}

fn index(address: &Address) -> usize {
    address.as_str().strip_prefix("conv:").unwrap().parse().unwrap()
}

/// The frame of a push. Some frames are large, so that queues fill.
fn text(address: usize, position: &Position) -> String {
    let mut text = format!("push {address} {} {} ", position.track, position.number);
    let padding = if position.number.is_multiple_of(7) { 30_000 } else { 200 };
    write!(text, "{:padding$}", "").unwrap();
    text
}

/// Encodes and decodes publications through the envelope, as on the real bus.
fn encode(address: usize, positions: &[Position]) -> Batch {
    let publications: Vec<_> = positions
        .iter()
        .map(|position| Publication {
            address: name(address).to_string(),
            frame: text(address, position),
            position: Some(*position),
            merge_key: None,
            except_user: None,
        })
        .collect();
    let mut batch = Batch::default();
    for (_, bytes) in pack(&addressed(&publications)).unwrap() {
        match Envelope::decode(bytes).unwrap() {
            Envelope::Publications(part) => batch.append(part),
            other => panic!("{other:?}"),
        }
    }
    batch
}

/// The text frames of a piece.
fn texts(mut piece: Bytes) -> Vec<String> {
    let mut texts = Vec::new();
    while !piece.is_empty() {
        let (header, len) = match piece[1] {
            126 => (4, usize::from(u16::from_be_bytes([piece[2], piece[3]]))),
            127 => panic!("no frame of the simulation is that long"),
            len => (2, usize::from(len)),
        };
        let frame = piece.split_to(header + len);
        texts.push(String::from_utf8(frame[header..].to_vec()).unwrap());
    }
    texts
}
