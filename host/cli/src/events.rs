//! `switchboard events`: parked events of consumers: list, retry, drop.

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Client, Where};
use super::{Failure, Output, page};
use switchboard_core::config::Config;
use switchboard_postgres::outbox::Parked;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    at: Where,
}

#[derive(clap::Subcommand)]
enum What {
    /// List the parked events with their reasons, the newest first.
    Failed,
    /// Deliver the events again, with their attempts counted anew.
    Retry {
        #[arg(required = true)]
        ids: Vec<Uuid>,
    },
    /// Delete the events.
    Drop {
        #[arg(required = true)]
        ids: Vec<Uuid>,
    },
}

#[derive(Deserialize)]
struct Events {
    events: Vec<Parked>,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let client = Client::of(config, &args.at);
    match args.what {
        What::Failed => {
            let Events { events } = client.get("/admin/v1/events?state=failed").await?;
            let text = if events.is_empty() { "no failed events".to_owned() } else { text(&events) };
            out.answer(&json!({ "events": events }), text);
            Ok(())
        }
        What::Retry { ids } => each(&client, &ids, "retry", "retried", out).await,
        What::Drop { ids } => each(&client, &ids, "drop", "dropped", out).await,
    }
}

async fn each(client: &Client, ids: &[Uuid], verb: &str, done: &str, out: &Output) -> Result<(), Failure> {
    let (mut lines, mut documents, mut all_well) = (Vec::new(), Vec::new(), true);
    for id in ids {
        let path = format!("/admin/v1/events/{id}/{verb}");
        match client.post::<Value>(&path, &json!({})).await {
            Ok(document) => {
                lines.push(format!("{id} {done}"));
                documents.push(document);
            }
            Err(failure) => {
                all_well = false;
                lines.push(format!("{id} was not {done}: {failure}"));
                documents.push(json!({ "id": id, "error": failure.to_string() }));
            }
        }
    }
    out.answer(&json!({ done: documents }), lines.join("\n"));
    if all_well { Ok(()) } else { Err(Failure::Answered) }
}

fn text(events: &[Parked]) -> String {
    let rows: Vec<_> = events
        .iter()
        .map(|event| {
            vec![
                event.id.to_string(),
                event.consumer.clone(),
                event.event_type.clone(),
                event.key.clone(),
                page::time(&event.parked_at),
                page::count(u64::try_from(event.attempts).unwrap_or(0), "attempt"),
                event.error.clone(),
            ]
        })
        .collect();
    page::table(&rows)
}
