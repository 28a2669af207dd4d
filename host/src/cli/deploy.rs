//! `switchboard deploy`: release files to a running fleet. Returns when every live node runs them, or names those that do not.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::json;

use super::client::{Client, Where};
use super::{Failure, Output, page};
use crate::config::Config;
use crate::releases::{NodeOutcome, Outcome, State};

#[derive(clap::Args)]
pub struct Args {
    /// Release files, as `switchboard build` makes them.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Kept in the history, for whoever wonders later.
    #[arg(long)]
    note: Option<String>,
    #[command(flatten)]
    at: Where,
}

pub async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let client = Client::of(config, &args.at);
    let (mut documents, mut lines, mut all_well) = (Vec::new(), Vec::new(), true);
    for file in &args.files {
        out.progress(format_args!("deploying {} to {}", file.display(), client.address()));
        // One that is refused does not keep the others back; what runs instead goes on.
        match deploy(&client, file, args.note.as_deref()).await {
            Ok(outcome) => {
                all_well &= outcome.complete;
                lines.push(said(&outcome));
                documents.push(json!(outcome));
            }
            Err(failure) => {
                all_well = false;
                lines.push(format!("{} was not deployed: {failure}", file.display()));
                documents.push(json!({ "file": file, "error": failure.to_string() }));
            }
        }
    }
    out.answer(&json!({ "deployed": documents }), lines.join("\n"));
    if all_well { Ok(()) } else { Err(Failure::Answered) }
}

pub async fn deploy(client: &Client, file: &Path, note: Option<&str>) -> Result<Outcome, Failure> {
    let bytes = std::fs::read(file)
        .map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))?;
    let query = note.map(|note| format!("?note={}", page::escape(note))).unwrap_or_default();
    client.upload(&format!("/admin/v1/releases{query}"), Bytes::from(bytes)).await
}

/// One line for the fleet, and one for each node that could not follow.
pub fn said(outcome: &Outcome) -> String {
    let live = outcome.nodes.iter().filter(|node| node.is_live()).count();
    let nodes = if outcome.complete {
        page::count(live as u64, "node")
    } else {
        format!("{live} of {}", page::count(outcome.nodes.len() as u64, "node"))
    };
    let change = match (&outcome.previous, outcome.unchanged) {
        (_, true) => "as before".to_owned(),
        (Some(previous), _) => format!("instead of {}", previous.short()),
        (None, _) => "for the first time".to_owned(),
    };
    let took = page::duration(outcome.took_ms);
    let first = format!("{} runs {} on {nodes}, {change} ({took})", outcome.name, outcome.digest.short());
    let others = outcome.nodes.iter().filter(|node| !node.is_live()).map(behind);
    std::iter::once(first).chain(others).collect::<Vec<_>>().join("\n")
}

fn behind(node: &NodeOutcome) -> String {
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
    use crate::ids::Digest;

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
            digest,
            generation: 2,
            previous: None,
            unchanged: false,
            complete: true,
            nodes: vec![node(State::Live, None)],
            took_ms: 45,
        };
        let short = digest.short();
        assert_eq!(said(&outcome), format!("echo runs {short} on 1 node, for the first time (45 ms)"));
        outcome.previous = Some(digest);
        outcome.complete = false;
        outcome.nodes.extend([node(State::Kept, Some("it does not fit")), node(State::Silent, None)]);
        assert_eq!(
            said(&outcome),
            format!(
                "echo runs {short} on 1 of 3 nodes, instead of {short} (45 ms)\n  10.0.0.1:9090 runs none: it does \
                 not fit\n  10.0.0.1:9090 has not answered"
            )
        );
    }
}
