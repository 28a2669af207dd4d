//! `switchboard deploy`: sends release files to a running fleet. It returns when every live node runs them,
//! or names the nodes that do not.

use std::path::Path;

use bytes::Bytes;
use serde_json::json;

use super::client::{Client, Where};
use super::{Failure, Output, page, registry, sign};
use switchboard_core::config::Config;
use switchboard_releases::repository::Action;
use switchboard_releases::signature::Signature;
use switchboard_releases::{NodeOutcome, Outcome, State};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Release files of `switchboard build`, with their signatures FILE.sig. Or `oci://host/repository:tag`
    /// and `…@sha256:…`, which are fetched from that registry.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// The percentage of users that get it, always the same users: `10%`. It is withdrawn automatically when
    /// it has more errors or is slower than the running release. `promote` gives it to everybody, `rollback`
    /// removes it.
    #[arg(long, value_name = "PERCENT", value_parser = percent::<99>, conflicts_with = "shadow")]
    canary: Option<u8>,
    /// Users who get it, beside the percentage or without one: `--canary-users ana,bo`. It is a canary too.
    #[arg(long, value_name = "USER", value_delimiter = ',', conflicts_with = "shadow")]
    canary_users: Vec<String>,
    /// Users whose token has this value in its claim `roles` or `groups` get it too. May be given once for
    /// each claim.
    #[arg(long, value_name = "CLAIM=VALUE", value_parser = group, conflicts_with = "shadow")]
    canary_group: Vec<(&'static str, String)>,
    /// Clients that send the header `x-switchboard-tester` with this value get it too. The value has 8 to 64
    /// characters that nobody can guess; the fleet does not keep it.
    #[arg(long, value_name = "VALUE", conflicts_with = "shadow")]
    canary_tester: Option<String>,
    /// The percentage of calls that it gets a copy of. No user gets its answers; `releases HANDLER` shows the
    /// differences.
    #[arg(long, value_name = "PERCENT", value_parser = percent::<100>)]
    shadow: Option<u8>,
    /// The reason, for the history.
    #[arg(long)]
    note: Option<String>,
    #[command(flatten)]
    at: Where,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let client = Client::of(config, &args.at);
    let (mut documents, mut lines, mut all_well) = (Vec::new(), Vec::new(), true);
    for file in &args.files {
        out.progress(format_args!("deploying {file} to {}", client.address()));
        let deployed = async {
            let (bytes, signatures) = read(file, config).await?;
            deploy(&client, bytes, &signatures, args.beside(), args.note.as_deref()).await
        };
        // A refused file does not stop the others; its running release continues.
        match deployed.await {
            Ok(outcome) => {
                all_well &= outcome.complete;
                lines.push(sentence(&outcome));
                documents.push(json!(outcome));
            }
            Err(failure) => {
                all_well = false;
                lines.push(format!("{file} was not deployed: {failure}"));
                documents.push(json!({ "file": file, "error": failure.to_string() }));
            }
        }
    }
    out.answer(&json!({ "deployed": documents }), lines.join("\n"));
    if all_well { Ok(()) } else { Err(Failure::Answered) }
}

impl Args {
    /// The parameters of a canary or a shadow, and none for a deploy for everybody.
    fn beside(&self) -> Vec<String> {
        let parameter = |name: &str, value: &str| format!("{name}={}", page::escape(value));
        let percent = |name, percent: u8| parameter(name, &percent.to_string());
        let users = self.canary_users.iter().map(|user| parameter("canary_user", user));
        let groups = self.canary_group.iter().map(|(name, value)| parameter(name, value));
        let tester = self.canary_tester.iter().map(|value| parameter("canary_tester", value));
        let canary = self.canary.map(|share| percent("canary", share));
        let shadow = self.shadow.map(|share| percent("shadow", share));
        canary.into_iter().chain(users).chain(groups).chain(tester).chain(shadow).collect()
    }
}

/// `10%` or `10`.
fn percent<const MOST: u8>(text: &str) -> Result<u8, String> {
    let percent = text.strip_suffix('%').unwrap_or(text).parse().ok();
    let percent = percent.filter(|percent| (1..=MOST).contains(percent));
    percent.ok_or_else(|| format!("it is 1% to {MOST}%"))
}

/// `roles=beta` or `groups=staff`, as the parameter and its value.
fn group(text: &str) -> Result<(&'static str, String), String> {
    match text.split_once('=') {
        Some(("roles", role)) => Ok(("canary_role", role.to_owned())),
        Some(("groups", group)) => Ok(("canary_group", group.to_owned())),
        _ => Err("it is roles=VALUE or groups=VALUE: a node keeps no other claim".to_owned()),
    }
}

/// A release and its signatures.
async fn read(file: &str, config: &Config) -> Result<(Vec<u8>, Vec<Signature>), Failure> {
    if registry::is_named_by(file) {
        let pulled = registry::pull(file, config).await?;
        return Ok((pulled.file, pulled.signatures));
    }
    let bytes =
        std::fs::read(file).map_err(|error| Failure::failed(format!("cannot read {file}: {error}")))?;
    Ok((bytes, sign::beside(Path::new(file))?))
}

pub(crate) async fn deploy(
    client: &Client,
    file: Vec<u8>,
    signatures: &[Signature],
    beside: Vec<String>,
    note: Option<&str>,
) -> Result<Outcome, Failure> {
    let note = note.map(|note| format!("note={}", page::escape(note)));
    let query: Vec<_> = beside.into_iter().chain(note).collect();
    client.upload(&format!("/admin/v1/releases?{}", query.join("&")), Bytes::from(file), signatures).await
}

/// One line for the fleet, and one for each node that did not follow.
pub(crate) fn sentence(outcome: &Outcome) -> String {
    let nodes = followers(&outcome.nodes);
    let (name, release, took) = (&outcome.name, outcome.digest.short(), page::duration(outcome.took_ms));
    let previous = outcome.previous.map_or_else(|| "nothing".to_owned(), |digest| digest.short());
    let percent = outcome.percent.unwrap_or_default();
    let first = match (outcome.action, outcome.previous) {
        (Action::Retire, _) if outcome.unchanged => {
            format!("{name} is retired on {nodes}, as before ({took})")
        }
        (Action::Retire, _) => format!("{name} is retired on {nodes}, it ran {release} ({took})"),
        _ if outcome.unchanged => format!("{name} runs {release} on {nodes}, as before ({took})"),
        (Action::Canary, _) if percent == 0 => {
            format!("{name} gives the selected callers {release} on {nodes}, all others {previous} ({took})")
        }
        (Action::Canary, _) => format!(
            "{name} gives {percent} % of its users {release} on {nodes}, the others {previous} ({took})"
        ),
        (Action::Shadow, _) => format!(
            "{name} shows {percent} % of its calls to {release} on {nodes}, {previous} answers them ({took})"
        ),
        (Action::Withdraw, _) => {
            format!("{name} runs {release} for everybody on {nodes}, its canary {previous} is gone ({took})")
        }
        (Action::Unshadow, _) => format!("{name} shows nothing to {previous} on {nodes} any more ({took})"),
        (_, Some(_)) => format!("{name} runs {release} on {nodes}, instead of {previous} ({took})"),
        (_, None) => format!("{name} runs {release} on {nodes}, for the first time ({took})"),
    };
    let others = outcome.nodes.iter().filter(|node| !node.is_live()).map(behind);
    std::iter::once(first).chain(others).collect::<Vec<_>>().join("\n")
}

/// The number of nodes that follow: `3 nodes`, or `2 of 3 nodes`.
pub(crate) fn followers(nodes: &[NodeOutcome]) -> String {
    let (live, all) = (nodes.iter().filter(|node| node.is_live()).count(), nodes.len());
    if live == all {
        page::count(all as u64, "node")
    } else {
        format!("{live} of {}", page::count(all as u64, "node"))
    }
}

pub(crate) fn behind(node: &NodeOutcome) -> String {
    let kept = node.kept.map_or_else(|| "runs none".to_owned(), |digest| format!("kept {}", digest.short()));
    match (node.state, &node.error) {
        (State::Silent, _) => format!("  {} has not answered", node.address),
        (_, Some(error)) => format!("  {} {kept}: {error}", node.address),
        (_, None) => format!("  {} {kept}", node.address),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use switchboard_core::ids::Digest;

    #[test]
    fn a_share_is_a_percentage() {
        assert_eq!((percent::<99>("10%"), percent::<99>("1")), (Ok(10), Ok(1)));
        for wrong in ["0", "100%", "-1", "ten", "", "10%%"] {
            percent::<99>(wrong).unwrap_err();
        }
        assert_eq!(percent::<100>("100%"), Ok(100));
    }

    #[test]
    fn a_group_is_of_a_claim_that_nodes_keep() {
        assert_eq!(group("roles=beta"), Ok(("canary_role", "beta".to_owned())));
        assert_eq!(group("groups=cn=staff"), Ok(("canary_group", "cn=staff".to_owned())));
        for wrong in ["beta", "scope=beta", ""] {
            group(wrong).unwrap_err();
        }
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
        let digest = Digest::of(b"x");
        let mut outcome = Outcome {
            name: "echo".into(),
            action: Action::Deploy,
            digest,
            percent: None,
            generation: 2,
            previous: None,
            unchanged: false,
            complete: true,
            nodes: vec![node(State::Live, None)],
            took_ms: 45,
        };
        let short = digest.short();
        assert_eq!(sentence(&outcome), format!("echo runs {short} on 1 node, for the first time (45 ms)"));
        let mut canary = outcome.clone();
        (canary.action, canary.percent, canary.previous) = (Action::Canary, Some(10), Some(digest));
        assert_eq!(
            sentence(&canary),
            format!("echo gives 10 % of its users {short} on 1 node, the others {short} (45 ms)")
        );
        let mut retired = outcome.clone();
        retired.action = Action::Retire;
        assert_eq!(sentence(&retired), format!("echo is retired on 1 node, it ran {short} (45 ms)"));
        outcome.previous = Some(digest);
        outcome.complete = false;
        outcome.nodes.extend([node(State::Kept, Some("it does not fit")), node(State::Silent, None)]);
        assert_eq!(
            sentence(&outcome),
            format!(
                "echo runs {short} on 1 of 3 nodes, instead of {short} (45 ms)\n  10.0.0.1:9090 runs none: it does \
                 not fit\n  10.0.0.1:9090 has not answered"
            )
        );
    }
}
