//! The guard key without a `GET` in each batch: the server reports its changes, or the node asks as before.

use redis::aio::MultiplexedConnection;

use super::*;

/// A server that does not know the command which begins RESP3.
const WITHOUT_RESP3: &[&str] = &["--rename-command", "HELLO", ""];

fn fleet() -> Keyspace {
    InMemory(Arc::new(AtomicI64::new(1))).keyspace("f")
}

/// Waits until the server reports changes of the guard on the present connection.
async fn until_tracked(link: &Link) -> MultiplexedConnection {
    let tracked = async {
        loop {
            if let Some((connection, true)) = link.tracked() {
                return connection;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), tracked).await.expect("the server reports changes")
}

/// How often the server has run the command.
async fn calls(server: &Private, command: &str) -> u64 {
    let stats = server.say("INFO commandstats").await;
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|rest| rest.split(',').next()).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn a_batch_does_not_read_a_guard_whose_changes_are_reported() {
    let server = Private::new();
    let redis = server.redis_of(fleet());
    until_tracked(&redis.0.link).await;
    let before = calls(&server, "get").await;
    for number in 0..200 {
        redis.command(&words(&format!("SET k {number}")), soon()).await.unwrap();
    }
    let read = calls(&server, "get").await - before;
    assert!(read < 20, "{read} reads of the guard: more than the checks of the connection need");
}

/// The three are on their way before the first answer. The server runs them in this order.
#[tokio::test]
async fn a_flush_voids_the_batch_after_it_also_when_both_are_already_sent() {
    let server = Private::new();
    let redis = server.redis_of(fleet());
    for round in 0..20 {
        let mut connection = until_tracked(&redis.0.link).await;
        let names = redis.0.keyspace.names();
        let of = |command: &str| batch([packed(&words(command))], names.generation, false);
        let flush = packed(&["FLUSHALL"]);
        let (first, flushed, second) = tokio::join!(
            redis.0.link.send(of("SET k before"), soon()),
            connection.send_packed_command(&flush),
            redis.0.link.send(of("SET k after"), soon()),
        );
        flushed.unwrap();
        assert_eq!(second, Err(CommandError::Unavailable), "round {round}");
        // Its answer was there before the flush, or it was not.
        assert!(matches!(first, Ok(_) | Err(CommandError::Unavailable)), "{first:?}");
        redis.0.keyspace.changes().wait_for(|now| now.generation > names.generation).await.unwrap();
    }
}

/// Whatever happens to the guard: the next batch is the first that could count, and does not.
#[tokio::test]
async fn every_change_of_the_guard_voids_the_next_batch() {
    let server = Private::new();
    let redis = server.redis_of(fleet());
    for change in [
        "FLUSHALL",
        "FLUSHDB ASYNC",
        "DEL sb:f:guard:{0}",
        "SET sb:f:guard:{0} x",
        "RENAME sb:f:guard:{0} elsewhere",
        "PEXPIRE sb:f:guard:{0} -1",
        "MOVE sb:f:guard:{0} 1",
        "EVAL return(redis.call('DEL','sb:f:guard:{0}')) 0",
    ] {
        until_tracked(&redis.0.link).await;
        let generation = redis.0.keyspace.names().generation;
        let command = words("SET k v");
        server.say(change).await;
        let next = redis.command(&command, soon()).await;
        // Unless the node has checked the server in between.
        let is_new = redis.0.keyspace.names().generation > generation;
        assert!(next == Err(CommandError::Unavailable) || is_new, "{change}: {next:?}");
        redis.0.keyspace.changes().wait_for(|now| now.generation > generation).await.unwrap();
    }
}

/// The guard expires, or is evicted, without a command.
#[tokio::test]
async fn a_guard_that_expires_voids_the_next_batch() {
    let server = Private::new();
    let redis = server.redis_of(fleet());
    until_tracked(&redis.0.link).await;
    let generation = redis.0.keyspace.names().generation;
    server.say("PEXPIRE sb:f:guard:{0} 30").await;
    while server.say("EXISTS sb:f:guard:{0}").await == "1" {
        tokio::task::yield_now().await;
    }
    let next = redis.command(&words("SET k v"), soon()).await;
    let is_new = redis.0.keyspace.names().generation > generation;
    assert!(next == Err(CommandError::Unavailable) || is_new, "{next:?}");
    redis.0.keyspace.changes().wait_for(|now| now.generation > generation).await.unwrap();
}

/// A report that does not concern the guard costs a question, and fails no batch.
#[tokio::test]
async fn the_flush_of_another_database_voids_nothing() {
    let server = Private::new();
    let redis = server.redis_of(fleet());
    until_tracked(&redis.0.link).await;
    let url = format!("redis://:secret@127.0.0.1:{}/1", server.port);
    let mut other = Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let generation = redis.0.keyspace.names().generation;
    for round in 0..3 {
        let before = calls(&server, "get").await;
        let _: () = redis::cmd("FLUSHDB").query_async(&mut other).await.unwrap();
        for _ in 0..10 {
            assert_eq!(redis.command(&words("SET k v"), soon()).await, Ok(vec![text("OK")]), "{round}");
        }
        assert!(calls(&server, "get").await > before, "nobody asked for the guard");
        until_tracked(&redis.0.link).await;
    }
    assert_eq!(redis.0.keyspace.names().generation, generation);
}

/// Users that may not track, and servers and proxies that do not know RESP3.
#[tokio::test]
async fn where_changes_are_not_reported_each_batch_reads_the_guard() {
    let (server, old_server) = (Private::new(), Private::of(WITHOUT_RESP3));
    for (user, denied) in [("no-tracking", "-client|tracking"), ("no-caching", "-client|caching")] {
        server.say(&format!("ACL SETUSER {user} on >pw ~* &* +@all {denied}")).await;
        reads_the_guard(&server, &format!("{user}:pw")).await;
    }
    reads_the_guard(&old_server, ":secret").await;
}

async fn reads_the_guard(server: &Private, login: &str) {
    let url = format!("redis://{login}@127.0.0.1:{}", server.port);
    let redis = Redis::connect(&config(url), fleet()).unwrap();
    redis.up().await;
    let set = words("SET k v");
    while redis.command(&set, soon()).await == Err(CommandError::Unavailable) {
        redis.up().await;
    }
    let before = calls(server, "get").await;
    for _ in 0..50 {
        assert_eq!(redis.command(&set, soon()).await, Ok(vec![text("OK")]), "{login}");
    }
    assert!(calls(server, "get").await >= before + 50, "{login}");
    assert!(matches!(redis.0.link.tracked(), Some((_, false))), "{login}");
    let generation = redis.0.keyspace.names().generation;
    server.say("FLUSHALL").await;
    let next = redis.command(&set, soon()).await;
    let is_new = redis.0.keyspace.names().generation > generation;
    assert!(next == Err(CommandError::Unavailable) || is_new, "{login}: {next:?}");
}

/// No server reports `SWAPDB`.
#[tokio::test]
async fn a_change_that_is_not_reported_is_found_by_the_check() {
    let server = Private::new();
    let redis = server.redis_of(fleet());
    until_tracked(&redis.0.link).await;
    let generation = redis.0.keyspace.names().generation;
    server.say("SWAPDB 0 1").await;
    redis.0.keyspace.changes().wait_for(|now| now.generation > generation).await.unwrap();
}

/// A new connection begins without tracking, and ends with it.
#[tokio::test]
async fn a_new_connection_is_tracked_again() {
    let server = Private::new();
    let redis = server.redis_of(fleet());
    for _ in 0..3 {
        until_tracked(&redis.0.link).await;
        server.say("CLIENT KILL TYPE normal SKIPME yes").await;
        while redis.command(&words("SET k v"), soon()).await.is_err() {
            redis.up().await;
        }
        until_tracked(&redis.0.link).await;
        let generation = redis.0.keyspace.names().generation;
        server.say("FLUSHALL").await;
        let next = redis.command(&words("SET k v"), soon()).await;
        let is_new = redis.0.keyspace.names().generation > generation;
        assert!(next == Err(CommandError::Unavailable) || is_new, "{next:?}");
        redis.0.keyspace.changes().wait_for(|now| now.generation > generation).await.unwrap();
    }
}

#[tokio::test]
async fn every_server_of_a_cluster_reports_changes_of_its_guard() {
    let three = Three::start().await;
    let redis = three.redis_of(fleet());
    redis.up().await;
    let links = loop {
        let links = redis.0.cluster.as_ref().unwrap().links();
        if links.len() == 3 {
            break links;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    for link in &links {
        until_tracked(link).await;
    }
    let mut before = 0;
    for server in &three.servers {
        before += calls(server, "get").await;
    }
    for number in 0..100 {
        redis.command(&words(&format!("SET key:{number} v")), soon()).await.unwrap();
    }
    let mut after = 0;
    for server in &three.servers {
        after += calls(server, "get").await;
    }
    assert!(after - before < 30, "{} reads of guards", after - before);
}

/// RESP3 has maps, sets, numbers and pairs where RESP2 has lists and texts. Handlers see only the latter.
#[tokio::test]
async fn a_reply_has_the_same_form_in_both_protocols() {
    let (with_resp2, with_resp3) = (Private::of(WITHOUT_RESP3), Private::new());
    let (old, new) = (with_resp2.redis(), with_resp3.redis());
    old.up().await;
    new.up().await;
    for command in [
        "HSET h f 1",
        "SADD s a",
        "ZADD z 1 a 2.5 b inf c 1764528000000 d 1e20 e",
        "ZADD z2 2 a -inf x",
        "RPUSH l a b c",
        "XADD x 1-1 f v",
        "XADD x 2-1 f v g w",
        "GEOADD g 13.5 38.25 p",
        "SET t v",
        "PFADD p a",
        "HSET one f 1",
        "ZADD one-z 0.25 m",
    ] {
        for redis in [&old, &new] {
            redis.command(&words(command), soon()).await.unwrap();
        }
    }
    let mut tried = std::collections::BTreeSet::new();
    for command in [
        "BITCOUNT t",
        "EXISTS t n",
        "EXPIRETIME t",
        "GEODIST g p p",
        "GEOPOS g n",
        "GEOSEARCH g FROMMEMBER p BYRADIUS 1 km WITHDIST",
        "GET n",
        "GET t",
        "HEXISTS h f",
        "HGET h n",
        "HGETALL h",
        "HGETALL n",
        "HINCRBYFLOAT h x 0.5",
        "HKEYS h",
        "HMGET h f n",
        "HRANDFIELD n 2",
        "HRANDFIELD one 1 WITHVALUES",
        "HSCAN h 0",
        "HVALS h",
        "INCRBYFLOAT number 0",
        "LINDEX l 9",
        "LMPOP 1 n LEFT",
        "LPOP n",
        "LPOS l b COUNT 0",
        "LRANGE l 0 -1",
        "MGET t n",
        "PFCOUNT p",
        "PING",
        "SDIFF s n",
        "SET t v GET",
        "SET t v NX",
        "SET t v",
        "SINTER s s",
        "SISMEMBER s a",
        "SMEMBERS n",
        "SMEMBERS s",
        "SMISMEMBER s a b",
        "SPOP n 2",
        "SPOP n",
        "SRANDMEMBER s 1",
        "SSCAN s 0",
        "SUNION s n",
        "TTL n",
        "TYPE z",
        "XLEN x",
        "XRANGE x - +",
        "XREAD COUNT 5 STREAMS x n 0 0",
        "XREAD STREAMS n 0",
        "XREVRANGE x + -",
        "ZADD z INCR 0 b",
        "ZADD z NX INCR 1 b",
        "ZCARD z",
        "ZDIFF 2 z n WITHSCORES",
        "ZDIFF 2 z z2",
        "ZINCRBY z 0 d",
        "ZINTER 2 z z2 WITHSCORES",
        "ZMPOP 1 n MIN",
        "ZMSCORE z a b c e n",
        "ZPOPMAX n 3",
        "ZPOPMAX n",
        "ZRANDMEMBER n 1 WITHSCORES",
        "ZRANDMEMBER one-z 1 WITHSCORES",
        "ZRANDMEMBER one-z",
        "ZRANGE z 0 -1 REV WITHSCORES",
        "ZRANGE z 0 -1",
        "ZRANGE z 0 -1 WITHSCORES",
        "ZRANGEBYLEX z2 - +",
        "ZRANGEBYSCORE z -inf 2 WITHSCORES LIMIT 0 5",
        "ZRANK z b",
        "ZREVRANGE z 0 1 WITHSCORES",
        "ZREVRANGEBYSCORE z +inf 2 WITHSCORES",
        "ZSCAN z 0",
        "ZSCORE z b",
        "ZSCORE z n",
        "ZUNION 2 z z2 WITHSCORES",
        "HGET t f",
        "ZSCORE",
        "ZPOPMIN z 2",
        "ZPOPMAX z2",
        "ZPOPMAX z 1",
        "ZMPOP 1 z MIN COUNT 2",
        "LMPOP 1 l LEFT COUNT 2",
        "SPOP s 1",
    ] {
        let [then, now] =
            [old.command(&words(command), soon()).await, new.command(&words(command), soon()).await];
        assert_eq!(now, then, "{command}");
        tried.insert(command.split(' ').next().unwrap());
    }
    for text in [
        "return {1, 'a', false, true, {2, {}}, {ok = 'fine'}}",
        "return {1, nil, 3}",
        "return redis.call('HGETALL', 'h')",
        "return redis.call('ZRANGE', 'z', 0, -1, 'WITHSCORES')",
        "return redis.call('SMEMBERS', 's')",
        "return redis.call('ZSCORE', 'z', 'b')",
        "return redis.error_reply('MINE no')",
        "return {double = 2.5}",
        "return {map = {a = 1}}",
    ] {
        let script = Script::new("form", text, &[serde_json::from_value("*".into()).unwrap()]);
        let [then, now] =
            [old.script(&script, &[], &[], soon()).await, new.script(&script, &[], &[], soon()).await];
        assert_eq!(now, then, "{text}");
    }
    let paired = reply::PAIRED.iter().filter(|name| !tried.contains(*name)).count();
    assert_eq!(paired, 0, "a command with pairs is not tried");
}
