//! Helpers for the unit tests of several crates. Only dev-dependencies name this crate.
//!
//! A crate whose unit tests use this one is linked twice: as itself, and as a dependency of this crate. The
//! types of the two differ, so nothing here gives such a test types of its own crate.

mod database;
#[cfg(feature = "guests")]
pub mod guests;
#[cfg(feature = "manifests")]
pub mod manifests;

pub use database::{ROLE, SECRET, with_app_database, with_database};
