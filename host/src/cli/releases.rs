//! `switchboard releases`: what is kept, what of it runs, and how it came to that.

use serde::{Deserialize, Serialize};

use super::client::{Client, Where};
use super::{Failure, Output, page};
use crate::config::Config;
use crate::releases::repository::{Event, Release};

#[derive(clap::Args)]
pub struct Args {
    /// Of this handler only, with its history.
    handler: Option<String>,
    #[command(flatten)]
    at: Where,
}

#[derive(Deserialize)]
struct Releases {
    releases: Vec<Release>,
}

#[derive(Deserialize)]
struct History {
    history: Vec<Event>,
}

#[derive(Serialize)]
struct Document {
    releases: Vec<Release>,
    history: Vec<Event>,
}

pub async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let client = Client::of(config, &args.at);
    let query = args.handler.as_deref().map(|name| format!("?handler={}", page::escape(name)));
    let query = query.unwrap_or_default();
    let Releases { releases } = client.get(&format!("/admin/v1/releases{query}")).await?;
    let history = match args.handler {
        Some(_) => client.get::<History>(&format!("/admin/v1/history{query}")).await?.history,
        None => Vec::new(),
    };
    let text = text(&releases, &history);
    out.answer(&Document { releases, history }, text);
    Ok(())
}

fn text(releases: &[Release], history: &[Event]) -> String {
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
                if release.current { "runs" } else { "" }.to_owned(),
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
    text
}

fn switched(event: &Event) -> Vec<String> {
    let from = event.previous.map_or_else(|| "nothing".to_owned(), |digest| digest.short());
    vec![
        page::time(&event.at),
        event.action.clone(),
        format!("{from} → {}", event.digest.short()),
        event.by.clone(),
        event.note.clone().unwrap_or_default(),
    ]
}
