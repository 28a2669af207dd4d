//! Private Postgres and Redis of a clone: how they start, how they are found again, and how they end; and
//! processes with another wall clock.

pub mod faketime;
pub mod server;
pub mod standing;
