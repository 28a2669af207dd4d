//! Types that every crate of the host uses: bounds, ids, settings, manifests, shutdown. The only IO is
//! reading settings.

pub mod config;
pub mod error;
pub mod fetch_url;
pub mod hash;
pub mod ids;
pub mod limits;
pub mod manifest;
pub mod quota;
pub mod shares;
pub mod shutdown;
pub mod timestamp;

pub use error::{Blame, Blamed, Error};
