//! `switchboard promote`: the canary runs for everybody.

use serde_json::json;

use super::client::{Client, Where};
use super::{Failure, Output, deploy, page};
use crate::config::Config;
use crate::releases::Outcome;

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
    let path = format!("/admin/v1/handlers/{}/promote", page::escape(&args.handler));
    let body = json!({ "release": args.release, "note": args.note });
    let outcome: Outcome = Client::of(config, &args.at).post(&path, &body).await?;
    out.answer(&outcome, deploy::said(&outcome));
    if outcome.complete { Ok(()) } else { Err(Failure::Answered) }
}
