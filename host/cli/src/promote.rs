//! `switchboard promote`: makes the canary run for everybody.

use serde_json::json;

use super::client::{Client, Where};
use super::{Failure, Output, deploy};
use switchboard_core::config::Config;

#[derive(clap::Args)]
pub(crate) struct Args {
    handler: String,
    /// The beginning of the expected canary's digest; if another canary is there, the command fails.
    release: Option<String>,
    /// The reason, for the history.
    #[arg(long)]
    note: Option<String>,
    #[command(flatten)]
    at: Where,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let body = json!({ "release": args.release, "note": args.note });
    deploy::change(&Client::of(config, &args.at), (&args.handler, "promote"), &body, out).await
}
