//! `switchboard promote`: makes the canary run for everybody.

use super::change::Change;
use super::{Failure, Output};
use switchboard_core::config::Config;

#[derive(clap::Args)]
pub(crate) struct Args {
    handler: String,
    /// The beginning of the expected canary's digest; if another canary is there, the command fails.
    release: Option<String>,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    args.change.ask("promote", &args.handler, args.release.as_deref(), config, out).await
}
