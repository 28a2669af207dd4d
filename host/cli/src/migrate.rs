//! `switchboard migrate`: bring the database to the shape of this version. Doing it again changes nothing.

use serde_json::json;

use super::{Failure, Output};
use switchboard_core::config::Config;
use switchboard_postgres::migrate::{self, Claim};

#[derive(clap::Args)]
pub struct Args {
    /// Give the handlers' roles the passwords of this database's secret, although other databases of the
    /// server use these roles with another secret. Nodes of those databases can then not log in until they
    /// have the same secret.
    #[arg(long)]
    take_roles: bool,
}

pub async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let claim = if args.take_roles { Claim::Take } else { Claim::IfUnused };
    let migrated = migrate::run_with(config, claim).await?;
    if let Some(warning) = migrated.warning() {
        out.progress(format_args!("warning: {warning}"));
    }
    out.answer(&json!({ "migrated": true }), "the database is up to date");
    Ok(())
}
