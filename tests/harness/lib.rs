//! The product from outside: start a host, speak its protocol, break the network, compare the results. This
//! crate does not link the host; it knows only `docs/protocol.md`.

// the wire
pub mod description;
pub mod frames;
pub mod rest;
pub mod schema;
pub mod socket;
pub mod token;

// processes and services
pub mod admin;
pub mod document;
pub mod folder;
pub mod host;
pub mod notices;
pub mod paths;
pub mod patience;
pub mod pooler;
pub mod proxy;
pub mod registry;
pub mod release;
pub mod sentinels;
pub mod services;
pub mod tls;
pub mod web;

// clients and checkers
pub mod checker;
pub mod client;
pub mod crowd;
pub mod ledger;
pub mod reference;
