//! `switchboard rollback`: removes the canary, or returns to the release before, or to a named release.

use super::change::Change;
use super::{Failure, Output};
use switchboard_core::config::Config;

#[derive(clap::Args)]
pub(crate) struct Args {
    handler: String,
    /// The beginning of a digest, six digits or more. By default: remove the canary if there is one,
    /// otherwise return to the release before the present one; a second rollback undoes the first.
    release: Option<String>,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    args.change.ask("rollback", &args.handler, args.release.as_deref(), config, out).await
}
