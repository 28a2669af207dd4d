//! `switchboard releases`: lists the stored releases, the running ones, and the history.

use serde::{Deserialize, Serialize};

use super::client::{Client, Where};
use super::{Failure, Output, page};
use switchboard_core::config::Config;
use switchboard_releases::Selection;
use switchboard_releases::repository::{Event, ReleaseRecord, ShadowReport};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this handler, with its history.
    handler: Option<String>,
    #[command(flatten)]
    at: Where,
}

#[derive(Deserialize)]
struct Releases {
    releases: Vec<ReleaseRecord>,
}

#[derive(Deserialize)]
struct History {
    history: Vec<Event>,
}

#[derive(Deserialize)]
struct Shadows {
    shadows: Vec<ShadowReport>,
}

#[derive(Serialize)]
struct Document {
    releases: Vec<ReleaseRecord>,
    history: Vec<Event>,
    shadows: Vec<ShadowReport>,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let client = Client::of(config, &args.at);
    let query = args.handler.as_deref().map(|name| format!("?handler={}", page::escape(name)));
    let query = query.unwrap_or_default();
    let Releases { releases } = client.get(&format!("/admin/v1/releases{query}")).await?;
    let (mut history, mut shadows) = (Vec::new(), Vec::new());
    if let Some(name) = args.handler {
        history = client.get::<History>(&format!("/admin/v1/history{query}")).await?.history;
        let path = format!("/admin/v1/handlers/{}/shadow", page::escape(&name));
        shadows = client.get::<Shadows>(&path).await?.shadows;
    }
    let text = text(&releases, &history, &shadows);
    out.answer(&Document { releases, history, shadows }, text);
    Ok(())
}

fn text(releases: &[ReleaseRecord], history: &[Event], shadows: &[ShadowReport]) -> String {
    if releases.is_empty() {
        return "no releases".to_owned();
    }
    let mut names: Vec<&str> = releases.iter().map(|release| release.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut rows = Vec::new();
    for name in names {
        for (at, release) in releases.iter().filter(|release| release.name == name).enumerate() {
            rows.push(vec![
                if at == 0 { name.to_owned() } else { String::new() },
                state(release),
                release.digest.short(),
                page::time(&release.at),
                page::bytes(release.bytes),
                release.by.clone(),
                release.note.clone().unwrap_or_default(),
            ]);
        }
    }
    let mut text = page::table(&rows);
    if !history.is_empty() {
        let rows: Vec<_> = history.iter().map(switched).collect();
        text += &format!("\n\nhistory\n{}", page::table(&rows));
    }
    for shadow in shadows {
        let release = shadow.digest.map_or_else(String::new, |digest| digest.short());
        let ShadowReport { same, differing, dropped, .. } = shadow;
        text += &format!(
            "\n\nshadow {release}: {} as the running release, {} not, {} left out",
            page::count(*same, "call"),
            page::thousands(*differing),
            page::thousands(*dropped)
        );
        text.extend(shadow.examples.iter().map(|example| format!("\n  {example}")));
    }
    text
}

fn state(release: &ReleaseRecord) -> String {
    if release.current { "runs".to_owned() } else { beside(release) }
}

/// Its canary or shadow share, if any.
pub(crate) fn beside(release: &ReleaseRecord) -> String {
    match (release.canary_percent, release.shadow_percent) {
        (Some(percent), _) => canary(percent, release.canary_selection.as_ref()),
        (_, Some(percent)) => format!("shadow {percent} %"),
        _ => String::new(),
    }
}

/// `canary 10 % and users ana, bo`.
fn canary(percent: i16, selection: Option<&Selection>) -> String {
    let selection = selection.map(|selection| format!(" and {selection}")).unwrap_or_default();
    format!("canary {percent} %{selection}")
}

fn switched(event: &Event) -> Vec<String> {
    let from = event.previous.map_or_else(|| "nothing".to_owned(), |digest| digest.short());
    let to = if event.action == "retire" { "nothing".to_owned() } else { event.digest.short() };
    let report = if event.report.is_some() {
        format!(" (`switchboard report {} --generation {}`)", event.name, event.generation)
    } else {
        String::new()
    };
    vec![
        page::time(&event.at),
        match event.percent {
            Some(percent) if event.action == "canary" => canary(percent, event.selection.as_ref()),
            Some(percent) => format!("{} {percent} %", event.action),
            None => event.action.clone(),
        },
        format!("{from} → {to}"),
        event.by.clone(),
        event.note.clone().unwrap_or_default() + &report,
    ]
}
