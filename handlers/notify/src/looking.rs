//! Finds the users who look at a conversation: they have a subscribed connection on a live node, and it has
//! no focus on another conversation. If Redis fails, nobody counts as looking, and users get unneeded
//! notifications.

use chat::keys;
use std::collections::{BTreeMap, BTreeSet};

use chat::presence::Lease;
use sdk::redis::{self, Error, Pipeline, Reply};
use sdk::{Id, clock, log};
use serde::Serialize;

use crate::rules::Message;

#[derive(Serialize)]
pub(crate) struct Looker {
    conversation_id: Id,
    user_id: String,
}

/// The users who look at the conversations of these messages and can be notified of one of them.
pub(crate) fn at(messages: &[&Message]) -> Vec<Looker> {
    match read(messages) {
        Ok(looking) => looking,
        Err(error) => {
            log::warn("not known who looks", &[("why", &redis::describe(&error))]);
            Vec::new()
        }
    }
}

fn read(messages: &[&Message]) -> Result<Vec<Looker>, Error> {
    let mut senders: BTreeMap<Id, BTreeSet<&str>> = BTreeMap::new();
    // If nobody else was there, nobody is notified who might look.
    for message in messages.iter().filter(|message| !message.is_alone) {
        senders.entry(message.conversation_id).or_default().insert(message.sender_id());
    }
    let mut pipeline = Pipeline::new();
    for conversation in senders.keys() {
        pipeline.push(&["HGETALL", &keys::looking(*conversation)]);
    }
    let replies = pipeline.run()?;
    let mut subscribers = Vec::new();
    for ((conversation, senders), reply) in senders.iter().zip(&replies) {
        // A sender is not notified of their own message, so it does not matter whether the only sender looks.
        let is_only_sender = |user: &str| senders.len() == 1 && senders.contains(user);
        let others = pairs(reply).filter(|(_, user)| !is_only_sender(user));
        subscribers.extend(others.map(|(connection, user)| (*conversation, connection, user)));
    }
    if subscribers.is_empty() {
        return Ok(Vec::new());
    }

    let mut pipeline = Pipeline::new();
    pipeline.push(&["ZRANGEBYSCORE", keys::NODES, "-inf", &clock::now_ms().to_string()]);
    for (_, connection, user) in &subscribers {
        pipeline.push(&["HGET", &keys::leases(user), connection]);
    }
    let replies = pipeline.run()?;
    let Some((dead, leases)) = replies.split_first() else { return Ok(Vec::new()) };
    let dead: BTreeSet<&str> = dead.texts().collect();
    let looks = |conversation: Id, lease: &str| {
        let lease = Lease::parse(lease);
        !dead.contains(lease.node) && lease.looks_at(conversation)
    };
    let looking = subscribers
        .iter()
        .zip(leases)
        .filter(|((conversation, ..), lease)| lease.text().is_some_and(|lease| looks(*conversation, lease)));
    Ok(looking
        .map(|((conversation, _, user), _)| Looker {
            conversation_id: *conversation,
            user_id: (*user).to_owned(),
        })
        .collect())
}

/// The fields and values of a hash.
fn pairs(reply: &Reply) -> impl Iterator<Item = (&str, &str)> {
    reply.items().chunks(2).filter_map(|pair| Some((pair.first()?.text()?, pair.get(1)?.text()?)))
}
