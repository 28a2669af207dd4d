//! `switchboard status`: shows the fleet on one page. Exit code 1 if something is wrong.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Client, Where};
use super::secret::{self, Secrets};
use super::{Failure, Output, page, releases};
use switchboard_core::config::Config;
use switchboard_postgres::outbox::Lag;
use switchboard_releases::repository::{MissingSecret, Node, ReleaseRecord};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    at: Where,
}

#[derive(Deserialize)]
struct Nodes {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Releases {
    releases: Vec<ReleaseRecord>,
}

#[derive(Deserialize)]
struct Consumers {
    consumers: Vec<Lag>,
}

#[derive(Serialize, Deserialize)]
struct Readiness {
    ready: bool,
    checks: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Status {
    /// The readiness of the asked node.
    readiness: Readiness,
    #[serde(flatten)]
    fleet: Option<Fleet>,
    /// The reason if the state of the fleet is not known: Postgres is unavailable, for instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Fleet {
    nodes: Vec<Node>,
    /// The releases that the fleet should run.
    releases: Vec<ReleaseRecord>,
    consumers: Vec<Lag>,
    /// The secrets that these releases are granted, and that are not set.
    missing_secrets: Vec<MissingSecret>,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let client = Client::of(config, &args.at);
    // A node that is not ready answers too.
    let ready = client.ask(Method::GET, "/readyz", "", Bytes::new()).await?;
    let readiness = serde_json::from_slice(&ready.body).map_err(|error| {
        Failure::failed(format!("{} is not an admin listener: {error}", client.address()))
    })?;
    let (fleet, error) = match Fleet::ask(&client).await {
        Ok(fleet) => (Some(fleet), None),
        Err(failure) => (None, Some(failure.to_string())),
    };
    let status = Status { readiness, fleet, error };
    let text = status.text(&client);
    out.answer(&json!(status), text);
    if status.is_well() { Ok(()) } else { Err(Failure::Answered) }
}

impl Status {
    fn is_well(&self) -> bool {
        self.readiness.ready && self.fleet.as_ref().is_some_and(Fleet::is_well)
    }

    fn text(&self, client: &Client) -> String {
        let mut lines = self.fleet.as_ref().map_or_else(Vec::new, Fleet::lines);
        lines.extend(self.error.iter().map(|error| format!("the fleet is not known: {error}")));
        let verdict = if self.readiness.ready { "ready" } else { "not ready" };
        lines.push(format!("\n{} is {verdict}", client.address()));
        let checks = self.readiness.checks.iter().filter(|(_, answer)| *answer != "ok");
        lines.extend(checks.map(|(name, answer)| format!("  {name}: {answer}")));
        lines.join("\n")
    }
}

impl Fleet {
    async fn ask(client: &Client) -> Result<Self, Failure> {
        let Nodes { nodes } = client.get("/admin/v1/nodes").await?;
        let Releases { mut releases } = client.get("/admin/v1/releases?current=true").await?;
        let Consumers { consumers } = client.get("/admin/v1/consumers").await?;
        let Secrets { missing: missing_secrets, .. } = Secrets::ask(client).await?;
        releases.sort_by(|a, b| (&a.name, !a.current).cmp(&(&b.name, !b.current)));
        Ok(Self { nodes, releases, consumers, missing_secrets })
    }

    /// A node that ends in order removes itself from the list, so a silent one has died or is cut off. Parked
    /// events do not count as a problem. A missing secret does: calls that need it fail.
    fn is_well(&self) -> bool {
        self.nodes.iter().all(|node| node.live)
            && self.behind().next().is_none()
            && self.missing_secrets.is_empty()
    }

    /// Live nodes that do not run the fleet's releases, or not with the present settings and secrets.
    fn behind(&self) -> impl Iterator<Item = String> {
        let live = self.nodes.iter().filter(|node| node.live);
        live.flat_map(|node| {
            self.releases.iter().filter(|release| release.current).filter_map(|release| {
                let here = node.handlers.iter().find(|handler| handler.name == release.name);
                let runs = here.and_then(|handler| handler.digest);
                if runs == Some(release.digest) {
                    let why = here.and_then(|handler| handler.error.as_deref())?;
                    return Some(format!("  {} runs {}, but: {why}", node.address, release.name));
                }
                let runs = runs.map_or_else(|| "no release".to_owned(), |digest| digest.short());
                let why = here.and_then(|handler| handler.error.as_deref()).unwrap_or("not there yet");
                Some(format!("  {} runs {runs} of {}: {why}", node.address, release.name))
            })
        })
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let live: Vec<&Node> = self.nodes.iter().filter(|node| node.live).collect();
        let connections: i64 = live.iter().map(|node| node.connections).sum();
        let connections = page::count(connections.unsigned_abs(), "connection");
        lines.push(format!("{}, {connections}", page::count(live.len() as u64, "node")));
        let rows: Vec<_> = self.nodes.iter().map(node_row).collect();
        lines.push(page::table(&rows));

        let handlers = self.releases.iter().filter(|release| release.current).count();
        lines.push(format!("\n{}", page::count(handlers as u64, "handler")));
        let rows: Vec<_> = self
            .releases
            .iter()
            .map(|release| {
                vec![
                    format!("  {}", release.name),
                    release.digest.short(),
                    releases::beside(release),
                    page::time(&release.at),
                    release.by.clone(),
                    release.note.clone().unwrap_or_default(),
                ]
            })
            .collect();
        lines.push(page::table(&rows));
        lines.extend(self.behind());
        lines.extend(secret::missing(&self.missing_secrets).map(|line| format!("  {line}")));

        if !self.consumers.is_empty() {
            lines.push("\noutbox".to_owned());
            let rows: Vec<_> = self.consumers.iter().map(consumer_row).collect();
            lines.push(page::table(&rows));
        }
        lines
    }
}

fn node_row(node: &Node) -> Vec<String> {
    let age_ms = u64::try_from(node.heartbeat_age_ms).unwrap_or(0);
    let state = if node.live { "live".to_owned() } else { format!("silent for {}", page::duration(age_ms)) };
    vec![
        format!("  {}", node.address),
        state,
        page::count(node.connections.unsigned_abs(), "connection"),
        page::count(node.handlers.len() as u64, "handler"),
        format!("since {}", page::time(&node.started_at)),
        node.version.clone(),
    ]
}

fn consumer_row(consumer: &Lag) -> Vec<String> {
    let some = |number: i64, what: &str| match number {
        0 => String::new(),
        many => format!("{} {what}", page::thousands(many.unsigned_abs())),
    };
    let behind = some(consumer.behind, "behind");
    if consumer.retired {
        let state = if behind.is_empty() { "retired".to_owned() } else { format!("retired, {behind}") };
        let (retries, failed) = (some(consumer.retries, "to try again"), some(consumer.failed, "failed"));
        return vec![
            format!("  {}", consumer.consumer),
            state,
            some(consumer.missed, "missed"),
            retries,
            failed,
        ];
    }
    vec![
        format!("  {}", consumer.consumer),
        if behind.is_empty() { "up to date".to_owned() } else { behind },
        some(consumer.retries, "to try again"),
        some(consumer.failed, "failed"),
    ]
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use switchboard_core::ids::Digest;
    use switchboard_releases::repository::NodeHandler;

    #[test]
    fn a_node_with_former_settings_is_a_problem() {
        let digest = Digest::of(b"a release");
        let release = ReleaseRecord {
            name: "push".into(),
            digest,
            bytes: 7,
            by: "ana".into(),
            note: None,
            at: "2026-11-20T12:00:00.000Z".into(),
            current: true,
            canary_percent: None,
            canary_selection: None,
            shadow_percent: None,
        };
        let node = Node {
            id: Uuid::nil(),
            address: "10.0.0.1:9090".into(),
            version: "1.0.0".into(),
            started_at: "2026-11-20T12:00:00.000Z".into(),
            heartbeat_age_ms: 10,
            connections: 3,
            live: true,
            handlers: vec![NodeHandler {
                name: "push".into(),
                generation: 7,
                digest: Some(digest),
                error: Some("the secret KEY does not open".into()),
                overrides: Vec::new(),
            }],
        };
        let mut fleet = Fleet {
            nodes: vec![node],
            releases: vec![release],
            consumers: Vec::new(),
            missing_secrets: Vec::new(),
        };
        let behind: Vec<String> = fleet.behind().collect();
        assert_eq!(behind, ["  10.0.0.1:9090 runs push, but: the secret KEY does not open"]);
        assert!(!fleet.is_well());
        fleet.nodes[0].handlers[0].error = None;
        assert!(fleet.is_well());
    }

    #[test]
    fn a_secret_that_is_not_set_is_a_problem() {
        let mut fleet = Fleet {
            nodes: Vec::new(),
            releases: Vec::new(),
            consumers: Vec::new(),
            missing_secrets: vec![MissingSecret { name: "KEY".into(), used_by: vec!["push".into()] }],
        };
        let lines = fleet.lines();
        assert!(
            lines.iter().any(|line| line.starts_with("  KEY is not set, and a release of push")),
            "{lines:?}"
        );
        assert!(!fleet.is_well());
        fleet.missing_secrets.clear();
        assert!(fleet.is_well());
    }
}
