//! The outcome of a change of releases, for the caller: the admin API and the CLI show it.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::registry::Conflict;
use super::repository::{self, Action, Answer, Running, SkipReason};
use switchboard_contract::types::Problem;
use switchboard_core::error::Blame;
use switchboard_core::ids::Digest;
use switchboard_core::limits;
use switchboard_core::manifest::ROLE_PREFIX;
use switchboard_protocol::wire::problem::Code;
use switchboard_runtime::Refusal;

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
    pub(super) fn of(answer: Answer, expected: Option<Digest>) -> Self {
        let Answer { node, address, report } = answer;
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

/// Why the change was refused. The running releases keep running.
#[derive(Debug)]
pub enum Refused {
    /// The file breaks a rule of releases.
    Release(Refusal),
    /// The release has no signature of a key in `release_keys`.
    Unsigned(Digest),
    /// The release binds what another handler binds.
    Conflict(Conflict),
    /// A file of `handlers_dir` that should not be deployed, or not now.
    Skipped(SkipReason),
    /// Another caller switched the handler meanwhile.
    Lost {
        to: Option<Running>,
    },
    UnknownHandler(String),
    UnknownRelease(String),
    /// The text is not the beginning of a digest.
    NoDigest(String),
    Ambiguous(String),
    NothingBefore,
    /// A canary or a shadow needs a running release, and none runs.
    NothingRuns(String),
    RunsAlready(String),
    NoCanary(String),
    NoShadow(String),
    /// The canary is a different release from the one that the caller named.
    OtherCanary(Digest),
    /// The release needs migrations that this database lacks.
    Migrations(Vec<i64>),
    /// The role of the Postgres grant does not exist.
    Role(String),
    /// The fleet has switched, but Postgres failed while the node waited for the others.
    NodesUnknown {
        name: String,
        digest: Digest,
        error: repository::Error,
    },
    Backend(repository::Error),
    Host(String),
}

impl Refused {
    pub fn problem(&self) -> Problem {
        let detail = self.to_string();
        match self {
            Self::Release(refusal) if refusal.blame == Blame::Guest => {
                Code::Invalid.problem(detail).field("release")
            }
            Self::Unsigned(_) => Code::Invalid.problem(detail).field("release"),
            Self::Conflict(_)
            | Self::Skipped(_)
            | Self::Lost { .. }
            | Self::NothingBefore
            | Self::NothingRuns(_)
            | Self::RunsAlready(_)
            | Self::NoCanary(_)
            | Self::NoShadow(_)
            | Self::OtherCanary(_)
            | Self::Migrations(_)
            | Self::Role(_) => Code::Conflict.problem(detail),
            Self::UnknownHandler(_) | Self::UnknownRelease(_) => Code::NotFound.problem(detail),
            Self::NoDigest(_) | Self::Ambiguous(_) => Code::Invalid.problem(detail).field("release"),
            Self::Backend(_) | Self::NodesUnknown { .. } => Code::Unavailable.problem(detail),
            Self::Release(_) | Self::Host(_) => Code::Internal.problem(detail),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Release(refusal) => refusal.fmt(f),
            Self::Unsigned(digest) => {
                write!(f, "release {} is not signed by a key that this fleet trusts", digest.short())
            }
            Self::Conflict(conflict) => conflict.fmt(f),
            Self::Skipped(reason) => reason.fmt(f),
            Self::Lost { to: Some(to) } => {
                write!(
                    f,
                    "another caller switched `{}` to {} meanwhile: check it and try again",
                    to.name,
                    to.digest.short()
                )
            }
            Self::Lost { to: None } => {
                f.write_str("another caller switched the handler meanwhile: check it and try again")
            }
            Self::UnknownHandler(name) => write!(f, "no handler `{name}` runs in this fleet"),
            Self::UnknownRelease(hex) => write!(f, "no stored release of the handler begins with {hex}"),
            Self::NoDigest(text) => write!(
                f,
                "`{text}` does not name a release: give {} to 64 hex digits of its digest",
                limits::DIGEST_PREFIX_MIN
            ),
            Self::Ambiguous(hex) => write!(f, "several releases begin with {hex}: give more digits"),
            Self::NothingBefore => {
                f.write_str("no release ran before this one: name the release to roll back to")
            }
            Self::NothingRuns(name) => {
                write!(
                    f,
                    "`{name}` has no running release, which a canary or a shadow needs: deploy this release for everybody"
                )
            }
            Self::RunsAlready(name) => write!(f, "`{name}` already runs this release for everybody"),
            Self::NoCanary(name) => write!(f, "`{name}` has no canary"),
            Self::NoShadow(name) => write!(f, "`{name}` has no shadow"),
            Self::OtherCanary(digest) => {
                write!(f, "the canary is {}, not the release that was named", digest.short())
            }
            Self::Migrations(versions) => {
                let versions: Vec<_> = versions.iter().map(i64::to_string).collect();
                let versions = versions.join(", ");
                write!(
                    f,
                    "the release needs migrations that this database lacks: {versions} (run `switchboard migrate`)"
                )
            }
            Self::Role(role) => write!(
                f,
                "the Postgres role `{ROLE_PREFIX}{role}` of `grants.postgres` does not exist: a migration must create it"
            ),
            Self::NodesUnknown { name, digest, error } => {
                write!(
                    f,
                    "the fleet switched `{name}` to {}, but it is unknown which nodes follow: {error}",
                    digest.short()
                )
            }
            Self::Backend(error) => error.fmt(f),
            Self::Host(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Backend(error) | Self::NodesUnknown { error, .. } => error.source(),
            _ => None,
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Release(refusal)
    }
}

impl From<Conflict> for Refused {
    fn from(conflict: Conflict) -> Self {
        Self::Conflict(conflict)
    }
}

impl From<repository::Error> for Refused {
    fn from(error: repository::Error) -> Self {
        Self::Backend(error)
    }
}
