//! The server that a node stays with: failovers behind one address, servers that refuse writes, and scripts
//! that do not end.

use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::*;

fn fleet() -> Keyspace {
    InMemory(Arc::new(AtomicI64::new(1))).keyspace("f")
}

/// A TCP proxy with one address. New connections go to the present server, and open connections stay.
struct Address {
    port: u16,
    leads_to: Arc<Mutex<SocketAddr>>,
    accepting: JoinHandle<()>,
}

impl Address {
    async fn of(server: &Private) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let leads_to = Arc::new(Mutex::new(SocketAddr::from(([127, 0, 0, 1], server.port))));
        let target = leads_to.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let target = *target.lock().unwrap();
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(target).await {
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { port, leads_to, accepting }
    }

    fn lead_to(&self, server: &Private) {
        *self.leads_to.lock().unwrap() = SocketAddr::from(([127, 0, 0, 1], server.port));
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn until(redis: &Redis, health: impl FnMut(&Health) -> bool) {
    redis.0.link.health.subscribe().wait_for(health).await.unwrap();
}

/// No connection ends: the demoted server still runs and answers.
#[tokio::test]
async fn a_failover_behind_one_address_is_followed() {
    let (first, second) = (Private::new(), Private::new());
    first.say("PING").await;
    second.say("PING").await;
    let address = Address::of(&first).await;
    let url = format!("redis://:secret@127.0.0.1:{}", address.port);
    let redis = Redis::connect(&config(url), fleet()).unwrap();
    redis.up().await;
    let (subscriber, mut events) = redis.subscriber();
    assert_eq!(events.next().await, Some(Event::Up));
    subscriber.subscribe(&["c"]).await.unwrap();

    address.lead_to(&second);
    first.say(&format!("REPLICAOF 127.0.0.1 {}", second.port)).await;
    until(&redis, |health| !health.takes_commands()).await;
    redis.up().await;
    while redis.command(&words("SET k v"), soon()).await == Err(CommandError::Unavailable) {
        tokio::task::yield_now().await;
    }
    assert_eq!(second.say("KEYS sb:f:*:k").await.matches("sb:f").count(), 1, "the write went elsewhere");
    // The bus has moved too: it receives messages of the new primary, without a replica that forwards them.
    assert_eq!(events.next().await, Some(Event::Down));
    assert_eq!(events.next().await, Some(Event::Up));
    subscriber.subscribe(&["c"]).await.unwrap();
    first.say("REPLICAOF NO ONE").await;
    assert_eq!(second.say("PUBLISH c x").await, "1");
    assert!(matches!(events.next().await, Some(Event::Message { .. })));
}

/// While every server behind the address is a replica, Redis is not usable, whatever the servers answer.
#[tokio::test]
async fn a_replica_is_no_redis() {
    let (primary, replica) = (Private::new(), Private::new());
    primary.say("PING").await;
    replica.say(&format!("REPLICAOF 127.0.0.1 {}", primary.port)).await;
    let redis = replica.redis_of(fleet());
    let (_subscriber, mut events) = redis.subscriber();
    until(&redis, |health| matches!(health, Health::Away(why) if why.contains("READONLY"))).await;
    assert_eq!(redis.command(&words("GET k"), soon()).await, Err(CommandError::Unavailable));
    assert!(redis.writable_primary().unwrap_err().contains("READONLY"));
    let listening = tokio::time::timeout(Duration::from_millis(200), events.next()).await;
    assert!(listening.is_err(), "the bus listens to a replica: {listening:?}");
    replica.say("REPLICAOF NO ONE").await;
    redis.up().await;
    assert_eq!(events.next().await, Some(Event::Up));
    assert_eq!(redis.writable_primary(), Ok(()));
}

#[tokio::test]
async fn a_server_that_refuses_writes_takes_no_commands_but_carries_the_bus() {
    let server = Private::new();
    let redis = server.redis_of(fleet());
    redis.up().await;
    redis.command(&words("SET k v"), soon()).await.unwrap();
    let (subscriber, mut events) = redis.subscriber();
    assert_eq!(events.next().await, Some(Event::Up));
    subscriber.subscribe(&["c"]).await.unwrap();

    server.say("CONFIG SET min-replicas-to-write 1").await;
    // The first refused write does not count as done, and earlier reads are not trusted any more.
    assert_eq!(redis.command(&words("SET k w"), soon()).await, Err(CommandError::Unavailable));
    let sent = [words("GET k"), words("SET k w")];
    assert_eq!(redis.pipeline(&sent, soon()).await, Err(CommandError::Unavailable));
    until(&redis, |health| matches!(health, Health::Refuses(_))).await;
    assert!(redis.writable_primary().unwrap_err().contains("NOREPLICAS"));
    assert_eq!(redis.command(&words("GET k"), soon()).await, Err(CommandError::Unavailable));
    redis.publish(&[("c", "still")], soon()).await.unwrap();
    assert!(matches!(events.next().await, Some(Event::Message { .. })));

    server.say("CONFIG SET min-replicas-to-write 0").await;
    redis.up().await;
    assert_eq!(redis.command(&words("GET k"), soon()).await, Ok(vec![text("v")]));

    // A full server is different: its data can be read and deleted.
    server.say("CONFIG SET maxmemory 1").await;
    until(&redis, |health| matches!(health, Health::Full(_))).await;
    assert!(redis.writable_primary().unwrap_err().contains("OOM"));
    assert!(
        matches!(redis.command(&words("SET k w"), soon()).await, Err(CommandError::Failed(why)) if why.contains("OOM"))
    );
    assert_eq!(redis.command(&words("UNLINK k"), soon()).await, Ok(vec![Node::Integer(1)]));
    server.say("CONFIG SET maxmemory 0").await;
    until(&redis, |health| *health == Health::Writable).await;
}

/// The bus announces a change, because the publications before it may have reached nobody.
#[tokio::test]
async fn the_server_that_took_the_last_publication_is_known() {
    let (first, second) = (Private::new(), Private::new());
    let address = Address::of(&first).await;
    let url = format!("redis://:secret@127.0.0.1:{}", address.port);
    let redis = Redis::connect(&config(url), fleet()).unwrap();
    redis.up().await;
    let mut publisher = redis.publisher();
    assert_eq!(*publisher.borrow(), None);
    for _ in 0..2 {
        redis.publish(&[("c", "x")], soon()).await.unwrap();
        assert!(publisher.borrow().is_some());
    }
    assert!(publisher.has_changed().unwrap());
    let before = publisher.borrow_and_update().clone();

    address.lead_to(&second);
    first.say(&format!("REPLICAOF 127.0.0.1 {}", second.port)).await;
    until(&redis, |health| matches!(health, Health::Away(_))).await;
    redis.up().await;
    redis.publish(&[("c", "x")], soon()).await.unwrap();
    assert!(publisher.has_changed().unwrap() && *publisher.borrow() != before);
}

/// A script without the node's bounds: from another program.
async fn run_for_ever(server: &Private, script: &str) -> JoinHandle<Result<redis::Value, redis::RedisError>> {
    server.say("CONFIG SET busy-reply-threshold 50").await;
    let client = Client::open(format!("redis://:secret@127.0.0.1:{}", server.port)).unwrap();
    let settings = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await.unwrap();
    let eval = redis::cmd("EVAL").arg(script).arg(0).to_owned();
    tokio::spawn(async move { eval.query_async(&mut connection).await })
}

#[tokio::test]
async fn a_script_that_does_not_end_is_killed() {
    let server = Private::new();
    let redis = server.redis_of(fleet());
    redis.up().await;
    let running = run_for_ever(&server, "while true do end").await;
    let ended = running.await.unwrap().unwrap_err().to_string();
    assert!(ended.contains("SCRIPT KILL"), "{ended}");
    redis.up().await;
    assert_eq!(redis.command(&words("PING"), soon()).await, Ok(vec![text("PONG")]));
}

/// Redis does not end a script that has written. The node logs it, and does not treat the server as healthy.
#[tokio::test]
async fn a_script_that_wrote_and_does_not_end_makes_redis_busy() {
    let mut server = Private::new();
    let redis = server.redis_of(fleet());
    redis.up().await;
    let running = run_for_ever(&server, "redis.call('SET', 'x', 1) while true do end").await;
    until(&redis, |health| matches!(health, Health::Refuses(why) if why.contains("BUSY"))).await;
    assert_eq!(redis.command(&words("GET k"), soon()).await, Err(CommandError::Unavailable));
    assert!(redis.writable_primary().unwrap_err().contains("BUSY"));
    server.kill();
    assert!(running.await.unwrap().is_err());
    server.start();
    redis.up().await;
}
