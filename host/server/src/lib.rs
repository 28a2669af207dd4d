//! A node: clients, operators, triggers, and how all of it starts and ends.

pub mod admin;
pub mod app;
pub mod calls;
mod error;
pub mod gateway;
pub mod revocations;
pub mod triggers;

pub use error::Error;
