//! The delivery guarantees of the protocol, one test each. The tests control the time and the bus.

mod cost;

use std::sync::Arc;

use super::*;
use crate::envelope::{Envelope, addressed, pack};
use crate::outlet::Taken;
use switchboard_contract::channels::Publication;
use switchboard_contract::types::{Position, Push};
use switchboard_protocol::wire::websocket::encode_text;

struct Node {
    local: Local,
    mail: Mail,
}

/// A connection, as its client sees it.
struct Client {
    connection: ConnectionId,
    outlet: Arc<Outlet>,
}

impl Node {
    fn new() -> Self {
        let (local, mail) = Local::new();
        Self { local, mail }
    }

    fn join(&self, user: &str) -> Client {
        let connection = ConnectionId::random();
        let user = UserId::parse(user).unwrap();
        let outlet =
            self.local.open_connection(ConnectionInfo { connection, user, session: "session".into() });
        Client { connection, outlet }
    }

    /// The whole of a `subscribe` whose client has everything up to `after`.
    fn subscribe(&self, client: &Client, after: &[Position]) {
        self.gate(client);
        self.open(client, after, false);
    }

    fn gate(&self, client: &Client) {
        self.local.gate(client.connection, &[lobby()]).unwrap();
    }

    fn open(&self, client: &Client, after: &[Position], missed: bool) {
        client.outlet.push_reply(encode_text("subscribed"));
        let subscription = Subscription { address: lobby().to_string(), after: after.to_vec(), missed };
        self.local.open_gates(client.connection, &[subscription]);
    }

    fn publish(&self, publications: &[Publication]) {
        for (address, bytes) in pack(&addressed(publications)).unwrap() {
            let Ok(Envelope::Publications(batch)) = Envelope::decode(bytes) else { panic!() };
            self.local.deliver(&address, &batch);
        }
    }

    /// Messages of the lobby, by seq.
    fn bring(&self, numbers: impl IntoIterator<Item = u64>) {
        let messages: Vec<_> = numbers.into_iter().map(message).collect();
        self.publish(&messages);
    }

    fn expect_question(&mut self, after: &[Position]) -> Missing {
        let missing = self.mail.asks.try_recv().expect("no request");
        assert_eq!(missing.gap().after, after);
        missing
    }

    fn expect_repeated_question(&mut self) -> Missing {
        assert!(self.mail.asks.try_recv().is_err());
        self.mail.retries.try_recv().expect("no repeated request")
    }

    fn expect_no_question(&mut self) {
        assert!(self.mail.asks.try_recv().is_err() && self.mail.retries.try_recv().is_err());
    }

    fn answer(&self, missing: &Missing, numbers: impl IntoIterator<Item = u64>, more: bool) {
        let pushes: Vec<_> = numbers
            .into_iter()
            .map(|number| Push { frame: number.to_string(), position: Some(seq(number)) })
            .collect();
        let reached = pushes.iter().filter_map(|push| push.position).collect();
        self.local.fill(missing, &Page { pushes: Batch::of_page(&pushes), reached, more });
    }
}

impl Client {
    /// Reads all queued frames, as text.
    fn reads(&self) -> String {
        let mut pieces = Vec::new();
        self.outlet.take(&mut pieces, usize::MAX);
        let bytes: Vec<u8> = pieces.concat();
        let mut words = Vec::new();
        let mut rest = &bytes[..];
        while let [0x81, len, after @ ..] = rest {
            let (len, after) = match len {
                126 => (usize::from(u16::from_be_bytes([after[0], after[1]])), &after[2..]),
                len => (usize::from(*len), after),
            };
            words.push(std::str::from_utf8(&after[..len]).unwrap().split('.').next().unwrap());
            rest = &after[len..];
        }
        assert!(rest.is_empty());
        words.join(" ")
    }

    fn end(&self) -> Taken {
        self.outlet.take(&mut Vec::new(), usize::MAX)
    }
}

fn lobby() -> Address {
    Address::parse("conv:lobby").unwrap()
}

fn seq(number: u64) -> Position {
    Position { track: 0, number }
}

fn change(number: u64) -> Position {
    Position { track: 1, number }
}

fn unpositioned(word: &str) -> Publication {
    Publication {
        address: lobby().to_string(),
        frame: word.to_owned(),
        position: None,
        merge_key: None,
        except_user: None,
    }
}

fn message(number: u64) -> Publication {
    Publication { position: Some(seq(number)), ..unpositioned(&number.to_string()) }
}

#[test]
fn messages_come_in_order_and_once() {
    let mut node = Node::new();
    let ana = node.join("ana");
    node.subscribe(&ana, &[seq(3)]);
    node.bring([2, 3, 4, 4, 5]);
    node.bring([5, 6]);
    assert_eq!(ana.reads(), "subscribed 4 5 6");
    node.expect_no_question();
}

#[test]
fn a_jump_holds_the_stream_back_until_it_is_filled() {
    let mut node = Node::new();
    let (ana, bo) = (node.join("ana"), node.join("bo"));
    node.subscribe(&ana, &[seq(3)]);
    node.subscribe(&bo, &[seq(3)]);
    node.bring([4, 6, 8]);
    assert_eq!(ana.reads(), "subscribed 4");
    let missing = node.expect_question(&[seq(4)]);
    node.bring([9]);
    node.expect_no_question(); // one request for all subscribers
    node.answer(&missing, [5, 6, 7], false);
    assert_eq!(ana.reads(), "5 6 7 8 9");
    assert_eq!(bo.reads(), "subscribed 4 5 6 7 8 9");
    node.bring([10]);
    assert_eq!(ana.reads(), "10");
    node.expect_no_question();
}

#[test]
fn a_reordering_bus_costs_a_question_and_no_order() {
    let mut node = Node::new();
    let ana = node.join("ana");
    node.subscribe(&ana, &[seq(3)]);
    node.bring([5]);
    node.bring([4]);
    let missing = node.expect_question(&[seq(3)]);
    node.answer(&missing, [], false); // a history that lags behind
    assert_eq!(ana.reads(), "subscribed 4 5");
    node.expect_no_question();
}

#[test]
fn the_reply_comes_before_any_push() {
    let node = Node::new();
    let ana = node.join("ana");
    node.gate(&ana);
    node.bring([4, 5]);
    node.publish(&[unpositioned("typing")]);
    assert_eq!(ana.reads(), "");
    node.open(&ana, &[seq(3)], false);
    assert_eq!(ana.reads(), "subscribed typing 4 5");
}

#[test]
fn missed_messages_come_before_newer_ones_and_only_to_clients_that_missed_them() {
    let mut node = Node::new();
    let (ana, bo) = (node.join("ana"), node.join("bo"));
    node.subscribe(&bo, &[seq(9)]);
    node.gate(&ana);
    node.open(&ana, &[seq(6)], true);
    node.bring([10, 11]);
    let first = node.expect_question(&[seq(6)]);
    node.answer(&first, [7, 8], true);
    let second = node.expect_question(&[seq(8)]);
    node.answer(&second, [9, 10], false);
    node.bring([12]);
    assert_eq!(ana.reads(), "subscribed 7 8 9 10 11 12");
    assert_eq!(bo.reads(), "subscribed 10 11 12");
    node.expect_no_question();
}

#[test]
fn a_reader_who_knows_more_than_the_bus_gets_nothing_twice() {
    let mut node = Node::new();
    let (ana, bo) = (node.join("ana"), node.join("bo"));
    node.subscribe(&bo, &[seq(3)]);
    node.subscribe(&ana, &[seq(5)]); // it read the head before the relay published
    node.bring([4, 5, 6]);
    assert_eq!(ana.reads(), "subscribed 6");
    assert_eq!(bo.reads(), "subscribed 4 5 6");
    node.expect_no_question();
}

#[test]
fn more_pushes_than_the_ring_holds_cost_one_more_page() {
    let mut node = Node::new();
    let ana = node.join("ana");
    let last = 1 + limits::RING_PUSHES_MAX as u64 + 1;
    node.gate(&ana);
    for number in 2..=last {
        node.bring([number]); // one past what the ring holds: 2 is forgotten
    }
    node.open(&ana, &[seq(1)], false);
    let missing = node.expect_question(&[seq(1)]);
    node.answer(&missing, [2, 3], true);
    let missing = node.expect_question(&[seq(3)]);
    node.answer(&missing, 4..=last, false);
    let expected: Vec<_> = (2..=last).map(|number| number.to_string()).collect();
    assert_eq!(ana.reads(), format!("subscribed {}", expected.join(" ")));
}

#[test]
fn a_ring_that_reaches_back_needs_no_question() {
    let mut node = Node::new();
    let ana = node.join("ana");
    node.gate(&ana);
    node.bring(2..=limits::RING_PUSHES_MAX as u64 + 1);
    node.open(&ana, &[seq(1)], false);
    assert!(ana.reads().ends_with(&format!(" {}", limits::RING_PUSHES_MAX + 1)));
    node.expect_no_question();
}

#[test]
fn tracks_are_counted_separately() {
    let mut node = Node::new();
    let ana = node.join("ana");
    node.subscribe(&ana, &[seq(3), change(7)]);
    let edit = |number| Publication { position: Some(change(number)), ..unpositioned("edit") };
    node.publish(&[edit(8), message(4), edit(8), edit(9)]);
    assert_eq!(ana.reads(), "subscribed edit 4 edit");
    node.publish(&[edit(11)]);
    node.expect_question(&[seq(4), change(9)]);
}

#[test]
fn a_handler_that_fails_is_asked_again_and_at_last_readers_see_a_jump() {
    let mut node = Node::new();
    let ana = node.join("ana");
    node.subscribe(&ana, &[seq(3)]);
    node.bring([6, 7]);
    let mut missing = node.expect_question(&[seq(3)]);
    let mut waits = Vec::new();
    for _ in 0..limits::MISSED_RETRIES_MAX {
        node.local.give_up(&missing);
        missing = node.expect_repeated_question();
        waits.push(missing.wait().as_millis());
    }
    assert_eq!(waits, [100, 200, 400, 800, 1600, 3200]);
    assert_eq!(ana.reads(), "subscribed");
    node.local.give_up(&missing);
    assert_eq!(ana.reads(), "6 7");
    node.bring([8]);
    assert_eq!(ana.reads(), "8");
    node.expect_no_question();
}

#[test]
fn a_handler_that_skips_says_where_it_goes_on() {
    let mut node = Node::new();
    let ana = node.join("ana");
    node.gate(&ana);
    node.open(&ana, &[seq(3)], true);
    let missing = node.expect_question(&[seq(3)]);
    let resync = Push { frame: "resync".to_owned(), position: None };
    node.local
        .fill(&missing, &Page { pushes: Batch::of_page(&[resync]), reached: vec![seq(5000)], more: false });
    node.bring([5000, 5001]);
    assert_eq!(ana.reads(), "subscribed resync 5001");
    node.expect_no_question();
}

#[test]
fn a_handler_that_promises_more_for_ever_is_not_asked_for_ever() {
    let mut node = Node::new();
    let ana = node.join("ana");
    node.gate(&ana);
    node.open(&ana, &[seq(3)], true);
    let mut missing = node.expect_question(&[seq(3)]);
    for _ in 0..limits::MISSED_RETRIES_MAX {
        node.answer(&missing, [], true);
        missing = node.expect_repeated_question();
    }
    node.answer(&missing, [], true);
    node.expect_no_question();
    node.bring([4]);
    assert_eq!(ana.reads(), "subscribed 4");
}

#[test]
fn an_answer_to_an_older_question_is_no_answer() {
    let mut node = Node::new();
    let ana = node.join("ana");
    node.gate(&ana);
    node.open(&ana, &[seq(3)], true);
    let old = node.expect_question(&[seq(3)]);
    node.subscribe(&ana, &[seq(8)]); // the client asked anew
    node.answer(&old, [4, 5, 6, 7, 8], false);
    node.bring([9]);
    assert_eq!(ana.reads(), "subscribed subscribed 9");
}

#[test]
fn after_a_loss_every_room_that_has_readers_asks_and_goes_on_meanwhile() {
    let mut node = Node::new();
    let ana = node.join("ana");
    node.subscribe(&ana, &[seq(3)]);
    node.local.suspect_loss();
    let missing = node.expect_question(&[seq(3)]); // and nothing about `user:ana`
    node.expect_no_question();
    node.bring([4]);
    assert_eq!(ana.reads(), "subscribed 4");
    node.answer(&missing, [4, 5], false);
    node.bring([5, 6]);
    assert_eq!(ana.reads(), "5 6");
    node.expect_no_question();
}

#[test]
fn what_was_read_before_a_loss_is_not_believed_after_it() {
    let mut node = Node::new();
    let ana = node.join("ana");
    node.gate(&ana);
    node.local.suspect_loss(); // 4 was lost after the handler read the head
    node.open(&ana, &[seq(3)], false);
    let missing = node.expect_question(&[seq(3)]);
    node.local.suspect_loss();
    node.answer(&missing, [4], false); // and 5 after it read the page
    let missing = node.expect_question(&[seq(4)]);
    node.answer(&missing, [5], false);
    node.expect_no_question();
    assert_eq!(ana.reads(), "subscribed 4 5");
}

#[test]
fn a_slow_reader_loses_nothing_and_delays_nobody() {
    let mut node = Node::new();
    let (ana, bo) = (node.join("ana"), node.join("bo"));
    node.subscribe(&ana, &[seq(0)]);
    node.subscribe(&bo, &[seq(0)]);
    let large =
        |number: u64| Publication { frame: format!("{number}.{}", "x".repeat(60_000)), ..message(number) };
    for number in 1..=6 {
        node.publish(&[large(number)]);
        let expected = if number == 1 { "subscribed 1".to_owned() } else { number.to_string() };
        assert_eq!(bo.reads(), expected);
    }
    node.expect_no_question(); // while ana's outlet is full, no page is requested
    assert!(ana.outlet.stalled_since().is_some());
    assert_eq!(ana.reads(), "subscribed 1 2 3 4");
    let connection = node.mail.drained.try_recv().unwrap();
    node.local.drained(connection);
    let missing = node.expect_question(&[seq(4)]);
    node.answer(&missing, [5, 6], false);
    node.bring([7]);
    assert_eq!(ana.reads(), "5 6 7");
}

#[test]
fn pages_of_many_conversations_are_asked_for_as_the_queue_has_room() {
    let mut node = Node::new();
    let ana = node.join("ana");
    let rooms: Vec<_> = (0..10).map(|room| Address::parse(&format!("conv:{room}")).unwrap()).collect();
    node.local.gate(ana.connection, &rooms).unwrap();
    let resumed: Vec<_> = rooms
        .iter()
        .map(|room| Subscription { address: room.to_string(), after: vec![seq(1)], missed: true })
        .collect();
    node.local.open_gates(ana.connection, &resumed);
    let mut answered = 0;
    let mut at_once = Vec::new();
    while answered < rooms.len() {
        while let Ok(missing) = node.mail.asks.try_recv() {
            at_once.push(missing);
        }
        assert!(at_once.len() <= limits::QUEUE_BYTES_MAX / limits::PAGE_BYTES_MAX);
        node.answer(&at_once.remove(0), [2], false);
        answered += 1;
        while let Ok(connection) = node.mail.drained.try_recv() {
            node.local.drained(connection);
        }
    }
    assert_eq!(ana.reads(), ["2"; 10].join(" "));
}

#[test]
fn a_call_that_fails_takes_back_what_it_gated_and_leaves_what_stood() {
    let node = Node::new();
    let ana = node.join("ana");
    node.gate(&ana);
    node.local.undo_gates(ana.connection);
    node.bring([1]);
    assert_eq!(ana.reads(), "");

    node.subscribe(&ana, &[seq(3)]);
    node.gate(&ana);
    node.bring([4]);
    assert_eq!(ana.reads(), "subscribed");
    node.local.undo_gates(ana.connection);
    node.bring([5]);
    assert_eq!(ana.reads(), "4 5");
}

#[test]
fn what_a_reply_does_not_list_is_not_subscribed() {
    let node = Node::new();
    let ana = node.join("ana");
    node.gate(&ana);
    node.local.open_gates(ana.connection, &[]);
    node.bring([1]);
    assert_eq!(ana.reads(), "");
    assert!(!node.local.has_room(&lobby()));
}

#[test]
fn a_removed_user_gets_nothing_after_the_removal_on_any_connection() {
    let node = Node::new();
    let (ana, phone, bo) = (node.join("ana"), node.join("ana"), node.join("bo"));
    for client in [&ana, &phone, &bo] {
        node.subscribe(client, &[seq(3)]);
    }
    node.bring([4]);
    node.local.revoke(&lobby(), &UserId::parse("ana").unwrap());
    node.bring([5]);
    assert_eq!((ana.reads().as_str(), phone.reads().as_str()), ("subscribed 4", "subscribed 4"));
    assert_eq!(bo.reads(), "subscribed 4 5");

    node.subscribe(&ana, &[seq(5)]); // invited again
    node.bring([6]);
    assert_eq!(ana.reads(), "subscribed 6");
    node.local.close_connection(ana.connection);
    node.local.close_connection(phone.connection);
    node.local.close_connection(bo.connection);
    assert_eq!((node.local.rooms(), node.local.connected()), (0, 0));
}

#[test]
fn a_removal_during_the_call_wins() {
    let node = Node::new();
    let ana = node.join("ana");
    node.gate(&ana);
    node.local.revoke(&lobby(), &UserId::parse("ana").unwrap());
    node.open(&ana, &[seq(3)], false);
    node.bring([4]);
    assert_eq!(ana.reads(), "subscribed");
}

#[test]
fn a_users_own_address_cannot_be_revoked() {
    let node = Node::new();
    let ana = node.join("ana");
    let own = Address::parse("user:ana").unwrap();
    node.local.revoke(&own, &UserId::parse("ana").unwrap());
    node.local.unsubscribe(ana.connection, std::slice::from_ref(&own));
    node.local.gate(ana.connection, std::slice::from_ref(&own)).unwrap();
    node.local.open_gates(ana.connection, &[]);
    node.publish(&[Publication { address: own.to_string(), ..unpositioned("hello") }]);
    assert_eq!(ana.reads(), "hello");
}

#[test]
fn an_exception_skips_the_user_and_not_its_place() {
    let node = Node::new();
    let (ana, bo) = (node.join("ana"), node.join("bo"));
    node.subscribe(&ana, &[seq(0)]);
    node.subscribe(&bo, &[seq(0)]);
    let not_to_bo = |publication| Publication { except_user: Some("bo".to_owned()), ..publication };
    node.publish(&[not_to_bo(unpositioned("typing")), message(1), not_to_bo(message(2)), message(3)]);
    assert_eq!(ana.reads(), "subscribed typing 1 2 3");
    assert_eq!(bo.reads(), "subscribed 1 3");
}

#[test]
fn one_subscription_past_the_bound_is_refused() {
    let node = Node::new();
    let ana = node.join("ana");
    let many: Vec<_> =
        (1..limits::SUBSCRIPTIONS_MAX).map(|room| Address::parse(&format!("conv:{room}")).unwrap()).collect();
    node.local.gate(ana.connection, &many).unwrap(); // and its own user's address is one
    assert_eq!(node.local.gate(ana.connection, &[lobby()]), Err(Error::Full));
    assert!(!node.local.has_room(&lobby()));
    node.local.gate(ana.connection, &many[..1]).unwrap();
    node.local.undo_gates(ana.connection);
    node.local.gate(ana.connection, &[lobby()]).unwrap();
    node.local.close_connection(ana.connection);
    assert_eq!(node.local.gate(ana.connection, &[lobby()]), Err(Error::Gone));
    assert_eq!(node.local.rooms(), 0);
}

#[test]
fn a_forced_disconnect_finds_its_target_by_any_name() {
    let node = Node::new();
    let clients = || (node.join("ana"), node.join("bo"));
    let closed = |client: &Client| matches!(client.end(), Taken::Close(_));
    for (target, hits_bo) in [
        (Target::User("ana".into()), false),
        (Target::Session("session".into()), true),
        (Target::Address("conv:lobby".into()), false),
    ] {
        let (ana, bo) = clients();
        node.subscribe(&ana, &[]);
        node.local.disconnect(&target, &Close::DISCONNECTED);
        assert_eq!((closed(&ana), closed(&bo)), (true, hits_bo), "{target:?}");
    }
    let (ana, bo) = clients();
    node.local.disconnect(&Target::Connection(ana.connection.to_string()), &Close::DISCONNECTED);
    assert!(closed(&ana) && !closed(&bo));
}

#[test]
fn an_address_without_subscribers_is_forgotten() {
    let mut node = Node::new();
    let ana = node.join("ana");
    node.subscribe(&ana, &[seq(3)]);
    node.local.unsubscribe(ana.connection, &[lobby()]);
    assert_eq!(node.mail.emptied.try_recv(), Ok(lobby()));
    node.subscribe(&ana, &[seq(100)]);
    node.bring([101]);
    assert_eq!(ana.reads(), "subscribed subscribed 101");
    node.expect_no_question();
}

#[test]
fn what_a_call_sends_its_own_connection_follows_its_reply() {
    let node = Node::new();
    let ana = node.join("ana");
    let send = |word: &str| {
        node.local.send_after_reply(ana.connection, switchboard_protocol::wire::websocket::encode_text(word))
    };
    assert!(send("resync"));
    assert_eq!(ana.reads(), "");
    node.gate(&ana);
    node.bring([1]);
    node.open(&ana, &[], false);
    assert_eq!(ana.reads(), "subscribed resync 1");

    // The frames of a call that fails are dropped.
    assert!(send("resync"));
    node.local.undo_gates(ana.connection);
    node.local.open_gates(ana.connection, &[]);
    assert_eq!(ana.reads(), "");
    node.local.close_connection(ana.connection);
    assert!(!send("resync"));
}

mod epochs;
