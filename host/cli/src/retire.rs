//! `switchboard retire`: retires a handler from the whole fleet.

use super::change::Change;
use super::{Failure, Output};
use switchboard_core::config::Config;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The handler. Its routes then answer 404, and its frame types are unknown. `rollback HANDLER` restores
    /// it.
    handler: String,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    args.change.ask("retire", &args.handler, None, config, out).await
}
