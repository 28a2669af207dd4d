//! What every crate of the host shares: bounds, ids, settings, manifests, shutdown. No IO but reading settings.

pub mod config;
pub mod error;
pub mod ids;
pub mod limits;
pub mod manifest;
pub mod quota;
pub mod shares;
pub mod shutdown;
pub mod timestamp;
