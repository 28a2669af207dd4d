//! `switchboard config`: the live settings of a handler. A change is on all nodes within a second, and needs
//! no deploy and no restart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{Client, Where};
use super::{Failure, Output, deploy, page, secret};
use switchboard_core::config::Config;
use switchboard_releases::{
    SettingSource, SettingView, SettingsChange, SettingsOutcome, SettingsView, ShownChange, State,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Set a setting. Other users of this machine can read a command line: give a value that is not public on
    /// standard input.
    Set {
        handler: String,
        key: String,
        #[arg(allow_hyphen_values = true, required_unless_present = "stdin")]
        value: Option<String>,
        /// The value is standard input, byte for byte.
        #[arg(long, conflicts_with = "value")]
        stdin: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Remove what was set: the default of the manifest counts again.
    Unset {
        handler: String,
        #[arg(required = true)]
        keys: Vec<String>,
        #[command(flatten)]
        change: Change,
    },
    /// List the settings with their values, and where each value comes from.
    List {
        handler: String,
        #[command(flatten)]
        at: Where,
    },
    /// List the changes, the newest first.
    History {
        handler: String,
        #[command(flatten)]
        at: Where,
    },
    /// Return to the values after an earlier change. By default: to those before the last change; a second
    /// rollback undoes the first.
    Rollback {
        handler: String,
        /// The generation of the change, from `config history`.
        generation: Option<i64>,
        #[command(flatten)]
        change: Change,
    },
}

#[derive(clap::Args)]
struct Change {
    /// The reason, for the history.
    #[arg(long)]
    note: Option<String>,
    /// Only if no change came after the one with this generation; 0: only if there was none.
    #[arg(long, value_name = "GENERATION")]
    seen: Option<i64>,
    #[command(flatten)]
    at: Where,
}

#[derive(Deserialize, Serialize)]
struct History {
    handler: String,
    history: Vec<SettingsChange>,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    match args.what {
        What::Set { handler, key, value, stdin: _, change } => {
            let of_stdin = || {
                String::from_utf8(secret::value_of_stdin(out)?)
                    .map_err(|_| Failure::failed("the value on standard input is not UTF-8, as a setting is"))
            };
            let value = value.map_or_else(of_stdin, Ok)?;
            let set: BTreeMap<String, String> = [(key, value)].into();
            change.ask(&handler, json!({ "set": set }), config, out).await
        }
        What::Unset { handler, keys, change } => {
            change.ask(&handler, json!({ "unset": keys }), config, out).await
        }
        What::Rollback { handler, generation, change } => {
            let to = generation.map_or_else(|| json!("previous"), Value::from);
            change.ask(&handler, json!({ "rollback": to }), config, out).await
        }
        What::List { handler, at } => {
            let view: SettingsView = Client::of(config, &at).get(&path(&handler)).await?;
            out.answer(&view, list(&view));
            Ok(())
        }
        What::History { handler, at } => {
            let path = format!("{}/history", path(&handler));
            let history: History = Client::of(config, &at).get(&path).await?;
            out.answer(&history, changes(&history.history));
            Ok(())
        }
    }
}

impl Change {
    async fn ask(
        &self,
        handler: &str,
        mut body: Value,
        config: &Config,
        out: &Output,
    ) -> Result<(), Failure> {
        body["note"] = json!(self.note);
        body["generation"] = json!(self.seen);
        let outcome: SettingsOutcome = Client::of(config, &self.at).post(&path(handler), &body).await?;
        out.answer(&outcome, sentence(&outcome));
        if outcome.complete { Ok(()) } else { Err(Failure::Answered) }
    }
}

fn path(handler: &str) -> String {
    format!("/admin/v1/handlers/{}/config", page::escape(handler))
}

/// One line for the change, and one for each node where it has no effect.
fn sentence(outcome: &SettingsOutcome) -> String {
    let SettingsOutcome { handler, generation, changes, nodes, .. } = outcome;
    let took = page::duration(outcome.took_ms);
    let place = match nodes.is_empty() {
        true => "; it does not run".to_owned(),
        false => format!(", on {}", deploy::followers(nodes)),
    };
    let first = match outcome.unchanged {
        true => format!("{handler}: nothing to change{place} ({took})"),
        false => {
            let changes: Vec<_> = changes.iter().map(changed).collect();
            format!("{handler}: {}, generation {generation}{place} ({took})", changes.join("; "))
        }
    };
    let overridden = outcome.overridden.iter().map(|overridden| {
        let (key, nodes) = (&overridden.key, page::count(overridden.nodes.len(), "node"));
        let verb = if overridden.nodes.len() == 1 { "overrides" } else { "override" };
        format!(
            "  {nodes} {verb} {key}, so that the change has no effect there: {}",
            overridden.nodes.join(", ")
        )
    });
    let behind = nodes.iter().filter(|node| !node.is_live()).map(|node| match (node.state, &node.error) {
        (State::Silent, _) => format!("  {} has not answered", node.address),
        (_, Some(error)) => format!("  {} keeps its former settings: {error}", node.address),
        (_, None) => format!("  {} runs another release", node.address),
    });
    std::iter::once(first).chain(overridden).chain(behind).collect::<Vec<_>>().join("\n")
}

/// `votes is 40, was 25 (the manifest's default)`.
fn changed(change: &ShownChange) -> String {
    let default = || match &change.default {
        Some(default) => format!("{default} (the manifest's default)"),
        None => "not set".to_owned(),
    };
    let value = |value: &Option<String>| value.clone().unwrap_or_else(default);
    format!("{} is {}, was {}", change.key, value(&change.to), value(&change.from))
}

fn list(view: &SettingsView) -> String {
    if view.settings.is_empty() {
        return format!("{} has no settings", view.handler);
    }
    let head = ["KEY", "VALUE", "FROM", "RULE"].map(str::to_owned).to_vec();
    let rows = view.settings.iter().map(|setting| {
        vec![
            setting.key.clone(),
            setting.value.clone().unwrap_or_else(|| "–".to_owned()),
            origin(setting, view.nodes),
            setting.rule.clone().unwrap_or_default(),
        ]
    });
    page::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

/// Where the value comes from, and what it hides.
fn origin(setting: &SettingView, nodes: usize) -> String {
    let on = |count: usize| format!("on {count} of {}", page::count(nodes, "node"));
    let live = setting.live.as_ref();
    let set = live.map(|live| format!("live, set by {} at {}", live.by, page::time(&live.at)));
    match (setting.from, &setting.overridden) {
        (SettingSource::Node, Some(here)) => {
            let hidden = match (live, &setting.default) {
                (Some(live), _) => format!(" overrides live {}", live.value),
                (None, Some(default)) => format!(" overrides the manifest's {default}"),
                (None, None) => String::new(),
            };
            format!("{}{hidden}, {}", here.place, on(setting.overridden_on.len()))
        }
        (from, _) => {
            let from = match from {
                SettingSource::Live => set.unwrap_or_default(),
                SettingSource::Manifest => "manifest".to_owned(),
                SettingSource::None if live.is_some() => {
                    format!("{}; no release that runs has this setting", set.unwrap_or_default())
                }
                SettingSource::None | SettingSource::Node => "not set".to_owned(),
            };
            match setting.overridden_on.len() {
                0 => from,
                count => format!("{from}; overridden {}", on(count)),
            }
        }
    }
}

fn changes(history: &[SettingsChange]) -> String {
    if history.is_empty() {
        return "no changes".to_owned();
    }
    let head = ["GENERATION", "AT", "BY", "KEY", "FROM", "TO", "NOTE"].map(str::to_owned).to_vec();
    let rows = history.iter().flat_map(|event| {
        event.changes.iter().enumerate().map(|(place, change)| {
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "–".to_owned());
            let of_event = [event.generation.to_string(), page::time(&event.at), event.by.clone()];
            let of_event = of_event.map(|cell| if place == 0 { cell } else { String::new() });
            let note = if place == 0 { event.note.clone().unwrap_or_default() } else { String::new() };
            of_event
                .into_iter()
                .chain([change.key.clone(), value(&change.from), value(&change.to), note])
                .collect()
        })
    });
    page::table(&std::iter::once(head).chain(rows).collect::<Vec<Vec<String>>>())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use switchboard_core::ids::Digest;
    use switchboard_releases::{LiveView, NodeOutcome, Overridden, OverrideView};

    fn node(address: &str, state: State, error: Option<&str>) -> NodeOutcome {
        NodeOutcome {
            node: Uuid::nil(),
            address: address.into(),
            state,
            kept: Some(Digest::of(b"x")),
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn a_change_reads_as_a_sentence_and_names_where_it_has_no_effect() {
        let change = |from: Option<&str>, to: Option<&str>| ShownChange {
            key: "votes".into(),
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            default: Some("25".into()),
        };
        let mut outcome = SettingsOutcome {
            handler: "poll".into(),
            generation: 812,
            changes: vec![change(None, Some("40"))],
            unchanged: false,
            complete: true,
            nodes: vec![node("a", State::Live, None), node("b", State::Live, None)],
            overridden: Vec::new(),
            took_ms: 38,
        };
        assert_eq!(
            sentence(&outcome),
            "poll: votes is 40, was 25 (the manifest's default), generation 812, on 2 nodes (38 ms)"
        );
        outcome.changes = vec![change(Some("40"), None)];
        outcome.nodes[1] = node("b", State::Kept, Some("votes is an integer of at most 30, not \"99\""));
        outcome.overridden = vec![Overridden { key: "votes".into(), nodes: vec!["b".into()] }];
        assert_eq!(
            sentence(&outcome),
            "poll: votes is 25 (the manifest's default), was 40, generation 812, on 1 of 2 nodes (38 ms)\n  \
             1 node overrides votes, so that the change has no effect there: b\n  \
             b keeps its former settings: votes is an integer of at most 30, not \"99\""
        );
        (outcome.unchanged, outcome.changes, outcome.overridden) = (true, Vec::new(), Vec::new());
        outcome.nodes.clear();
        assert_eq!(sentence(&outcome), "poll: nothing to change; it does not run (38 ms)");
    }

    #[test]
    fn a_list_shows_where_each_value_comes_from() {
        let setting = |key: &str, from| SettingView {
            key: key.into(),
            value: Some("1".into()),
            from,
            default: Some("1".into()),
            live: None,
            overridden: None,
            overridden_on: Vec::new(),
            rule: None,
            public: true,
            known: true,
        };
        let live = LiveView {
            value: "40".into(),
            generation: 812,
            by: "ana".into(),
            at: "2026-11-30T10:00:00.000Z".into(),
        };
        let here = OverrideView { value: "99".into(), place: "environment (SWITCHBOARD_X)".into() };
        let view = SettingsView {
            handler: "poll".into(),
            generation: 812,
            settings: vec![
                setting("lanes", SettingSource::Manifest),
                SettingView {
                    value: Some("99".into()),
                    live: Some(live.clone()),
                    overridden: Some(here),
                    overridden_on: vec!["a".into(), "b".into()],
                    rule: Some("an integer".into()),
                    ..setting("rate", SettingSource::Node)
                },
                SettingView {
                    value: Some("40".into()),
                    live: Some(live),
                    overridden_on: vec!["c".into()],
                    ..setting("votes", SettingSource::Live)
                },
                SettingView { value: None, default: None, ..setting("welcome", SettingSource::None) },
            ],
            nodes: 3,
        };
        assert_eq!(
            list(&view),
            "KEY      VALUE  FROM                                                                 RULE\n\
             lanes    1      manifest\n\
             rate     99     environment (SWITCHBOARD_X) overrides live 40, on 2 of 3 nodes       an integer\n\
             votes    40     live, set by ana at 2026-11-30 10:00:00; overridden on 1 of 3 nodes\n\
             welcome  –      not set"
        );
    }

    #[test]
    fn a_history_has_one_row_for_each_key() {
        let change = |key: &str, from: Option<&str>, to: Option<&str>| ShownChange {
            key: key.into(),
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            default: None,
        };
        let event = SettingsChange {
            generation: 812,
            at: "2026-11-30T10:00:00.000Z".into(),
            by: "ana".into(),
            note: Some("exam week".into()),
            changes: vec![change("rate", None, Some("40")), change("votes", Some("3"), None)],
        };
        assert_eq!(
            changes(&[event]),
            "GENERATION  AT                   BY   KEY    FROM  TO  NOTE\n\
             812         2026-11-30 10:00:00  ana  rate   –     40  exam week\n\
             \u{20}                                     votes  3     –"
        );
        assert_eq!(changes(&[]), "no changes");
    }
}
