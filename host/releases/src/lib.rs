//! Which release of each handler runs: the atomic pointer to the routing table, the records in Postgres, and
//! how a fleet moves from one release to the next. This crate does not look into a component; `runtime`
//! does.

mod chance;
mod error;
mod first;
mod judge;
mod meters;
mod outcome;
pub mod registry;
pub mod repository;
mod rollout;
pub mod sealing;
mod selection;
mod settings;
mod shadow;
pub mod signature;

pub use error::Error;
pub use outcome::{NodeOutcome, Outcome, SecretOutcome, State};
pub use rollout::{Deployment, Origin, Rollout, opened_secrets};
pub use selection::{CallOrigin, Selection, SelectionError};
pub use settings::{
    LiveView, Overridden, OverrideView, SettingError, SettingSource, SettingView, SettingsAction,
    SettingsChange, SettingsOutcome, SettingsRequest, SettingsView, ShownChange,
};
pub use signature::Trust;
