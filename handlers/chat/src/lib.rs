//! The rules and data formats of the chat product that several handlers share. The host and `sdk` know
//! nothing of them.
//!
//! Three modules say how the product writes to the outside: `keys` (Redis), `address` (channels) and `outbox`
//! (events). [`may`] answers what a user may do in a conversation. The other modules hold one noun of the
//! product each. A handler that is not part of the product needs only `sdk`.

pub mod address;
pub mod conversation;
pub mod invitation;
pub mod keys;
pub mod marks;
pub mod membership;
pub mod message;
pub mod notification;
pub mod outbox;
pub mod permission;
pub mod presence;
pub mod problem;

pub use conversation::Act;
pub use permission::may;
