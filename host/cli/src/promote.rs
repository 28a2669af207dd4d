//! `switchboard promote`: the canary runs for everybody.

use serde_json::json;

use super::client::{Client, Where};
use super::{Failure, Output, deploy};
use switchboard_core::config::Config;

#[derive(clap::Args)]
pub struct Args {
    handler: String,
    /// The beginning of the canary's digest, to be sure that it is still the one you mean.
    release: Option<String>,
    /// Why. Kept in the history.
    #[arg(long)]
    note: Option<String>,
    #[command(flatten)]
    at: Where,
}

pub async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let body = json!({ "release": args.release, "note": args.note });
    deploy::change(&Client::of(config, &args.at), (&args.handler, "promote"), &body, out).await
}
