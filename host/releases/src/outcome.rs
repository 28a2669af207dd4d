//! The outcome of a change of releases, for the caller: the admin API and the CLI show it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::repository::{Action, NodeAnswer};
use switchboard_core::ids::Digest;

/// The fleet has switched. `nodes` says which nodes could follow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    #[serde(rename = "handler")]
    pub name: String,
    pub action: Action,
    /// The release that was deployed, promoted or rolled back to. When a canary or a shadow ends, the release
    /// that keeps running. At a retirement, the release that was retired.
    #[serde(rename = "release")]
    pub digest: Digest,
    pub generation: i64,
    /// The release that ran before, or that runs beside a canary or a shadow, or the canary or shadow that
    /// ended. Absent at a handler's first release, and when nothing changed.
    pub previous: Option<Digest>,
    /// The percentage of a canary or a shadow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// The release already ran.
    pub unchanged: bool,
    /// True when every live node runs the release. At a retirement: when no live node runs it.
    pub complete: bool,
    pub nodes: Vec<NodeOutcome>,
    pub took_ms: u64,
}

/// A secret was set or removed. `nodes` says which nodes use the value, or do without it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecretOutcome {
    pub name: String,
    /// Rises with each value. Absent after a removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// The size of the value. Absent after a removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    pub generation: i64,
    /// The handlers with a release that is granted the secret.
    pub used_by: Vec<String>,
    /// True when every live node follows.
    pub complete: bool,
    /// Empty when no release is granted the secret.
    pub nodes: Vec<NodeOutcome>,
    pub took_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeOutcome {
    pub node: Uuid,
    /// The address of its admin listener.
    pub address: String,
    pub state: State,
    /// The release that the node runs instead.
    pub kept: Option<Digest>,
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The node's next call uses the release. At a retirement: the handler is removed on the node.
    Live,
    /// The release does not load on the node, which keeps running the old one.
    Kept,
    /// The node is alive, but has not answered in time.
    Silent,
}

impl NodeOutcome {
    /// `expected` is what the node should run; None after a retirement.
    pub(super) fn of(answer: NodeAnswer, expected: Option<Digest>) -> Self {
        let NodeAnswer { node, address, report } = answer;
        match report {
            None => Self { node, address, state: State::Silent, kept: None, error: None },
            Some(report) if report.digest == expected && report.error.is_none() => {
                Self { node, address, state: State::Live, kept: None, error: None }
            }
            Some(report) => {
                Self { node, address, state: State::Kept, kept: report.digest, error: report.error }
            }
        }
    }

    pub fn is_live(&self) -> bool {
        self.state == State::Live
    }
}
