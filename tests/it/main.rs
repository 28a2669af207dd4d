//! The product through its protocol, as one binary: linking is the slow part. Every test has its own host, database and
//! Redis, and leaves nothing behind (`harness/host.rs`).

mod auth;
mod bad_input;
mod bounds;
mod canaries;
mod channels;
mod classes;
mod conversations;
mod crash;
mod drain;
mod events;
mod grants;
mod graphql;
mod guests;
mod history;
mod lifecycle;
mod lists;
mod loss;
mod messages;
mod nodes;
mod notifications;
mod offline;
mod openapi;
mod participants;
mod presence;
mod publish;
mod releases;
mod search;
mod subscribe;
mod swaps;
mod three_nodes;
mod traces;
mod transitions;
mod typing;
mod users;
