//! Fleets that share a Redis, and a Redis that lost its data: keys of a fleet and of a generation.

use super::*;

/// The nodes of a fleet share the generation that Postgres stores.
#[derive(Clone)]
struct Fleet {
    name: &'static str,
    generation: Arc<AtomicI64>,
}

impl Fleet {
    fn new(name: &'static str) -> Self {
        Self { name, generation: Arc::new(AtomicI64::new(1)) }
    }

    /// The keys of one node.
    fn keyspace(&self) -> Keyspace {
        InMemory(self.generation.clone()).keyspace(self.name)
    }

    /// Raises the generation, as an operator does by SQL (docs/operations.md). This node uses it at once, and
    /// the others when they next read it.
    fn void_on(&self, node: &Redis) {
        node.0.keyspace.adopt(self.generation.fetch_add(1, SeqCst) + 1);
    }

    fn generation(&self) -> i64 {
        self.generation.load(SeqCst)
    }
}

/// Waits until Redis takes the command.
async fn say(redis: &Redis, command: &str) -> Vec<Node> {
    loop {
        match redis.command(&words(command), soon()).await {
            Ok(nodes) => return nodes,
            Err(CommandError::Unavailable) => {
                redis.up().await;
                tokio::task::yield_now().await;
            }
            Err(other) => panic!("{command}: {other:?}"),
        }
    }
}

fn granted(patterns: &[&str]) -> Vec<Pattern> {
    patterns.iter().map(|text| serde_json::from_value((*text).into()).unwrap()).collect()
}

#[tokio::test]
async fn two_fleets_on_one_redis_do_not_see_each_other() {
    let server = Private::new();
    let (one, two) = (Fleet::new("one"), Fleet::new("two"));
    let (a, b) = (server.redis_of(one.keyspace()), server.redis_of(two.keyspace()));
    say(&a, "SET list:ana a").await;
    say(&b, "SET list:ana b").await;
    assert_eq!(say(&a, "GET list:ana").await, [text("a")]);
    say(&b, "DEL list:ana").await;
    assert_eq!(say(&a, "MGET list:ana list:bo").await, [Node::Many(2), text("a"), Node::Nil]);
    // Another node of the same fleet sees it.
    assert_eq!(say(&server.redis_of(one.keyspace()), "GET list:ana").await, [text("a")]);

    // A handler and its script use only the handler's names.
    say(&a, "RPUSH queue x y").await;
    assert_eq!(say(&a, "LMPOP 1 queue LEFT").await[1], text("queue"));
    say(&a, "XADD log 1-1 f v").await;
    assert_eq!(say(&a, "XREAD STREAMS log 0").await[2], text("log"));
    let script = "local popped = redis.call('LMPOP', 1, KEYS[1], 'LEFT') \
                  local read = redis.call('XREAD', 'STREAMS', 'log', '0') \
                  return {KEYS[1], popped[1], popped[2][1], read[1][1], ARGV[1], #ARGV, #KEYS}";
    let script = Script::new("names", script, &granted(&["queue", "log"]));
    let answer = a.script(&script, &["queue".to_owned()], &["last".to_owned()], soon()).await.unwrap();
    let numbers = [Node::Integer(1), Node::Integer(1)];
    let names = ["queue", "queue", "y", "log", "last"].map(text);
    assert_eq!(answer[1..], [names.as_slice(), &numbers].concat());
}

#[tokio::test]
async fn what_a_redis_held_before_it_lost_something_is_never_read_again() {
    let mut server = Private::new();
    let fleet = Fleet::new("f");
    let (a, b) = (server.redis_of(fleet.keyspace()), server.redis_of(fleet.keyspace()));
    let guard = "GET sb:f:guard:{0}";
    for redis in [&a, &b] {
        say(redis, "SET list:ana before").await;
    }
    // Two nodes that start at once may each raise it once.
    let at_first = fleet.generation();
    assert!((2..=3).contains(&at_first), "{at_first}");

    // Emptied: no command reaches a server before the node has checked it.
    server.say("FLUSHALL").await;
    assert_eq!(a.command(&words("SET list:ana lost"), soon()).await, Err(CommandError::Unavailable));
    assert_eq!(say(&a, "GET list:ana").await, [Node::Nil]);
    assert_eq!(say(&b, "SET list:ana after").await, [text("OK")]);
    let emptied = fleet.generation();
    assert!(emptied > at_first && server.say(guard).await.starts_with(&format!("{emptied} ")));

    // Restored while the node is connected: the beat is lower than the last one that the node saw.
    let before = server.say("GET sb:f:beat:{0}").await;
    while server.say("GET sb:f:beat:{0}").await == before {
        tokio::task::yield_now().await;
    }
    server.say("SET sb:f:beat:{0} 0").await;
    let mut changes = a.0.keyspace.changes();
    changes.wait_for(|names| names.generation > emptied).await.unwrap();
    assert_eq!(say(&a, "GET list:ana").await, [Node::Nil]);
    assert_eq!(say(&b, "GET list:ana").await, [Node::Nil]);
    let restored = fleet.generation();
    assert!(restored > emptied);

    // Restarted with its data: its guard names another run.
    say(&a, "SET list:ana before").await;
    let held = server.say(guard).await;
    server.kill();
    server.start();
    server.say(&format!("SET sb:f:{restored}:list:ana stale")).await;
    let (key, text_of_guard) = ("sb:f:guard:{0}", held.as_str());
    let restore = redis::cmd("SET").arg(key).arg(text_of_guard).to_owned();
    let client = Client::open(format!("redis://:secret@127.0.0.1:{}", server.port)).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let _: String = restore.query_async(&mut connection).await.unwrap();
    assert_eq!(say(&b, "GET list:ana").await, [Node::Nil]);
    assert_eq!(say(&a, "GET list:ana").await, [Node::Nil]);
    assert!(fleet.generation() > restored);
}

#[tokio::test]
async fn void_data_is_read_by_no_node_and_deleted() {
    let server = Private::new();
    let fleet = Fleet::new("f");
    let (a, b) = (server.redis_of(fleet.keyspace()), server.redis_of(fleet.keyspace()));
    say(&b, "SET list:ana before").await;
    server.say("SET somebody:elses key").await;
    let old = a.0.keyspace.names().key("list:ana");
    fleet.void_on(&a);
    assert_eq!(say(&a, "GET list:ana").await, [Node::Nil]);
    // The other node may not know it yet: its writes must not count.
    let written = b.command(&words("SET list:ana late"), soon()).await;
    let seen = say(&a, "GET list:ana").await;
    match written {
        Ok(_) => assert_eq!(seen, [text("late")]),
        Err(CommandError::Unavailable) => assert_eq!(seen, [Node::Nil]),
        Err(other) => panic!("{other:?}"),
    }
    assert_eq!(say(&b, "SET list:ana after").await, [text("OK")]);
    assert_eq!(say(&a, "GET list:ana").await, [text("after")]);
    while server.say(&format!("EXISTS {old}")).await != "0" {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.say("GET somebody:elses").await, "key");

    let before = fleet.generation();
    // Postgres went back to a generation that was used already.
    fleet.generation.store(1, SeqCst);
    let c = server.redis_of(fleet.keyspace());
    assert_eq!(say(&c, "GET list:ana").await, [Node::Nil]);
    assert!(fleet.generation() > before);
}

/// A full server takes no new guard, and only the deletion of what is void makes room for it.
#[tokio::test]
async fn what_is_void_is_deleted_from_a_full_server_too() {
    let server = Private::new();
    let fleet = Fleet::new("f");
    let redis = server.redis_of(fleet.keyspace());
    say(&redis, "SET list:ana before").await;
    let value = "x".repeat(100_000);
    for number in 0..40 {
        say(&redis, &format!("SET page:{number} {value}")).await;
    }
    let memory = server.say("INFO memory").await;
    let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let used: u64 = used.trim().parse().unwrap();
    server.say(&format!("CONFIG SET maxmemory {}", used - 1_000_000)).await;
    fleet.void_on(&redis);
    let answer = tokio::time::timeout(Duration::from_secs(20), say(&redis, "GET list:ana")).await;
    assert_eq!(answer.expect("the void keys are deleted"), [Node::Nil]);
    assert_eq!(say(&redis, "SET list:ana after").await, [text("OK")]);
}

#[tokio::test]
async fn every_server_of_a_cluster_has_a_guard() {
    let three = Three::start().await;
    let fleet = Fleet::new("f");
    let (a, b) = (three.redis_of(fleet.keyspace()), three.redis_of(fleet.keyspace()));
    for number in 0..30 {
        say(&a, &format!("SET key:{number} {number}")).await;
        assert_eq!(say(&b, &format!("GET key:{number}")).await, [text(&number.to_string())]);
    }
    say(&a, "SADD {p:01}:a x").await;
    say(&a, "SADD {p:01}:b x").await;
    assert_eq!(say(&a, "SINTER {p:01}:a {p:01}:b").await, [Node::Many(1), text("x")]);
    assert!(a.writable_primary().is_ok());
    // One of three servers is enough to make the data of all of them void.
    let before = fleet.generation();
    three.servers[1].say("FLUSHALL").await;
    a.0.keyspace.changes().wait_for(|names| names.generation > before).await.unwrap();
    for number in 0..30 {
        assert_eq!(say(&a, &format!("GET key:{number}")).await, [Node::Nil]);
    }
}
