//! `switchboard timers`: the timers of handlers: list, cancel. `switchboard events` retries the parked ones.

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, Where};
use super::{Failure, Output, page};
use switchboard_core::config::Config;
use switchboard_postgres::timers::ListedTimer;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    at: Where,
}

#[derive(clap::Subcommand)]
enum What {
    /// List timers, those that fire first at the beginning, at most 200.
    List {
        /// Only those of this handler.
        handler: Option<String>,
    },
    /// Cancel timers of a handler, for instance of one that was retired. Calls in flight go on.
    Cancel {
        handler: String,
        /// The keys of the timers.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        keys: Vec<String>,
        /// All timers of the handler.
        #[arg(long)]
        all: bool,
    },
}

#[derive(Deserialize)]
struct Timers {
    timers: Vec<ListedTimer>,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let client = Client::of(config, &args.at);
    match args.what {
        What::List { handler } => {
            let path = match handler {
                Some(handler) => format!("/admin/v1/timers?handler={handler}"),
                None => "/admin/v1/timers".to_owned(),
            };
            let Timers { timers } = client.get(&path).await?;
            let text = if timers.is_empty() { "no timers".to_owned() } else { text(&timers) };
            out.answer(&json!({ "timers": timers }), text);
            Ok(())
        }
        What::Cancel { handler, keys, all } => {
            let path = format!("/admin/v1/handlers/{handler}/timers/cancel");
            let bodies = match all {
                true => vec![json!({ "all": true })],
                false => keys.iter().map(|key| json!({ "key": key })).collect(),
            };
            let mut cancelled = 0;
            for body in &bodies {
                let answer: Value = client.post(&path, body).await?;
                cancelled += answer["cancelled"].as_u64().unwrap_or_default();
            }
            let text = format!("{} of {handler} cancelled", page::count(cancelled, "timer"));
            out.answer(&json!({ "handler": handler, "cancelled": cancelled }), text);
            Ok(())
        }
    }
}

fn text(timers: &[ListedTimer]) -> String {
    let rows: Vec<_> = timers
        .iter()
        .map(|timer| {
            vec![
                timer.handler.clone(),
                timer.key.clone(),
                timer.state.clone(),
                page::time(&timer.next_at),
                page::count(u64::try_from(timer.attempts).unwrap_or(0), "attempt"),
                timer.error.clone().unwrap_or_default(),
            ]
        })
        .collect();
    page::table(&rows)
}
