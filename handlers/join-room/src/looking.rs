//! Records in Redis which connections look at a conversation, so that users are not notified of messages on
//! their screen. It is a hint: if Redis fails, users get unneeded notifications.

use chat::keys;
use sdk::redis::{self, Pipeline};
use sdk::{Id, log};

pub(crate) fn begin(connection: &str, user: &str, conversations: &[Id]) {
    let mut pipeline = Pipeline::new();
    let ttl = keys::LOOKING_TTL_S.to_string();
    for conversation in conversations {
        let looking = keys::looking(*conversation);
        pipeline.push(&["HSET", &looking, connection, user]).push(&["EXPIRE", &looking, &ttl]);
        pipeline.push(&["SADD", &keys::looks(connection), &conversation.to_string()]);
    }
    if !conversations.is_empty() {
        pipeline.push(&["EXPIRE", &keys::looks(connection), &ttl]);
    }
    run(&pipeline);
}

pub(crate) fn end(connection: &str, conversations: &[Id]) {
    let mut pipeline = Pipeline::new();
    for conversation in conversations {
        pipeline.push(&["HDEL", &keys::looking(*conversation), connection]);
        pipeline.push(&["SREM", &keys::looks(connection), &conversation.to_string()]);
    }
    run(&pipeline);
}

fn run(pipeline: &Pipeline) {
    if let Err(error) = pipeline.run() {
        log::warn("not noted who looks", &[("why", &redis::describe(&error))]);
    }
}
