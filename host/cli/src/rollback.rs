//! `switchboard rollback`: back to what ran before, or to a named release.

use serde_json::json;

use super::client::{Client, Where};
use super::{Failure, Output, deploy};
use switchboard_core::config::Config;

#[derive(clap::Args)]
pub struct Args {
    handler: String,
    /// The beginning of its digest, six digits or more. Unless given: without its canary, where one stands; else what
    /// ran before the present one, so twice is there and back again.
    release: Option<String>,
    /// Why. Kept in the history.
    #[arg(long)]
    note: Option<String>,
    #[command(flatten)]
    at: Where,
}

pub async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let body = json!({ "release": args.release, "note": args.note });
    deploy::change(&Client::of(config, &args.at), (&args.handler, "rollback"), &body, out).await
}
