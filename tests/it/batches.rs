//! One call for many connections that open or close together. A connection that makes every call fail harms
//! no other one.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::json;
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;

use crate::lists::redis;

const CROWD: usize = 40;

/// Connects all users while both calls that may be in flight wait, so that they are in one batch. Returns
/// them with the number of connections in the call that welcomed each. Each got its own push, once, before
/// the reply to its first frame. Users whose call traps got none.
async fn crowd(host: &Host, users: &[String]) -> (Vec<Client>, Vec<u64>) {
    let (mut redis, key) = (redis(host).await, host.redis_key("welcome:go").await);
    let () = redis::cmd("DEL").arg(&key).query_async(&mut redis).await.unwrap();
    let before = connected(host).await;
    let mut holders = join_all(["hold-1", "hold-2"].map(|user| host.client(user))).await;
    until("both calls to begin", async || (connected(host).await == before + 2).then_some(())).await;
    let mut clients = join_all(users.iter().map(|user| host.client(user))).await;
    let all = before + 2 + users.len() as i64;
    until("all to wait", async || (connected(host).await == all).then_some(())).await;
    let () = redis::cmd("SET").arg(&key).arg(1).query_async(&mut redis).await.unwrap();
    let mut together = Vec::new();
    for (user, client) in users.iter().zip(&mut clients) {
        client.request("guests.welcomed", json!({})).await.expect("welcomed");
        let pushes = client.buffered("welcome");
        if user.starts_with("trap") {
            assert!(pushes.is_empty(), "{user}: {pushes:?}");
            continue;
        }
        assert_eq!(pushes.len(), 1, "{user}: {pushes:?}");
        assert_eq!(pushes[0]["user"], *user);
        let count = pushes[0]["together"].as_u64().expect("a number");
        let has_own_call = user.starts_with("alone") || user.starts_with("fails");
        assert!(!has_own_call || count == 1, "{user}: {count}");
        together.push(count);
    }
    for holder in &mut holders {
        assert_eq!(holder.expect("welcome").await["together"], 1);
    }
    clients.extend(holders);
    (clients, together)
}

/// The number of connections for which the handler before `welcome` has ended.
async fn connected(host: &Host) -> i64 {
    let database = host.database.connect().await;
    let rows = database.rows("select count(*) from switchboard.outbox where event_type = 'socket.connect'");
    rows.await[0].get(0)
}

fn named(names: impl Fn(usize) -> &'static str) -> Vec<String> {
    (0..CROWD).map(|n| format!("{}-{n}", names(n))).collect()
}

#[tokio::test]
async fn connections_that_open_together_share_calls_and_one_that_fails_harms_no_other() {
    Host::test(Options::default(), async |host| {
        host.admin.release(&Release::guest("welcome")).await;
        let users = named(|n| match n % 20 {
            13 => "alone",
            14 => "fails",
            _ => "user",
        });
        let (first, together) = crowd(host, &users).await;
        assert!(together.iter().any(|count| *count > 1), "{together:?}");
        assert!(!host.log().contains("the handler is called for each of them alone"));

        let others = named(|n| if n % 20 == 7 { "trap" } else { "other" });
        let (second, _) = crowd(host, &others).await;
        until("the failed call to be logged", async || {
            host.log()
                .contains("connections failed; the handler is called for each of them alone")
                .then_some(())
        })
        .await;

        drop((first, second));
        let all = || users.iter().chain(&others).filter(|user| !user.starts_with("trap"));
        until("the end of all connections", async || {
            let log = host.log();
            let mut goodbyes = BTreeMap::<&String, usize>::new();
            for user in all() {
                let field = format!("\"field.to\":{user:?}");
                let is_goodbye = |line: &&str| line.contains("goodbye") && line.contains(&field);
                goodbyes.insert(user, log.lines().filter(is_goodbye).count());
            }
            goodbyes.values().all(|count| *count > 0).then_some(())
        })
        .await;
    })
    .await;
}
