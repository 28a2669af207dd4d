//! `switchboard retire`: retires a handler from the whole fleet.

use serde_json::json;

use super::client::{Client, Where};
use super::{Failure, Output, deploy};
use switchboard_core::config::Config;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The handler. Its routes then answer 404, and its frame types are unknown. `rollback HANDLER` restores
    /// it.
    handler: String,
    /// The reason, for the history.
    #[arg(long)]
    note: Option<String>,
    #[command(flatten)]
    at: Where,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let body = json!({ "note": args.note });
    deploy::change(&Client::of(config, &args.at), (&args.handler, "retire"), &body, out).await
}
