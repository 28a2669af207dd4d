//! `switchboard rollback`: removes the canary, or returns to the release before, or to a named release.

use serde_json::json;

use super::client::{Client, Where};
use super::{Failure, Output, deploy};
use switchboard_core::config::Config;

#[derive(clap::Args)]
pub(crate) struct Args {
    handler: String,
    /// The beginning of a digest, six digits or more. By default: remove the canary if there is one,
    /// otherwise return to the release before the present one; a second rollback undoes the first.
    release: Option<String>,
    /// The reason, for the history.
    #[arg(long)]
    note: Option<String>,
    #[command(flatten)]
    at: Where,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let body = json!({ "release": args.release, "note": args.note });
    deploy::change(&Client::of(config, &args.at), (&args.handler, "rollback"), &body, out).await
}
