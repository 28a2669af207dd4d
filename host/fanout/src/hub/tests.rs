//! Two nodes and a real Redis: their messages, and their behaviour when Redis is gone, paused or new.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::envelope::addressed;
use crate::outlet::Taken;
use switchboard_contract::channels::Publication;
use switchboard_contract::types::{Position, Push};
use switchboard_core::config::Config;
use switchboard_telemetry::Tracer;

/// A Redis server for one test. It is killed at the end.
struct Server {
    port: u16,
    process: Child,
}

impl Server {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { port, process: Self::serve(port) }
    }

    fn serve(port: u16) -> Child {
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is on the path")
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn restart(&mut self) {
        self.process = Self::serve(self.port);
    }

    async fn ask<T: ::redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = ::redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        ::redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Node {
    hub: Hub,
    wakes: Wakes,
    gaps: mpsc::UnboundedReceiver<Missing>,
}

impl Node {
    async fn start(redis: &Server) -> Self {
        let node = Self::start_without(redis);
        node.is_up(true).await;
        node
    }

    fn start_without(redis: &Server) -> Self {
        let wakes = Wakes::default();
        let config = Config { redis_url: Some(redis.url()), ..Config::default() };
        let redis = Redis::connect(&config, switchboard_redis::Keyspace::bare()).unwrap();
        let hub = Hub::start(&redis, "test", NodeId::random(), wakes.clone(), Tracer::default());
        let gaps = hub.gaps().unwrap();
        Self { hub, wakes, gaps }
    }

    async fn is_up(&self, up: bool) {
        within_seconds(async {
            while self.hub.is_up() != up {
                tokio::time::sleep(Duration::from_millis(1)).await; // between two checks
            }
        })
        .await;
    }

    async fn join(&self, user: &str) -> Client {
        let connection = ConnectionId::random();
        let user = UserId::parse(user).unwrap();
        let outlet = self
            .hub
            .open_connection(ConnectionInfo { connection, user, session: connection.to_string().into() })
            .await;
        Client { connection, outlet }
    }

    async fn subscribe(&self, client: &Client, after: u64) {
        self.hub.gate(client.connection, &[lobby()]).await.unwrap();
        client.outlet.push_reply(encode_text("subscribed"));
        let subscription =
            Subscription { address: lobby().to_string(), after: vec![seq(after)], missed: false };
        self.hub.open_gates(client.connection, &[subscription]);
    }

    async fn answer(&mut self, numbers: &[u64]) {
        let missing = within_seconds(self.gaps.recv()).await.unwrap();
        let push = |number: &u64| Push { frame: number.to_string(), position: Some(seq(*number)) };
        let pushes: Vec<_> = numbers.iter().map(push).collect();
        let reached = numbers.last().map(|number| seq(*number)).into_iter().collect();
        self.hub.fill(&missing, Page { pushes, reached, more: false });
    }
}

struct Client {
    connection: ConnectionId,
    outlet: Arc<Outlet>,
}

impl Client {
    async fn expect(&self, words: &[&str]) {
        let expected: Vec<u8> = words.iter().flat_map(|word| encode_text(word).to_vec()).collect();
        let mut read = Vec::new();
        within_seconds(async {
            while read.len() < expected.len() {
                self.outlet.ready().await;
                let mut pieces = Vec::new();
                assert_eq!(self.outlet.take(&mut pieces, usize::MAX), Taken::All);
                read.extend(pieces.concat());
            }
        })
        .await;
        assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(&expected));
    }

    async fn expect_close(&self) -> u16 {
        within_seconds(async {
            loop {
                self.outlet.ready().await;
                if let Taken::Close(close) = self.outlet.take(&mut Vec::new(), usize::MAX) {
                    return close.code();
                }
            }
        })
        .await
    }
}

/// A long wait, because the machine may be busy. It waits for a state, not for a time.
async fn within_seconds<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), work).await.expect("it did not happen")
}

fn lobby() -> Address {
    Address::parse("conv:lobby").unwrap()
}

fn seq(number: u64) -> Position {
    Position { track: 0, number }
}

fn message(number: u64) -> Publication {
    Publication {
        address: lobby().to_string(),
        frame: number.to_string(),
        position: Some(seq(number)),
        merge_key: None,
        except_user: None,
    }
}

fn to_user(user: &str, word: &str) -> Publication {
    Publication { address: format!("user:{user}"), frame: word.to_owned(), position: None, ..message(0) }
}

#[tokio::test]
async fn a_publication_reaches_every_node_in_order() {
    let redis = Server::start();
    let (one, two) = (Node::start(&redis).await, Node::start(&redis).await);
    let (ana, bo) = (one.join("ana").await, two.join("bo").await);
    one.subscribe(&ana, 0).await;
    two.subscribe(&bo, 0).await;
    one.hub.publish(&addressed(&[message(1), message(2), to_user("bo", "psst"), message(3)])).await.unwrap();
    two.hub.publish(&addressed(&[message(4)])).await.unwrap();
    ana.expect(&["subscribed", "1", "2", "3", "4"]).await;
    bo.expect(&["subscribed", "1", "2", "psst", "3", "4"]).await;
    let to_nobody = [Publication { except_user: Some(String::new()), ..message(5) }];
    assert!(matches!(one.hub.publish(&addressed(&to_nobody)).await, Err(Error::Refused(_))));
}

#[tokio::test]
async fn a_removal_takes_effect_between_the_messages_around_it() {
    let redis = Server::start();
    let (one, two) = (Node::start(&redis).await, Node::start(&redis).await);
    let (ana, bo) = (two.join("ana").await, two.join("bo").await);
    two.subscribe(&ana, 0).await;
    two.subscribe(&bo, 0).await;
    one.hub.publish(&addressed(&[message(1)])).await.unwrap();
    one.hub.revoke(&lobby(), &UserId::parse("ana").unwrap()).await.unwrap();
    one.hub.publish(&addressed(&[message(2), to_user("ana", "removed")])).await.unwrap();
    ana.expect(&["subscribed", "1", "removed"]).await;
    bo.expect(&["subscribed", "1", "2"]).await;
}

#[tokio::test]
async fn frames_closes_and_wakes_reach_another_node() {
    let redis = Server::start();
    let (one, two) = (Node::start(&redis).await, Node::start(&redis).await);
    let ana = two.join("ana").await;
    one.hub.send(ana.connection, "expiring").await.unwrap();
    one.hub.send(ConnectionId::random(), "no such connection").await.unwrap();
    ana.expect(&["expiring"]).await;

    let listener = two.wakes.listen();
    one.wakes.set(&[5]);
    assert_eq!(within_seconds(listener.woken()).await, [5]);

    let session = Target::Session(ana.connection.to_string());
    one.hub.disconnect(&session, &Close::DISCONNECTED).await.unwrap();
    assert_eq!(ana.expect_close().await, 4003);
}

#[tokio::test]
async fn redis_killed_and_restarted_loses_nothing_that_has_a_position() {
    let mut redis = Server::start();
    let mut one = Node::start(&redis).await;
    let two = Node::start(&redis).await;
    let ana = one.join("ana").await;
    one.subscribe(&ana, 0).await;
    two.hub.publish(&addressed(&[message(1)])).await.unwrap();
    ana.expect(&["subscribed", "1"]).await;

    redis.kill();
    one.is_up(false).await;
    two.is_up(false).await;
    assert_eq!(two.hub.publish(&addressed(&[message(2)])).await, Err(Error::Unavailable));
    assert_eq!(
        one.hub.gate(ana.connection, &[Address::parse("conv:new").unwrap()]).await,
        Err(Error::Unavailable)
    );
    redis.restart();
    one.is_up(true).await;
    two.is_up(true).await;

    // Message 2 was committed meanwhile, and its publication was lost.
    one.answer(&[2]).await;
    two.hub.publish(&addressed(&[message(3), to_user("ana", "hello")])).await.unwrap();
    ana.expect(&["2", "3", "hello"]).await;
}

#[tokio::test]
async fn a_node_whose_redis_comes_later_starts_and_catches_up() {
    let mut redis = Server::start();
    redis.kill();
    let node = Node::start_without(&redis);
    let ana = node.join("ana").await;
    assert!(!node.hub.is_up());
    redis.restart();
    node.is_up(true).await;
    node.subscribe(&ana, 0).await;
    node.hub.publish(&addressed(&[to_user("ana", "hello"), message(1)])).await.unwrap();
    ana.expect(&["subscribed", "hello", "1"]).await;
}

#[tokio::test]
async fn a_node_whose_loopback_check_fails_is_down_and_recovers() {
    let redis = Server::start();
    let node = Node::start(&redis).await;
    let ana = node.join("ana").await;
    // The connection stays open, and nothing arrives.
    let _: () = redis.ask(&["CLIENT", "PAUSE", "4000", "ALL"]).await;
    node.is_up(false).await;
    node.is_up(true).await;
    node.hub.publish(&addressed(&[to_user("ana", "hello")])).await.unwrap();
    ana.expect(&["hello"]).await;
}

#[tokio::test]
async fn a_cut_connection_is_made_again_and_everything_subscribed() {
    let redis = Server::start();
    let mut node = Node::start(&redis).await;
    let ana = node.join("ana").await;
    node.subscribe(&ana, 7).await;
    let _: u64 = redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    node.answer(&[8]).await; // asked because the connection was lost
    ana.expect(&["subscribed", "8"]).await;
    node.hub.publish(&addressed(&[message(9)])).await.unwrap();
    ana.expect(&["9"]).await;
}

#[tokio::test]
async fn an_idle_address_is_unsubscribed_and_subscribed_again() {
    let redis = Server::start();
    let node = Node::start(&redis).await;
    let ana = node.join("ana").await;
    node.subscribe(&ana, 0).await;
    let subscribers =
        || async { redis.ask::<(String, u64)>(&["PUBSUB", "NUMSUB", "test:conv:lobby"]).await.1 };
    assert_eq!(subscribers().await, 1);

    let in_use = |address: &Address| node.hub.0.local.has_room(address);
    node.hub.0.bus.unsubscribe_idle(&[lobby()], in_use);
    node.hub.unsubscribe(ana.connection, &[lobby()]);
    let held = node.hub.0.bus.hold(&[lobby()]).await.unwrap();
    node.hub.0.bus.unsubscribe_idle(&[lobby()], in_use);
    assert_eq!(subscribers().await, 1, "in use, then held");
    drop(held);
    node.hub.0.bus.unsubscribe_idle(&[lobby()], in_use);
    within_seconds(async { while subscribers().await != 0 {} }).await;

    node.subscribe(&ana, 0).await;
    node.hub.publish(&addressed(&[message(1)])).await.unwrap();
    ana.expect(&["subscribed", "subscribed", "1"]).await;
}

#[test]
fn a_page_is_cut_at_its_bounds_and_the_rest_requested_again() {
    let push = |number: u64, bytes: usize| Push { frame: "x".repeat(bytes), position: Some(seq(number)) };
    let whole = Page { pushes: vec![push(1, 60_000), push(2, 5_000)], reached: vec![seq(9)], more: false };
    let kept = within_bounds(whole);
    assert_eq!((kept.pushes.items().len(), kept.reached, kept.more), (2, vec![seq(9)], false));

    let long = Page { pushes: vec![push(1, 60_000), push(2, 6_000)], reached: vec![seq(9)], more: false };
    let cut = within_bounds(long);
    assert_eq!((cut.pushes.items().len(), cut.reached, cut.more), (1, vec![seq(1)], true));

    let many = (1..=limits::PAGE_PUSHES_MAX as u64 + 1).map(|number| push(number, 1)).collect();
    let cut = within_bounds(Page { pushes: many, reached: Vec::new(), more: false });
    assert_eq!(cut.pushes.items().len(), limits::PAGE_PUSHES_MAX);

    let large = Page { pushes: vec![push(1, 70_000), push(2, 1)], reached: vec![seq(2)], more: false };
    assert_eq!(within_bounds(large).pushes.items().len(), 1, "the first frame is too large for clients");
}

#[tokio::test]
async fn a_watch_of_one_node_gets_the_events_of_another_until_it_ends() {
    use crate::watches::{Subject, WatchFilter};

    let redis = Server::start();
    let (one, two) = (Node::start(&redis).await, Node::start(&redis).await);
    let (here, there) = (one.hub.watches(), two.hub.watches());
    let watch = here.open(WatchFilter { failed: true, ..WatchFilter::default() }).unwrap();
    within_seconds(async {
        while !there.is_watched() {
            tokio::time::sleep(Duration::from_millis(1)).await; // between two checks
        }
    })
    .await;
    for is_failure in [false, true] {
        let subject = Subject { handler: "send", user: None, trigger: None, is_failure };
        there.record(&subject, || format!("{{\"failed\":{is_failure}}}"));
    }
    let taken = here.take(watch, Duration::from_secs(20)).await.unwrap();
    assert_eq!((taken.events.concat(), taken.dropped), (b"{\"failed\":true}".to_vec(), 0));
}
