//! Which release of each handler runs: the atomic pointer, the records in Postgres, and how a fleet moves from one
//! release to the next. It never looks into a component; that is `runtime`.

mod chance;
#[cfg(test)]
pub(crate) mod database;
mod first;
mod judge;
#[cfg(test)]
pub(crate) mod manifests;
mod meters;
mod outcome;
pub mod registry;
pub mod repository;
mod rollout;
mod shadow;
pub mod signature;

pub use outcome::{NodeOutcome, Outcome, Refused, State};
pub use rollout::{Beside, Load, Rollout};
pub use signature::Trust;
