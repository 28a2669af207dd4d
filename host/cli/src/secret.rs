//! `switchboard secret`: the secrets of the fleet, which handlers read if their manifest grants it. A value
//! comes from standard input, because other users of the machine can read a command line. No command prints
//! one.

use std::io::{self, IsTerminal, Read};

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Client, Where};
use super::{Failure, Output, deploy, page};
use switchboard_core::config::Config;
use switchboard_core::limits;
use switchboard_core::manifest::is_secret_name;
use switchboard_releases::repository::{MissingSecret, SecretRecord};
use switchboard_releases::{Error, SecretOutcome};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set a secret, or replace its value. The value is standard input, byte for byte: `printf %s "$TOKEN" |
    /// switchboard secret set TOKEN`.
    Set {
        /// Capital letters, digits and underscores.
        name: String,
        #[command(flatten)]
        at: Where,
    },
    /// List the secrets, without their values.
    List {
        #[command(flatten)]
        at: Where,
    },
    /// Remove a secret.
    Remove {
        /// As `secret list` shows it.
        name: String,
        /// Also if a running release is granted it. Its calls then do not find the secret.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        at: Where,
    },
}

/// The secrets of the fleet.
#[derive(Deserialize, Serialize)]
pub(crate) struct Secrets {
    /// Those that are set.
    pub secrets: Vec<SecretRecord>,
    /// Those that releases are granted which run, and that are not set.
    #[serde(default)]
    pub missing: Vec<MissingSecret>,
}

impl Secrets {
    pub(crate) async fn ask(client: &Client) -> Result<Self, Failure> {
        client.get("/admin/v1/secrets").await
    }

    fn text(&self) -> String {
        let missing = missing(&self.missing);
        [table(&self.secrets)].into_iter().chain(missing).collect::<Vec<_>>().join("\n")
    }
}

/// One line for each secret that is not set: which handlers lack it, and what to do.
pub(crate) fn missing(missing: &[MissingSecret]) -> impl Iterator<Item = String> {
    missing.iter().map(|MissingSecret { name, used_by }| {
        format!(
            "{name} is not set, and a release of {} that runs is granted it: switchboard secret set {name}",
            used_by.join(", ")
        )
    })
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let outcome: SecretOutcome = match args.command {
        Command::List { at } => {
            let secrets = Secrets::ask(&Client::of(config, &at)).await?;
            out.answer(&secrets, secrets.text());
            return Ok(());
        }
        Command::Set { name, at } => {
            let path = path(&name)?;
            let value = value_of_stdin(out)?;
            Client::of(config, &at).post_bytes(&path, value.into()).await?
        }
        Command::Remove { name, force, at } => {
            let path = format!("{}/remove", path(&name)?);
            Client::of(config, &at).post(&path, &json!({ "force": force })).await?
        }
    };
    out.answer(&outcome, sentence(&outcome));
    if outcome.complete { Ok(()) } else { Err(Failure::Answered) }
}

/// The path of a secret. A name that is none may be a value (`secret set TOKEN=…`). It is not sent, because
/// the node would write it into its audit.
fn path(name: &str) -> Result<String, Error> {
    if is_secret_name(name) {
        Ok(format!("/admin/v1/secrets/{name}"))
    } else {
        Err(Error::SecretName(name.to_owned()))
    }
}

/// Reads the value of a secret or of a setting from standard input, up to a byte more than it may have: the
/// node then names the rule.
pub(crate) fn value_of_stdin(out: &Output) -> Result<Vec<u8>, Failure> {
    let stdin = io::stdin().lock();
    let is_terminal = stdin.is_terminal();
    if is_terminal {
        out.progress("type the value, then Enter and Ctrl-D; the terminal shows it");
    }
    let mut value = Vec::new();
    stdin
        .take(limits::SECRET_BYTES_MAX.max(limits::SETTING_BYTES_MAX) as u64 + 1)
        .read_to_end(&mut value)
        .map_err(|error| Failure::failed(format!("cannot read the value from standard input: {error}")))?;
    if is_terminal && value.ends_with(b"\n") {
        value.pop();
    } else if value.ends_with(b"\n") {
        out.progress("note: the value ends with a line break; `printf %s` writes none");
    }
    Ok(value)
}

fn table(secrets: &[SecretRecord]) -> String {
    if secrets.is_empty() {
        return "no secrets".to_owned();
    }
    let head = ["NAME", "BYTES", "VERSION", "SET BY", "AT", "USED BY"].map(str::to_owned).to_vec();
    let rows = secrets.iter().map(|secret| {
        let SecretRecord { name, bytes, version, by, at, used_by } = secret;
        let (bytes, version) = (bytes.to_string(), version.to_string());
        vec![name.clone(), bytes, version, by.clone(), at.clone(), used_by.join(", ")]
    });
    page::table(&[head].into_iter().chain(rows).collect::<Vec<_>>())
}

/// One line for the fleet, and one for each node that did not follow.
fn sentence(outcome: &SecretOutcome) -> String {
    let SecretOutcome { name, version, bytes, used_by, nodes, took_ms, .. } = outcome;
    let took = page::duration(*took_ms);
    let what = match (version, bytes) {
        (Some(version), Some(bytes)) => {
            format!("{name} is set ({}, version {version})", page::count(*bytes, "byte"))
        }
        _ => format!("{name} is removed"),
    };
    if used_by.is_empty() {
        return format!("{what}; no running release is granted it ({took})");
    }
    let on = deploy::followers(nodes);
    let first = format!("{what} on {on}; used by {} ({took})", used_by.join(", "));
    let others = nodes.iter().filter(|node| !node.is_live()).map(deploy::behind);
    std::iter::once(first).chain(others).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use switchboard_releases::{NodeOutcome, State};

    #[test]
    fn a_name_that_may_be_a_value_is_not_sent() {
        assert_eq!(path("TOKEN_2").unwrap(), "/admin/v1/secrets/TOKEN_2");
        for name in ["TOKEN=abc", "", "token", "TOKEN/remove"] {
            assert!(matches!(path(name), Err(Error::SecretName(_))), "{name}");
        }
    }

    #[test]
    fn a_list_names_what_is_not_set() {
        let missing =
            vec![MissingSecret { name: "KEY".into(), used_by: vec!["directory".into(), "push".into()] }];
        let list = Secrets { secrets: Vec::new(), missing };
        assert_eq!(
            list.text(),
            "no secrets\nKEY is not set, and a release of directory, push that runs is granted it: switchboard secret \
             set KEY"
        );
    }

    #[test]
    fn an_outcome_reads_as_a_sentence_and_names_who_is_behind() {
        let node = |state, error: Option<&str>| NodeOutcome {
            node: Uuid::nil(),
            address: "10.0.0.1:9090".into(),
            state,
            kept: None,
            error: error.map(str::to_owned),
        };
        let mut outcome = SecretOutcome {
            name: "TOKEN".into(),
            version: Some(3),
            bytes: Some(32),
            generation: 7,
            used_by: vec!["directory".into()],
            complete: true,
            nodes: vec![node(State::Live, None)],
            took_ms: 41,
        };
        assert_eq!(
            sentence(&outcome),
            "TOKEN is set (32 bytes, version 3) on 1 node; used by directory (41 ms)"
        );
        outcome.nodes.push(node(State::Kept, Some("it does not open")));
        outcome.complete = false;
        let text = sentence(&outcome);
        assert!(text.contains("on 1 of 2 nodes; used by directory"), "{text}");
        assert!(text.ends_with("10.0.0.1:9090 runs none: it does not open"), "{text}");
        outcome.used_by.clear();
        (outcome.version, outcome.bytes) = (None, None);
        assert_eq!(sentence(&outcome), "TOKEN is removed; no running release is granted it (41 ms)");
    }
}
