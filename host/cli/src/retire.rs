//! `switchboard retire`: takes a handler out of the whole fleet.

use serde_json::json;

use super::client::{Client, Where};
use super::{Failure, Output, deploy};
use switchboard_core::config::Config;

#[derive(clap::Args)]
pub struct Args {
    /// Its routes answer 404 from then on, its frame types are unknown. `rollback HANDLER` brings it back.
    handler: String,
    /// Why. Kept in the history.
    #[arg(long)]
    note: Option<String>,
    #[command(flatten)]
    at: Where,
}

pub async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let body = json!({ "note": args.note });
    deploy::change(&Client::of(config, &args.at), (&args.handler, "retire"), &body, out).await
}
