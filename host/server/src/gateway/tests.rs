//! The door from outside: real sockets, fastwebsockets as the client, and a house that answers like a few small handlers.

mod cost;
mod door;
mod frames;
mod house;
mod rest;
