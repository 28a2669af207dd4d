//! `switchboard unshadow`: ends the shadow. Its results stay: `switchboard releases HANDLER`.

use super::change::Change;
use super::{Failure, Output};
use switchboard_core::config::Config;

#[derive(clap::Args)]
pub(crate) struct Args {
    handler: String,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    args.change.ask("unshadow", &args.handler, None, config, out).await
}
