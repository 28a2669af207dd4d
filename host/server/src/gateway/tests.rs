//! Tests of the gateway from outside: real sockets, fastwebsockets as the client, and a backend with a few
//! small handlers.

mod backend;
mod cost;
mod frames;
mod handshake;
mod rest;
