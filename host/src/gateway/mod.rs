//! The door for clients: HTTP/1.1 and WebSockets on one listener. It knows tokens, bounds and bytes; what a request or a
//! frame means is the handlers' business, behind `triggers`.

pub mod auth;
