//! The behaviour of `send-message` when a host call fails. A recording could only show one of these cases.

use serde_json::{Value, json};
use switchboard_harness::{Handler, Harness};

async fn send_message() -> Handler {
    let harness = Harness::alone().unwrap();
    harness.load(crate::built("send-message")).await.unwrap_or_else(|refusal| panic!("{refusal}"))
}

fn hi() -> Value {
    let payload = json!({ "conversation_id": "019b0000-0000-7000-8000-000000000001", "content": "hi" });
    json!({ "type": "message.send", "payload": payload, "caller": "ana" })
}

/// The answer of `postgres.collect` for a stored message.
fn stored() -> Value {
    let cells = json!([1, "accepted", 3, "{\"seq\":4}"]);
    json!({ "Ok": { "columns": ["n", "verdict", "shard", "message"], "cells": cells, "affected": 1 } })
}

/// An answer of Redis that is a number.
fn counted(number: i64) -> Value {
    json!({ "Ok": [{ "Integer": number }] })
}

#[tokio::test]
async fn a_stored_message_is_acknowledged_and_its_consumers_are_woken() {
    let send = send_message().await;
    let call = send.call("frame", hi()).answer("redis.command", counted(2));
    let ran = call.answer("postgres.collect", stored()).run().await;
    assert_eq!(ran.answer(), json!({ "message": { "seq": 4 }, "duplicate": false }));
    assert_eq!(ran.calls_of("wake.outbox").next().unwrap().args, json!({ "shards": [3] }));
}

#[tokio::test]
async fn a_message_that_postgres_did_not_store_is_never_acknowledged() {
    let send = send_message().await;
    for error in [
        json!("Busy"),
        json!("Deadline"),
        json!("UnknownOutcome"),
        json!({ "Retryable": "deadlock" }),
        json!({ "Sql": { "code": "23505", "message": "duplicate", "constraint": "messages_pkey" } }),
        json!({ "Refused": "no" }),
        json!({ "TooLarge": 1 }),
    ] {
        let call = send.call("frame", hi()).answer("redis.command", counted(2));
        let ran = call.fail("postgres.collect", 1, json!({ "Err": error })).run().await;
        let status = ran.returned()["Err"]["status"].as_u64();
        assert!(status.is_some_and(|status| status >= 500), "{ran}");
        assert_eq!(ran.calls_of("wake.outbox").count(), 0, "{ran}");
        // The message does not count in the rate limit.
        assert_eq!(ran.calls_of("redis.script").count(), 1, "{ran}");
    }
}

#[tokio::test]
async fn counting_a_message_takes_one_command_unless_its_window_is_new_or_full() {
    let send = send_message().await;
    let call = |counted| send.call("frame", hi()).answer("redis.command", counted);
    let known = call(counted(25)).answer("postgres.collect", stored()).run().await;
    known.expect_ok();
    assert_eq!((known.calls_of("redis.command").count(), known.calls_of("redis.script").count()), (1, 0));

    let new = call(counted(1)).answer("postgres.collect", stored()).run().await;
    new.expect_ok();
    let commands: Vec<_> = new.calls_of("redis.command").map(|call| call.args["args"].clone()).collect();
    assert_eq!(commands, [json!(["INCR", "rate:send:ana"]), json!(["PEXPIRE", "rate:send:ana", "60000"])]);

    // The script takes the call back, and knows when the window ends.
    let full = call(counted(26)).answer("redis.script", counted(500)).run().await;
    assert_eq!(full.returned()["Err"]["status"], 429, "{full}");
    let script = full.calls_of("redis.script").next().unwrap().args.clone();
    assert_eq!(script["args"], json!(["25", "60000", "1", "26"]));
    assert_eq!(full.calls_of("postgres.collect").count(), 0, "{full}");

    // A full Redis counts nothing, but knows of a window that is full.
    let oom = call(json!({ "Err": { "Failed": "OOM" } })).answer("redis.script", counted(500)).run().await;
    assert_eq!(oom.returned()["Err"]["status"], 429, "{oom}");
    assert_eq!(oom.calls_of("redis.script").next().unwrap().args["args"], json!(["25", "60000"]));
}

#[tokio::test]
async fn a_hanging_postgres_costs_only_the_deadline() {
    let send = send_message().await;
    send.call("frame", hi()).hang("postgres.collect", 1).run().await.expect_failure("deadline");
    let call = send.call("frame", hi()).answer("postgres.collect", stored());
    call.run().await.expect_ok();
}

#[tokio::test]
async fn the_same_clock_and_randomness_make_the_same_call() {
    let send = send_message().await;
    let run = async |now: &str| {
        let ran = send.call("frame", hi()).at(now).answer("postgres.collect", stored()).run().await;
        ran.calls_of("postgres.collect").next().unwrap().args["row"].clone()
    };
    assert_eq!(run("2026-12-31T23:59:59.999Z").await, run("2026-12-31T23:59:59.999Z").await);
    assert_ne!(run("2026-12-31T23:59:59.999Z").await, run("2027-01-01T00:00:00Z").await);
}
