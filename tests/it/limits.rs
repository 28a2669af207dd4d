//! Rate limits of one user for each minute, which protect other people and the other users of the node.

use serde_json::json;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::rest::Rest;

use crate::lists::redis;

const CONVERSATIONS: &str = "/api/v1/conversations";

/// Creating, inviting, guessing codes, searching: each has a setting of its handler. Each user has a limit of
/// their own.
#[tokio::test]
async fn the_actions_of_a_user_per_minute_are_limited() {
    let options = Options::default()
        .set("HANDLERS__CONVERSATIONS__CONVERSATIONS_PER_MINUTE", 3)
        .set("HANDLERS__PARTICIPANTS__INVITATIONS_PER_MINUTE", 4)
        .set("HANDLERS__PARTICIPANTS__INVITATIONS_PER_PERSON_PER_MINUTE", 2)
        .set("HANDLERS__CLASSES__CODES_PER_MINUTE", 3)
        .set("HANDLERS__SEARCH__SEARCHES_PER_MINUTE", 3);
    Host::test(options, async |host| {
        let (eve, ana) = (host.rest("eve"), host.rest("ana"));
        let group = json!({"type": "group", "name": "g", "members": ["ana"]});
        let room = eve.post(CONVERSATIONS, group.clone()).await.expect(201)["conversation"]["id"].clone();
        for _ in 0..2 {
            eve.post(CONVERSATIONS, group.clone()).await.expect(201);
        }
        eve.post(CONVERSATIONS, group.clone()).await.expect_problem(429, "rate_limited");
        ana.post(CONVERSATIONS, group).await.expect(201);

        let participants = format!("{CONVERSATIONS}/{}/participants", room.as_str().expect("an id"));
        let invite = async |user: &str| eve.post(&participants, json!({"user_id": user})).await;
        // Invitations of the same person count, whether they change anything or not.
        invite("bo").await.expect(201);
        invite("bo").await.expect(200);
        invite("bo").await.expect_problem(429, "rate_limited");
        invite("cy").await.expect(201);
        invite("di").await.expect_problem(429, "rate_limited");

        for guess in 0..3 {
            let code = json!({"code": format!("CS{guess}")});
            eve.post("/api/v1/classes/join", code).await.expect_problem(404, "not_found");
        }
        eve.get("/api/v1/classes/join/CS4").await.expect_problem(429, "rate_limited");
        ana.get("/api/v1/classes/join/CS4").await.expect_problem(404, "not_found");

        for _ in 0..3 {
            eve.get("/api/v1/search?q=x").await.expect(200);
        }
        let refused = eve.get("/api/v1/search?q=x").await;
        assert!(refused.headers.contains_key("retry-after"));
        refused.expect_problem(429, "rate_limited");
        ana.get("/api/v1/search?q=x").await.expect(200);
    })
    .await;
}

/// A new conversation is no way around the limit of invitations. One that begins within its own limit gets
/// all its members.
#[tokio::test]
async fn the_members_of_new_conversations_are_limited() {
    let options = Options::default().set("HANDLERS__CONVERSATIONS__MEMBERS_PER_MINUTE", 4);
    Host::test(options, async |host| {
        let (eve, ana) = (host.rest("eve"), host.rest("ana"));
        let group = json!({"type": "group", "name": "g", "members": ["ana", "bo", "cy"]});
        for _ in 0..2 {
            eve.post(CONVERSATIONS, group.clone()).await.expect(201);
        }
        eve.post(CONVERSATIONS, group.clone()).await.expect_problem(429, "rate_limited");
        eve.post(CONVERSATIONS, json!({"type": "group", "name": "alone"})).await.expect(201);
        ana.post(CONVERSATIONS, group).await.expect(201);
    })
    .await;
}

#[tokio::test]
async fn the_tickets_of_a_user_are_limited() {
    Host::test(Options::default(), async |host| {
        let ask = async |who: &Rest| who.post("/api/v1/ws-tickets", json!({})).await;
        let eve = host.rest("eve");
        for _ in 0..120 {
            ask(&eve).await.expect(200);
        }
        ask(&eve).await.expect_problem(429, "rate_limited");
        // A counter that has lost its end gets another one, or the user would never get a ticket again.
        let redis = &mut redis(host).await;
        let found = redis::cmd("KEYS").arg("*:tickets-of:*").query_async::<Vec<String>>(redis).await.unwrap();
        let [counter] = &found[..] else { panic!("only one user has asked: {found:?}") };
        let persisted: i64 = redis::cmd("PERSIST").arg(counter).query_async(redis).await.unwrap();
        assert_eq!(persisted, 1, "the counter has an end");
        ask(&eve).await.expect_problem(429, "rate_limited");
        let left_ms: i64 = redis::cmd("PTTL").arg(counter).query_async(redis).await.unwrap();
        assert!((1..=60_000).contains(&left_ms), "{left_ms} ms");
        ask(&host.rest("ana")).await.expect(200);
        // A ticket that Redis could not store is not handed out.
        for (maxmemory, status) in [("1", 503), ("0", 200)] {
            let set = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(maxmemory).to_owned();
            let () = set.query_async(redis).await.unwrap();
            assert_eq!(ask(&host.rest("bo")).await.status, status, "maxmemory {maxmemory}");
        }
    })
    .await;
}

/// However fast people start and stop typing, a reader gets few pushes.
#[tokio::test]
async fn typing_is_pushed_a_few_times_in_ten_seconds() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        for n in 0..50 {
            for state in ["start", "stop"] {
                ana.write(
                    json!({"type": "typing", "id": n, "payload": {"conversation_id": room, "state": state}}),
                )
                .await;
            }
        }
        ana.send("the last").await.expect_sent();
        bo.expect_message("the last").await;
        // A window has six, and the frames may fall into two windows.
        let (starts, stops) = (bo.buffered("typing.start").len(), bo.buffered("typing.stop").len());
        assert!((1..=12).contains(&starts) && stops <= starts, "{starts} starts, {stops} stops of 50");
    })
    .await;
}

/// A client that pings beyond its limit gets one answer for all of them, not one each.
#[tokio::test]
async fn pings_beyond_the_limit_are_answered_once() {
    let options = Options::default().set("FRAMES_PER_SECOND", 1).set("FRAMES_BURST", 5);
    Host::test(options, async |host| {
        let mut ana = host.client("ana").await;
        for _ in 0..200 {
            ana.write(json!({"type": "ping"})).await;
        }
        // This ping has an `id`, so it gets an answer, after the answers to the others.
        ana.write(json!({"type": "ping", "id": "end"})).await;
        ana.reply_to(&json!("end")).await.expect_error("rate_limited");
        // One answer for each second that the pings take.
        let errors = ana.buffered("error").len();
        assert!((1..=2).contains(&errors), "{errors} answers to 195 pings");
    })
    .await;
}
