//! `switchboard serve`: runs a node until SIGTERM or Ctrl-C.

use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use super::migrate::{self, App};
use super::{Failure, Output};
use switchboard_core::config::{Config, RecordedCalls};
use switchboard_postgres::migrate::Claim;
use switchboard_releases::repository::Unopened;
use switchboard_server::app;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    node: Node,
    /// Migrate the database to this version first.
    #[arg(long)]
    migrate: bool,
    #[command(flatten)]
    app: App,
    /// Deploy the release files of this directory that the fleet has never run.
    #[arg(long, value_name = "DIRECTORY")]
    handlers: Option<PathBuf>,
}

/// The options that `dev` has too.
#[derive(clap::Args)]
pub(crate) struct Node {
    /// The address for clients.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The address for operators.
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// Record every call into this directory. For development: recordings contain what users sent.
    #[arg(long, alias = "traces", value_name = "DIRECTORY")]
    recordings: Option<PathBuf>,
}

impl Node {
    /// Flags override every other source.
    pub(crate) fn over(self, mut config: Config) -> Config {
        config.listen = self.listen.unwrap_or(config.listen);
        config.admin_listen = self.admin_listen.unwrap_or(config.admin_listen);
        if let Some(directory) = self.recordings {
            config.recording_dir = Some(directory);
            config.recording_calls = RecordedCalls::All;
            config.recording_bodies = true;
        }
        config
    }
}

pub(crate) async fn run(args: Args, config: Config, out: &Output) -> Result<(), Failure> {
    raise_open_files();
    let mut config = args.node.over(config);
    config.handlers_dir = args.handlers.or(config.handlers_dir);
    if args.migrate {
        let migrations = args.app.migrations(config.handlers_dir.as_deref())?;
        migrate::migrate(&config, &migrations, Claim::IfUnused, Unopened::Refuse, out).await?;
        out.progress("the database is up to date");
    }
    Ok(app::serve(config).await?)
}

/// Raises the bound of open files to the system's maximum, because every socket is an open file.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        warn!(%error, "the limit of open files stays at {:?}, which bounds the connections of this node", limit.current);
    }
}
