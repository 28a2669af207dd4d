//! Which release of each handler runs: the atomic pointer to the routing table, the records in Postgres, and
//! how a fleet moves from one release to the next. This module does not look into a component; `runtime`
//! does.

// For `manifests`, which names this crate.
#[cfg(test)]
extern crate self as switchboard_releases;

mod chance;
mod error;
mod first;
mod judge;
#[cfg(test)]
#[path = "../../testing/src/manifests.rs"]
#[allow(unreachable_pub, reason = "the crate for tests exports it")]
mod manifests;
mod meters;
mod outcome;
pub mod registry;
pub mod repository;
mod rollout;
mod shadow;
pub mod signature;

pub use error::Error;
pub use outcome::{NodeOutcome, Outcome, State};
pub use rollout::{Deployment, Load, Origin, Rollout};
pub use signature::Trust;
