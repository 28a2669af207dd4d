//! What came of a deploy or a rollback, for whoever asked: said once here, shown by the admin API and the CLI.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::registry::Conflict;
use super::repository::{self, Action, Answer, Running, Settled};
use crate::contract::types::Problem;
use crate::error::Blame;
use crate::ids::Digest;
use crate::limits;
use crate::manifest::ROLE_PREFIX;
use crate::runtime::Refusal;
use crate::wire::problem::Code;

/// The fleet has switched; whether every node could follow is in `nodes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    #[serde(rename = "handler")]
    pub name: String,
    pub action: Action,
    /// What was deployed, promoted or gone back to; when a trial ends, what goes on running; of a retirement, what was taken
    /// out.
    #[serde(rename = "release")]
    pub digest: Digest,
    pub generation: i64,
    /// What ran before, or runs beside a trial, or was the trial; absent at a handler's first release, and where nothing
    /// changed.
    pub previous: Option<Digest>,
    /// Of a trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// It ran already.
    pub unchanged: bool,
    /// Every live node runs it; of a retirement, none does.
    pub complete: bool,
    pub nodes: Vec<NodeOutcome>,
    pub took_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeOutcome {
    pub node: Uuid,
    /// Of its admin listener.
    pub address: String,
    pub state: State,
    /// What it runs instead.
    pub kept: Option<Digest>,
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its next call uses the release. Of a retirement: the handler is gone there.
    Live,
    /// The release does not load there, it goes on with the old one.
    Kept,
    /// It is there, but has not answered in time.
    Silent,
}

impl NodeOutcome {
    /// `expected`: what the node is to run, nothing after a retirement.
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

/// Why it was not done. What ran goes on.
#[derive(Debug)]
pub enum Refused {
    /// The file, by the rules of releases.
    Release(Refusal),
    /// The release has no signature of a key in `release_keys`.
    Unsigned(Digest),
    /// It binds what another handler binds.
    Conflict(Conflict),
    /// A file of `handlers_dir` that is not to be deployed, or not now.
    Settled(Settled),
    /// Someone else switched the handler meanwhile.
    Lost {
        to: Option<Running>,
    },
    UnknownHandler(String),
    UnknownRelease(String),
    /// Not the beginning of a digest.
    NoDigest(String),
    Ambiguous(String),
    NothingBefore,
    /// A trial stands beside what runs, and nothing does.
    NothingRuns(String),
    RunsAlready(String),
    NoCanary(String),
    NoShadow(String),
    /// The canary is another release than the one that was named.
    OtherCanary(Digest),
    /// Migrations that it says it needs.
    Migrations(Vec<i64>),
    /// That of its Postgres grant does not exist.
    Role(String),
    /// The fleet has switched, but Postgres could not be asked how it went.
    Unwatched {
        name: String,
        digest: Digest,
        error: repository::Error,
    },
    Backend(repository::Error),
    Host(String),
}

impl Refused {
    pub fn problem(&self) -> Problem {
        let said = self.to_string();
        match self {
            Self::Release(refusal) if refusal.blame == Blame::Guest => {
                Code::Invalid.problem(said).field("release")
            }
            Self::Unsigned(_) => Code::Invalid.problem(said).field("release"),
            Self::Conflict(_)
            | Self::Settled(_)
            | Self::Lost { .. }
            | Self::NothingBefore
            | Self::NothingRuns(_)
            | Self::RunsAlready(_)
            | Self::NoCanary(_)
            | Self::NoShadow(_)
            | Self::OtherCanary(_)
            | Self::Migrations(_)
            | Self::Role(_) => Code::Conflict.problem(said),
            Self::UnknownHandler(_) | Self::UnknownRelease(_) => Code::NotFound.problem(said),
            Self::NoDigest(_) | Self::Ambiguous(_) => Code::Invalid.problem(said).field("release"),
            Self::Backend(_) | Self::Unwatched { .. } => Code::Unavailable.problem(said),
            Self::Release(_) | Self::Host(_) => Code::Internal.problem(said),
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
            Self::Settled(settled) => settled.fmt(f),
            Self::Lost { to: Some(to) } => {
                write!(f, "`{}` was switched to {} by someone else meanwhile", to.name, to.digest.short())
            }
            Self::Lost { to: None } => f.write_str("the handler was switched by someone else meanwhile"),
            Self::UnknownHandler(name) => write!(f, "no handler `{name}` runs here"),
            Self::UnknownRelease(hex) => write!(f, "no release of it begins with {hex}"),
            Self::NoDigest(text) => write!(
                f,
                "`{text}` does not name a release: {} to 64 hex digits of its digest",
                limits::DIGEST_PREFIX_MIN
            ),
            Self::Ambiguous(hex) => write!(f, "several releases begin with {hex}: give more digits"),
            Self::NothingBefore => f.write_str("nothing ran before it: name the release to go back to"),
            Self::NothingRuns(name) => {
                write!(f, "nothing runs as `{name}` yet that it could stand beside: deploy it whole")
            }
            Self::RunsAlready(name) => write!(f, "it is what `{name}` runs for everybody already"),
            Self::NoCanary(name) => write!(f, "`{name}` has no canary"),
            Self::NoShadow(name) => write!(f, "`{name}` has no shadow"),
            Self::OtherCanary(digest) => write!(f, "the canary is {}", digest.short()),
            Self::Migrations(versions) => {
                let versions: Vec<_> = versions.iter().map(i64::to_string).collect();
                let versions = versions.join(", ");
                write!(
                    f,
                    "it needs migrations that this database has not had: {versions} (`switchboard migrate`)"
                )
            }
            Self::Role(role) => write!(
                f,
                "it logs in to Postgres as a role that does not exist: `{ROLE_PREFIX}{role}` (`grants.postgres`; a migration makes it)"
            ),
            Self::Unwatched { name, digest, error } => {
                write!(
                    f,
                    "`{name}` was switched to {}, but which nodes follow is unknown: {error}",
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
            Self::Backend(error) | Self::Unwatched { error, .. } => error.source(),
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
