//! `switchboard serve`: run a node until it is told to end.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Failure, Output};
use crate::app;
use crate::config::Config;
use crate::postgres::migrate;

#[derive(clap::Args)]
pub struct Args {
    /// Where clients connect.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where operators connect.
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// Bring the database to this version first.
    #[arg(long)]
    migrate: bool,
    /// Deploy the release files of this directory that the fleet has never seen.
    #[arg(long, value_name = "DIRECTORY")]
    handlers: Option<PathBuf>,
    /// Record every call as a trace into this directory. For development: it holds what users sent.
    #[arg(long, value_name = "DIRECTORY")]
    traces: Option<PathBuf>,
}

impl Args {
    /// Flags override every other source.
    pub fn over(self, mut config: Config) -> (Config, bool) {
        config.listen = self.listen.unwrap_or(config.listen);
        config.admin_listen = self.admin_listen.unwrap_or(config.admin_listen);
        config.handlers_dir = self.handlers.or(config.handlers_dir);
        config.trace_dir = self.traces.or(config.trace_dir);
        (config, self.migrate)
    }
}

pub async fn run(args: Args, config: Config, out: &Output) -> Result<(), Failure> {
    let (config, migrates) = args.over(config);
    if migrates {
        migrate::run(&config).await?;
        out.progress("the database is up to date");
    }
    Ok(app::serve(config).await?)
}
