//! The error of this crate, and the problem for the operator.

use super::registry::Conflict;
use super::repository::{RepositoryError, Running, SkipReason};
use super::sealing::SealedError;
use super::settings::SettingError;
use switchboard_contract::types::Problem;
use switchboard_core::ids::Digest;
use switchboard_core::manifest::ROLE_PREFIX;
use switchboard_core::{Blame, Blamed, limits};
use switchboard_protocol::wire::problem::Code;
use switchboard_runtime as runtime;

/// Why a change of releases was refused. The running releases keep running.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file breaks a rule of releases, or this node cannot load it.
    #[error("{0}")]
    Release(runtime::Error),
    /// No key that the fleet trusts has signed the release.
    #[error("release {} is not signed by a key that this fleet trusts", .0.short())]
    Unsigned(Digest),
    /// The release binds what another handler binds.
    #[error("{0}")]
    Conflict(Conflict),
    /// A file of `handlers_dir` that is not to be deployed now.
    #[error("{0}")]
    Skipped(SkipReason),
    /// Another caller switched the handler meanwhile.
    #[error("{}", lost(.to.as_deref()))]
    Lost { to: Option<Box<Running>> },
    #[error("no handler `{0}` runs in this fleet")]
    UnknownHandler(String),
    #[error("no stored release of the handler begins with {0}")]
    UnknownRelease(String),
    /// The text is not the beginning of a digest.
    #[error("`{0}` does not name a release: give {min} to 64 hex digits of its digest", min = limits::DIGEST_PREFIX_MIN)]
    NoDigest(String),
    #[error("several releases begin with {0}: give more digits")]
    Ambiguous(String),
    #[error("no release ran before this one: name the release to roll back to")]
    NothingBefore,
    /// A canary or a shadow needs a running release, and none runs.
    #[error(
        "`{0}` has no running release, which a canary or a shadow needs: deploy this release for everybody"
    )]
    NothingRuns(String),
    #[error("`{0}` already runs this release for everybody")]
    RunsAlready(String),
    #[error("`{0}` has no canary")]
    NoCanary(String),
    #[error("`{0}` has no shadow")]
    NoShadow(String),
    /// The canary is a different release from the one that the caller named.
    #[error("the canary is {}, not the release that was named", .0.short())]
    OtherCanary(Digest),
    /// The release needs migrations that this database lacks.
    #[error(
        "the release needs migrations that this database lacks: {} (run `switchboard migrate`)",
        .0.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
    )]
    Migrations(Vec<i64>),
    /// The role of the Postgres grant does not exist.
    #[error(
        "the Postgres role `{ROLE_PREFIX}{0}` of `grants.postgres` does not exist: a migration must create it"
    )]
    Role(String),
    /// A setting breaks a rule.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The settings have changed since the operator looked at them.
    #[error(
        "another change of the settings came first (generation {last}, not {seen}): look at them and try again"
    )]
    SettingsLost { seen: i64, last: i64 },
    #[error(
        "no stored change of the settings of `{name}` has the generation {generation}: \
         `switchboard config history {name}` lists the changes"
    )]
    NoSettingsChange { name: String, generation: i64 },
    #[error("the settings of `{0}` were never changed, so there is nothing to roll back")]
    SettingsNeverChanged(String),
    /// The manifest grants secrets that no operator has set.
    #[error(
        "`grants.secrets` names {names}, which {verb} not set: {commands}",
        names = .0.join(", "),
        verb = if .0.len() == 1 { "is" } else { "are" },
        commands = .0.iter().map(|name| format!("switchboard secret set {name}")).collect::<Vec<_>>().join("; ")
    )]
    SecretsMissing(Vec<String>),
    #[error(
        "`{0}` is not a name of a secret: give at most {max} capital letters, digits and underscores, beginning with a \
         letter",
        max = limits::SECRET_NAME_BYTES_MAX
    )]
    SecretName(String),
    /// The size of the value.
    #[error(
        "the value has {0} bytes, and a secret has {min} to {max}: the host could not keep a shorter one out of log \
         lines and recordings",
        min = limits::SECRET_BYTES_MIN,
        max = limits::SECRET_BYTES_MAX
    )]
    SecretSize(usize),
    #[error(
        "the secrets that a release of {handler} is granted would have {bytes} bytes together, and the maximum is {max}: \
         grant fewer names, or set shorter values",
        max = limits::SECRETS_BYTES_MAX
    )]
    SecretsTooLarge { handler: String, bytes: i64 },
    #[error("the fleet has {max} secrets, its maximum: remove one that no release needs", max = limits::SECRETS_MAX)]
    TooManySecrets,
    #[error("no secret {0} is set")]
    UnknownSecret(String),
    #[error(
        "{name} is granted to a release of {handlers} that runs: deploy a release without it, or use --force",
        handlers = .used_by.join(", ")
    )]
    SecretInUse { name: String, used_by: Vec<String> },
    /// A secret does not open on this node.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// The node would seal with a key that the others may not have.
    #[error(
        "this node has another `secret` than the last `switchboard migrate`, so the other nodes could not open the value: \
         ask another node, or correct `secret` of this one"
    )]
    OtherFleetKey,
    /// `switchboard migrate` cannot open secrets that were sealed under another `secret`.
    #[error(
        "no secret was sealed again, because these do not open: {names}. Set `secret` and `secret_previous` to the \
         values of the nodes and run `migrate` again. With `migrate --leave-secrets` they stay as they are; set each \
         again afterwards (`switchboard secret set NAME`)",
        names = .0.iter().map(SealedError::listed).collect::<Vec<_>>().join(", ")
    )]
    SecretsUnopened(Vec<SealedError>),
    /// The fleet has switched, but Postgres failed while the node waited for the others.
    #[error("the secret {name} has changed, but it is unknown which nodes follow: {error}")]
    SecretNodesUnknown {
        name: String,
        #[source]
        error: RepositoryError,
    },
    /// The settings have changed, but Postgres failed while the node waited for the others.
    #[error(
        "the settings of `{name}` have changed (generation {generation}), but it is unknown which nodes follow: {error}"
    )]
    SettingsNodesUnknown {
        name: String,
        generation: i64,
        #[source]
        error: RepositoryError,
    },
    /// The fleet has switched, but Postgres failed while the node waited for the others.
    #[error("the fleet switched `{name}` to {}, but it is unknown which nodes follow: {error}", .digest.short())]
    NodesUnknown {
        name: String,
        digest: Digest,
        #[source]
        error: RepositoryError,
    },
    #[error(transparent)]
    Backend(#[from] RepositoryError),
    /// This node failed.
    #[error("{0}")]
    Host(String),
}

fn lost(to: Option<&Running>) -> String {
    match to {
        Some(to) => {
            format!(
                "another caller switched `{}` to {} meanwhile: check it and try again",
                to.name,
                to.digest.short()
            )
        }
        None => "another caller switched the handler meanwhile: check it and try again".to_owned(),
    }
}

impl Blamed for Error {
    fn blame(&self) -> Blame {
        match self {
            Self::Release(error) => error.blame(),
            Self::Backend(error)
            | Self::NodesUnknown { error, .. }
            | Self::SettingsNodesUnknown { error, .. }
            | Self::SecretNodesUnknown { error, .. } => error.blame(),
            Self::Host(_) => Blame::Host,
            _ => Blame::Operator,
        }
    }
}

impl Error {
    /// The problem for the operator.
    pub fn problem(&self) -> Problem {
        let detail = self.to_string();
        match self {
            Self::Unsigned(_) | Self::NoDigest(_) | Self::Ambiguous(_) => {
                Code::Invalid.problem(detail).field("release")
            }
            Self::Setting(SettingError::Unknown { .. } | SettingError::Invalid(_)) => {
                Code::Invalid.problem(detail).field("set")
            }
            Self::SecretName(_) => Code::Invalid.problem(detail).field("name"),
            Self::SecretSize(_) => Code::Invalid.problem(detail).field("value"),
            Self::UnknownHandler(_)
            | Self::UnknownRelease(_)
            | Self::NoSettingsChange { .. }
            | Self::UnknownSecret(_) => Code::NotFound.problem(detail),
            Self::Backend(_)
            | Self::NodesUnknown { .. }
            | Self::SettingsNodesUnknown { .. }
            | Self::SecretNodesUnknown { .. } => Code::Unavailable.problem(detail),
            _ => match self.blame() {
                Blame::Guest => Code::Invalid.problem(detail).field("release"),
                Blame::Host | Blame::Backend => Code::Internal.problem(detail),
                Blame::Operator | Blame::Client => Code::Conflict.problem(detail),
            },
        }
    }
}

impl From<runtime::Error> for Error {
    fn from(error: runtime::Error) -> Self {
        Self::Release(error)
    }
}

impl From<Conflict> for Error {
    fn from(conflict: Conflict) -> Self {
        Self::Conflict(conflict)
    }
}
