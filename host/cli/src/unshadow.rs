//! `switchboard unshadow`: ends the shadow. Its results stay: `switchboard releases HANDLER`.

use serde_json::json;

use super::client::{Client, Where};
use super::{Failure, Output, deploy};
use switchboard_core::config::Config;

#[derive(clap::Args)]
pub(crate) struct Args {
    handler: String,
    /// The reason, for the history.
    #[arg(long)]
    note: Option<String>,
    #[command(flatten)]
    at: Where,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let body = json!({ "note": args.note });
    deploy::change(&Client::of(config, &args.at), (&args.handler, "unshadow"), &body, out).await
}
