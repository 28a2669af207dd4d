//! Tests with real Redis: the one of the test run, and private ones that are killed.

mod bounds;
mod fleets;
mod servers;
mod tracked;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use redis::Client;

use super::keyspace::{GenerationFuture, Generations};
use super::pubsub::{Away, Event};
use super::*;

fn config(url: String) -> Config {
    Config { redis_url: Some(url), ..Config::default() }
}

/// The generation of a fleet, which its nodes in this process share.
struct InMemory(Arc<AtomicI64>);

impl InMemory {
    fn keyspace(self, fleet: &str) -> Keyspace {
        let now = self.0.load(SeqCst);
        Keyspace::of(fleet, now, self)
    }
}

impl Generations for InMemory {
    fn read(&self) -> GenerationFuture<'_> {
        Box::pin(async { Ok(self.0.load(SeqCst)) })
    }

    fn last_polled(&self) -> Option<i64> {
        Some(self.0.load(SeqCst))
    }

    fn raise(&self, expected: i64, known: i64) -> GenerationFuture<'_> {
        Box::pin(async move {
            let next = expected.max(known) + 1;
            Ok(self.0.compare_exchange(expected, next, SeqCst, SeqCst).map_or_else(|now| now, |_| next))
        })
    }
}

async fn shared() -> Redis {
    let url = std::env::var("SWITCHBOARD_TEST_REDIS_URL")
        .expect("SWITCHBOARD_TEST_REDIS_URL names a Redis that these tests may write to");
    let redis = Redis::connect(&config(url), Keyspace::bare()).unwrap();
    redis.up().await;
    redis
}

/// A server that the test may kill. It is empty when it starts again.
pub(super) struct Private {
    pub(super) port: u16,
    more: &'static [&'static str],
    directory: TempDir,
    process: Option<Child>,
}

impl Private {
    pub(super) fn new() -> Self {
        Self::of(&[])
    }

    fn of(more: &'static [&'static str]) -> Self {
        // The servers of a cluster connect to each other at the port 10,000 above.
        let port =
            std::iter::repeat_with(|| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
                .find(|port| *port < 50_000)
                .unwrap();
        let mut private = Self { port, more, directory: TempDir::new().unwrap(), process: None };
        private.start();
        private
    }

    /// Sends a command on its own connection, as text.
    pub(super) async fn say(&self, command: &str) -> String {
        let client = Client::open(format!("redis://:secret@127.0.0.1:{}", self.port)).unwrap();
        let mut connection = loop {
            match client.get_multiplexed_async_connection().await {
                Ok(connection) => break connection,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        match packed(&words(command)).query_async(&mut connection).await.unwrap() {
            redis::Value::BulkString(bytes) => String::from_utf8(bytes).unwrap(),
            redis::Value::VerbatimString { text, .. } | redis::Value::SimpleString(text) => text,
            redis::Value::Int(number) => number.to_string(),
            redis::Value::Okay => "OK".to_owned(),
            other => format!("{other:?}"),
        }
    }

    fn start(&mut self) {
        let port = self.port.to_string();
        let arguments = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let process = Command::new("redis-server")
            .args(arguments)
            .arg("--dir")
            .arg(self.directory.path())
            .args(["--requirepass", "secret", "--masterauth", "secret"])
            .args(self.more)
            .stdout(Stdio::null())
            .spawn();
        self.process = Some(process.expect("redis-server is installed"));
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn redis(&self) -> Redis {
        self.redis_of(Keyspace::bare())
    }

    fn redis_of(&self, keyspace: Keyspace) -> Redis {
        Redis::connect(&config(format!("redis://:secret@127.0.0.1:{}", self.port)), keyspace).unwrap()
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        self.kill();
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn words(command: &str) -> Vec<String> {
    command.split(' ').map(str::to_owned).collect()
}

fn text(text: &str) -> Node {
    Node::Text(text.to_owned())
}

/// Key names that no other test uses.
fn fresh(name: &str) -> String {
    format!("{name}:{}", uuid::Uuid::now_v7().simple())
}

#[tokio::test]
async fn commands_answer_with_nodes() {
    let redis = shared().await;
    let key = fresh("key");
    let say = async |command: &str| redis.command(&words(&command.replace('K', &key)), soon()).await;
    assert_eq!(say("SET K v PX 60000").await, Ok(vec![text("OK")]));
    assert_eq!(say("GET K").await, Ok(vec![text("v")]));
    assert_eq!(say("GET K:none").await, Ok(vec![Node::Nil]));
    assert!(
        matches!(say("HSET K f v").await, Err(CommandError::Failed(reason)) if reason.contains("WRONGTYPE"))
    );
    say("ZADD K:z 1 a 2 b").await.unwrap();
    assert_eq!(say("ZRANGE K:z 0 -1").await, Ok(vec![Node::Many(2), text("a"), text("b")]));
    say("XADD K:x 1-1 f v").await.unwrap();
    let stream = say("XRANGE K:x - +").await.unwrap();
    let entry = [Node::Many(1), Node::Many(2), text("1-1"), Node::Many(2), text("f"), text("v")];
    assert_eq!(stream, entry);
}

#[tokio::test]
async fn a_pipeline_answers_each_and_a_failure_is_a_node() {
    let redis = shared().await;
    let key = fresh("pipeline");
    let commands = ["SET K 1", "HGET K f", "INCR K"].map(|command| words(&command.replace('K', &key)));
    let replies = redis.pipeline(&commands, soon()).await.unwrap();
    assert_eq!(replies[0], [text("OK")]);
    assert!(matches!(&replies[1][..], [Node::Failed(reason)] if reason.contains("WRONGTYPE")), "{replies:?}");
    assert_eq!(replies[2], [Node::Integer(2)]);
    assert_eq!(redis.pipeline(&[], soon()).await, Ok(vec![]));
    let long = vec![words("PING"); limits::REDIS_PIPELINE_MAX + 1];
    assert!(matches!(redis.pipeline(&long, soon()).await, Err(CommandError::Refused(_))));
    assert_eq!(redis.pipeline(&long[1..], soon()).await.unwrap().len(), limits::REDIS_PIPELINE_MAX);
    assert!(matches!(redis.command(&[], soon()).await, Err(CommandError::Refused(_))));
    let large = ["ECHO".to_owned(), "x".repeat(limits::REDIS_COMMAND_BYTES_MAX)];
    assert!(matches!(redis.command(&large, soon()).await, Err(CommandError::Refused(_))));
}

#[tokio::test]
async fn a_script_is_sent_once_and_then_named() {
    let redis = shared().await;
    let unique = fresh("script");
    let script = Script::new("add", &format!("-- {unique}\nreturn {{KEYS[1], ARGV[1] + 1}}"), &[]);
    for _ in 0..2 {
        let answer = redis.script(&script, std::slice::from_ref(&unique), &["41".to_owned()], soon()).await;
        assert_eq!(answer, Ok(vec![Node::Many(2), text(&unique), Node::Integer(42)]));
    }
    let broken = Script::new("broken", "return redis.call('HGET')", &[]);
    assert!(matches!(redis.script(&broken, &[], &[], soon()).await, Err(CommandError::Failed(_))));
}

#[tokio::test]
async fn several_runs_of_a_script_take_one_round_trip_and_a_failure_is_a_node() {
    let redis = shared().await;
    let unique = fresh("runs");
    // Unknown to Redis at first, so that the first attempt of each run fails.
    let script = Script::new("add", &format!("-- {unique}\nreturn {{KEYS[1], ARGV[1] + 1}}"), &[]);
    let run = |key: &str, arg: &str| ScriptRun { keys: vec![key.to_owned()], args: vec![arg.to_owned()] };
    let runs = [run("a", "1"), run("b", "no number"), run("c", "3")];
    for _ in 0..2 {
        let replies = redis.scripts(&script, &runs, soon()).await.unwrap();
        assert_eq!(replies[0], [Node::Many(2), text("a"), Node::Integer(2)]);
        assert!(matches!(&replies[1][..], [Node::Failed(_)]), "{replies:?}");
        assert_eq!(replies[2], [Node::Many(2), text("c"), Node::Integer(4)]);
        assert_eq!(replies.len(), 3);
    }
    assert_eq!(redis.scripts(&script, &[], soon()).await, Ok(vec![]));
    let many = vec![run("a", "1"); limits::REDIS_PIPELINE_MAX + 1];
    assert!(matches!(redis.scripts(&script, &many, soon()).await, Err(CommandError::Refused(_))));
    let large = [run("a", &"1".repeat(limits::REDIS_COMMAND_BYTES_MAX))];
    assert!(matches!(redis.scripts(&script, &large, soon()).await, Err(CommandError::Refused(_))));
}

#[tokio::test]
async fn a_script_that_is_not_lua_is_known_without_running_it() {
    let redis = shared().await;
    let mark = fresh("compiled");
    let grants: Vec<Pattern> = vec![serde_json::from_value(mark.clone().into()).unwrap()];
    let writes = format!("return redis.call('SET', '{mark}', 'x')");
    assert_eq!(redis.compile_error(&Script::new("writes", &writes, &grants), soon()).await, None);
    assert_eq!(redis.command(&words(&format!("EXISTS {mark}")), soon()).await, Ok(vec![Node::Integer(0)]));
    let answer = redis.compile_error(&Script::new("cut", "return redis.call(", &grants), soon()).await;
    assert!(answer.as_deref().is_some_and(|answer| answer.contains("user_script:1")), "{answer:?}");

    let mut private = Private::new();
    private.kill();
    let away = private.redis();
    assert_eq!(away.compile_error(&Script::new("cut", "return redis.call(", &grants), soon()).await, None);
}

/// Its caller declares granted keys; the script touches other keys.
#[tokio::test]
async fn a_script_touches_only_what_is_granted_whatever_its_caller_declares() {
    let redis = shared().await;
    let (mine, theirs) = (fresh("mine"), fresh("theirs"));
    redis.command(&words(&format!("SET {theirs} secret")), soon()).await.unwrap();
    let grants: Vec<Pattern> =
        [format!("{mine}*")].map(|text| serde_json::from_value(text.into()).unwrap()).into();
    let run = async |text: &str| {
        let script = Script::new("stray", text, &grants);
        redis.script(&script, std::slice::from_ref(&mine), std::slice::from_ref(&theirs), soon()).await
    };
    for (fine, answer) in [
        ("return redis.call('SET', KEYS[1], 'x') and 1", Node::Integer(1)),
        ("return redis.call('get', KEYS[1] .. '') == 'x' and 1", Node::Integer(1)),
        ("redis.call('MSET', KEYS[1], ARGV[1], KEYS[1] .. 2, 'y') return 2", Node::Integer(2)),
        ("return #redis.call('ZUNION', 2, KEYS[1] .. 'a', KEYS[1] .. 'b')", Node::Integer(0)),
        ("return redis.pcall('INCR', KEYS[1]).err and 3", Node::Integer(3)),
        ("return redis.sha1hex('') == 'da39a3ee5e6b4b0d3255bfef95601890afd80709' and 4", Node::Integer(4)),
        ("return #redis.call('TIME')", Node::Integer(2)),
    ] {
        assert_eq!(run(fine).await, Ok(vec![answer]), "{fine}");
    }
    for stray in [
        "return redis.call('GET', ARGV[1])",
        "return redis.pcall('GET', ARGV[1])",
        "return redis.call('MGET', KEYS[1], ARGV[1])",
        "return redis.call('MSET', KEYS[1], 1, ARGV[1], 2)",
        "return redis.call('RENAME', ARGV[1], KEYS[1])",
        "return redis.call('ZUNION', 2, KEYS[1], ARGV[1])",
        "return redis.call('ZUNIONSTORE', KEYS[1], 1, KEYS[1])",
        "return redis.call('ZUNION', 9, KEYS[1])",
        "return redis.call('XREAD', 'STREAMS', KEYS[1], ARGV[1], 0, 0)",
        "return redis.call('COPY', KEYS[1], ARGV[1])",
        "return redis.call('KEYS', '*')",
        "return redis.call('FLUSHALL')",
        "return redis.call('EVAL', 'return 1', 0)",
        "return redis.call('G' .. 'ET', ARGV[1])",
        "return _G.redis.call('GET', ARGV[1])",
        "return getfenv(1).redis.call('GET', ARGV[1])",
        "return loadstring('return redis')().call('GET', ARGV[1])",
        "return load(function() return nil end)",
        "return server.call('GET', ARGV[1])",
        "string.sub = function() return KEYS[1] end return redis.call('GET', ARGV[1])",
        "return redis.setresp(3)",
    ] {
        assert!(matches!(run(stray).await, Err(CommandError::Failed(_))), "{stray}: {:?}", run(stray).await);
    }
    let kept = redis.command(&words(&format!("GET {theirs}")), soon()).await;
    assert_eq!(kept, Ok(vec![text("secret")]));
}

#[tokio::test]
async fn answers_and_waits_are_bounded() {
    let redis = shared().await;
    let large =
        Script::new("large", &format!("return string.rep('x', {})", limits::REDIS_ANSWER_BYTES_MAX + 1), &[]);
    let too_large = Err(CommandError::TooLarge(limits::REDIS_ANSWER_BYTES_MAX as u64));
    assert_eq!(redis.script(&large, &[], &[], soon()).await, too_large);
    let past = Instant::now() + Duration::from_millis(50);
    let private = Private::new();
    let other = private.redis();
    other.up().await;
    assert_eq!(other.command(&words("BLPOP nothing 2"), past).await, Err(CommandError::Deadline));
}

#[tokio::test]
async fn an_unreachable_redis_is_reported_at_once_and_comes_back_by_itself() {
    let mut private = Private::new();
    let redis = private.redis();
    redis.up().await;
    private.kill();
    while redis.command(&words("PING"), soon()).await.is_ok() {}
    assert_eq!(redis.command(&words("PING"), soon()).await, Err(CommandError::Unavailable));
    redis.0.link.health.subscribe().wait_for(|health| !health.takes_commands()).await.unwrap();
    let asked = Instant::now();
    assert_eq!(redis.pipeline(&[words("PING")], soon()).await, Err(CommandError::Unavailable));
    assert!(asked.elapsed() < Duration::from_millis(100));
    private.start();
    redis.up().await;
    assert_eq!(redis.command(&words("PING"), soon()).await, Ok(vec![text("PONG")]));
}

#[tokio::test]
async fn what_is_published_after_the_confirmation_arrives_in_order() {
    let redis = shared().await;
    let (subscriber, mut events) = redis.subscriber();
    assert_eq!(events.next().await, Some(Event::Up));
    let (a, b) = (fresh("a"), fresh("b"));
    subscriber.subscribe(&[&a, &b]).await.unwrap();
    let messages: Vec<(&String, Bytes)> =
        (0..3000).map(|n| (if n % 2 == 0 { &a } else { &b }, Bytes::from(format!("message {n}")))).collect();
    let (published, ()) = tokio::join!(redis.publish(&messages, soon()), async {
        for (channel, payload) in &messages {
            let expected =
                Event::Message { channel: Bytes::from(channel.to_string()), payload: payload.clone() };
            assert_eq!(events.next().await, Some(expected));
        }
    });
    published.unwrap();
    subscriber.unsubscribe(&[&a]).await.unwrap();
    redis.publish(&[(&a, "unsubscribed"), (&b, "subscribed")], soon()).await.unwrap();
    let expected = Event::Message { channel: Bytes::from(b), payload: Bytes::from("subscribed") };
    assert_eq!(events.next().await, Some(expected));
}

#[tokio::test]
async fn the_bus_gets_an_event_for_a_loss_and_for_the_return() {
    let mut private = Private::new();
    let redis = private.redis();
    let (subscriber, mut events) = redis.subscriber();
    assert_eq!(events.next().await, Some(Event::Up));
    subscriber.subscribe(&["c"]).await.unwrap();
    private.kill();
    assert_eq!(events.next().await, Some(Event::Down));
    assert_eq!(subscriber.subscribe(&["c"]).await, Err(Away));
    private.start();
    assert_eq!(events.next().await, Some(Event::Up));
    subscriber.subscribe(&["c"]).await.unwrap();
    // The other connection notices the loss at its next use.
    while redis.publish(&[("c", "back")], soon()).await.is_err() {
        redis.up().await;
    }
    assert!(matches!(events.next().await, Some(Event::Message { .. })));
}

/// Three servers of a cluster, each with a third of the slots.
struct Three {
    servers: Vec<Private>,
}

impl Three {
    async fn start() -> Self {
        let servers: Vec<_> = (0..3).map(|_| Private::of(&["--cluster-enabled", "yes"])).collect();
        let three = Self { servers };
        for (number, server) in three.servers.iter().enumerate() {
            let (first, last) = (number * 5462, (number * 5462 + 5461).min(16383));
            server.say(&format!("CLUSTER ADDSLOTSRANGE {first} {last}")).await;
            server.say(&format!("CLUSTER MEET 127.0.0.1 {}", three.servers[0].port)).await;
        }
        for server in &three.servers {
            while !server.say("CLUSTER INFO").await.contains("cluster_state:ok")
                || !server.say("CLUSTER INFO").await.contains("cluster_known_nodes:3")
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        three
    }

    /// The URL names only one server; the node learns the others.
    fn redis(&self) -> Redis {
        self.redis_of(Keyspace::bare())
    }

    fn redis_of(&self, keyspace: Keyspace) -> Redis {
        let url = format!("redis-cluster://:secret@127.0.0.1:{}", self.servers[0].port);
        Redis::connect(&config(url), keyspace).unwrap()
    }
}

#[tokio::test]
async fn a_cluster_is_one_redis_to_whoever_asks() {
    let three = Three::start().await;
    let redis = three.redis();
    redis.up().await;
    let say = async |command: &str| redis.command(&words(command), soon()).await;
    for number in 0..60 {
        // Right after the start a server may not be connected yet.
        while say(&format!("SET key:{number} {number}")).await == Err(CommandError::Unavailable) {
            redis.up().await;
        }
    }
    let commands: Vec<_> = (0..60).map(|number| words(&format!("GET key:{number}"))).collect();
    let replies = redis.pipeline(&commands, soon()).await.unwrap();
    let expected: Vec<_> = (0..60).map(|number: i32| vec![text(&number.to_string())]).collect();
    assert_eq!(replies, expected);
    let mut spread = Vec::new();
    for server in &three.servers {
        spread.push(server.say("DBSIZE").await != "0");
    }
    assert_eq!(spread, [true; 3], "all keys are on one server");

    let grants: Vec<Pattern> = [serde_json::from_value("key:*".into()).unwrap()].into();
    let script = Script::new("get", "return redis.call('GET', KEYS[1])", &grants);
    for number in 0..6 {
        let key = format!("key:{number}");
        assert_eq!(redis.script(&script, &[key], &[], soon()).await, Ok(vec![text(&number.to_string())]));
    }
    assert!(
        matches!(say("HGET key:1 f").await, Err(CommandError::Failed(reason)) if reason.contains("WRONGTYPE"))
    );
    // Keys of several slots in one command: Redis refuses them.
    assert!(matches!(say("MGET key:1 key:2").await, Err(CommandError::Failed(_))));
}

#[tokio::test]
async fn a_slot_that_moves_is_followed_and_the_bus_spans_the_cluster() {
    let three = Three::start().await;
    let redis = three.redis();
    redis.up().await;
    while redis.command(&words("SET foo v"), soon()).await == Err(CommandError::Unavailable) {}
    // `foo` is in slot 12182, on the third server; it goes to the first while it is being asked for.
    let (to, from) = (&three.servers[0], &three.servers[2]);
    let (to_id, from_id) = (to.say("CLUSTER MYID").await, from.say("CLUSTER MYID").await);
    to.say(&format!("CLUSTER SETSLOT 12182 IMPORTING {from_id}")).await;
    from.say(&format!("CLUSTER SETSLOT 12182 MIGRATING {to_id}")).await;
    from.say(&format!("MIGRATE 127.0.0.1 {} foo 0 5000 AUTH secret", to.port)).await;
    assert_eq!(redis.command(&words("GET foo"), soon()).await, Ok(vec![text("v")]));
    for server in [to, from] {
        server.say(&format!("CLUSTER SETSLOT 12182 NODE {to_id}")).await;
    }
    assert_eq!(redis.command(&words("GET foo"), soon()).await, Ok(vec![text("v")]));
    assert_eq!(to.say("GET foo").await, "v");

    // Received at one server, published to any server.
    let (subscriber, mut events) = redis.subscriber();
    assert_eq!(events.next().await, Some(Event::Up));
    subscriber.subscribe(&["c"]).await.unwrap();
    three.servers[1].say("PUBLISH c afar").await;
    redis.publish(&[("c", "near")], soon()).await.unwrap();
    let mut payloads = Vec::new();
    for _ in 0..2 {
        let Some(Event::Message { payload, .. }) = events.next().await else { panic!("a message") };
        payloads.push(payload);
    }
    payloads.sort();
    assert_eq!(payloads, ["afar", "near"]);
}
