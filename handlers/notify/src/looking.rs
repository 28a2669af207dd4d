//! Finds the users who look at a conversation: they have a subscribed connection on a live node, and it has
//! no focus on another conversation. If Redis fails, nobody counts as looking, and users get unneeded
//! notifications.

use chat::keys;
use std::collections::BTreeSet;

use chat::presence::Lease;
use sdk::redis::{self, Error, Pipeline, Reply};
use sdk::{Id, clock, log};
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct Looker {
    conversation_id: Id,
    user_id: String,
}

/// The users who look at these conversations.
pub(crate) fn at(conversations: &BTreeSet<Id>) -> Vec<Looker> {
    match read(conversations) {
        Ok(looking) => looking,
        Err(error) => {
            log::warn("not known who looks", &[("why", &redis::describe(&error))]);
            Vec::new()
        }
    }
}

fn read(conversations: &BTreeSet<Id>) -> Result<Vec<Looker>, Error> {
    let mut pipeline = Pipeline::new();
    pipeline.push(&["ZRANGEBYSCORE", keys::NODES, "-inf", &clock::now_ms().to_string()]);
    for conversation in conversations {
        pipeline.push(&["HGETALL", &keys::looking(*conversation)]);
    }
    let replies = pipeline.run()?;
    let dead: BTreeSet<&str> = replies.first().into_iter().flat_map(Reply::texts).collect();
    let mut subscribers = Vec::new();
    for (conversation, reply) in conversations.iter().zip(&replies[1..]) {
        subscribers.extend(pairs(reply).map(|(connection, user)| (*conversation, connection, user)));
    }

    let mut pipeline = Pipeline::new();
    for (_, connection, user) in &subscribers {
        pipeline.push(&["HGET", &keys::leases(user), connection]);
    }
    let leases = pipeline.run()?;
    let looks = |conversation: Id, lease: &str| {
        let lease = Lease::parse(lease);
        !dead.contains(lease.node) && lease.looks_at(conversation)
    };
    let looking = subscribers
        .iter()
        .zip(&leases)
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
