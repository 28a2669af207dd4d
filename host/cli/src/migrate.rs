//! `switchboard migrate`: migrates the database to this version. Running it again changes nothing.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Failure, Output, page};
use switchboard_core::config::Config;
use switchboard_postgres::Migrations;
use switchboard_postgres::migrate::{self, Claim};
use switchboard_releases::Error;
use switchboard_releases::repository::{self, Unopened};

/// The directory of the application's migrations, unless a flag names another one.
const APP_DIRECTORY: &str = "migrations/app";

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    app: App,
    /// Give the handlers' roles the passwords of this database's secret, although other databases of the
    /// server use these roles with another secret. Nodes of those databases can then not log in until they
    /// have the same secret.
    #[arg(long)]
    take_roles: bool,
    /// Go on although secrets do not open under `secret` or `secret_previous`. They stay as they are, and no
    /// node can read them until they are set again.
    #[arg(long)]
    leave_secrets: bool,
}

/// The application whose migrations run after those of the host.
#[derive(clap::Args)]
pub(crate) struct App {
    /// The directory of the application's migrations. Without it: migrations/app in the working directory, or
    /// beside the directory of the handlers.
    #[arg(long = "app", value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

impl App {
    /// The migrations of the host and of the application. `handlers` is the directory of its handlers, if one
    /// is named.
    pub(crate) fn migrations(&self, handlers: Option<&Path>) -> Result<Migrations, Failure> {
        let directory = match &self.directory {
            Some(directory) => directory.clone(),
            None => found(handlers)?,
        };
        Ok(Migrations::with_app(&directory)?)
    }

    /// The same for commands of development: without a named directory, and where none is found, those of the
    /// host alone. An operator's command must not miss the migrations of the application; a folder with a new
    /// handler has none.
    pub(crate) fn migrations_if_any(&self, handlers: Option<&Path>) -> Result<Migrations, Failure> {
        match &self.directory {
            None if found(handlers).is_err() => Ok(Migrations::of_the_host()),
            _ => self.migrations(handlers),
        }
    }
}

fn found(handlers: Option<&Path>) -> Result<PathBuf, Failure> {
    let beside = handlers.and_then(Path::parent).map(|parent| parent.join(APP_DIRECTORY));
    let places: Vec<PathBuf> = [PathBuf::from(APP_DIRECTORY)].into_iter().chain(beside).collect();
    if let Some(directory) = places.iter().find(|directory| directory.is_dir()) {
        return Ok(directory.clone());
    }
    let here = std::env::current_dir().unwrap_or_default();
    let places: Vec<String> =
        places.iter().map(|directory| here.join(directory).display().to_string()).collect();
    Err(Failure::Usage(format!(
        "cannot find the application's migrations: {} is not a directory. Nothing was changed. Name the directory with `--app \
         DIRECTORY`; that of an application without migrations is empty",
        places.join(" or ")
    )))
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let claim = if args.take_roles { Claim::Take } else { Claim::IfUnused };
    let unopened = if args.leave_secrets { Unopened::Leave } else { Unopened::Refuse };
    let migrations = args.app.migrations(config.handlers_dir.as_deref())?;
    migrate(config, &migrations, claim, unopened, out).await?;
    out.answer(&json!({ "migrated": true }), "the database is up to date");
    Ok(())
}

/// Migrates the database. Afterwards the roles' passwords and the key of the fleet's secrets are those of
/// `secret`.
pub(crate) async fn migrate(
    config: &Config,
    migrations: &Migrations,
    claim: Claim,
    unopened: Unopened,
    out: &Output,
) -> Result<(), Failure> {
    // Checked before anything is changed: with a wrong `secret`, the nodes could not log in any more. The
    // migration itself meets every other failure, and names its reason.
    if unopened == Unopened::Refuse
        && let Err(refused @ Error::SecretsUnopened(_)) = repository::check_secrets_open(config).await
    {
        return Err(refused.into());
    }
    let migrated = migrate::run_with(config, migrations, claim).await?;
    if let Some(warning) = migrated.warning() {
        out.progress(format_args!("warning: {warning}"));
    }
    let resealed = repository::reseal(config, unopened).await?;
    if resealed.count > 0 {
        out.progress(format_args!("sealed {} again", page::count(resealed.count, "secret")));
    }
    for unopened in resealed.unopened {
        out.progress(format_args!("warning: {unopened}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_migrations_are_found_beside_the_handlers_or_the_error_says_where_they_were_sought() {
        let directory = tempfile::tempdir().unwrap();
        let handlers = directory.path().join("handlers");
        let app = App { directory: None };
        let Err(Failure::Usage(message)) = app.migrations(Some(&handlers)) else {
            panic!("nothing is there")
        };
        let beside = directory.path().join("migrations/app");
        assert!(
            message.contains(&beside.display().to_string()) && message.contains("`--app DIRECTORY`"),
            "{message}"
        );

        // A folder with a new handler has no migrations of its own.
        let host = Migrations::of_the_host().fingerprint();
        assert_eq!(app.migrations_if_any(Some(&handlers)).unwrap().fingerprint(), host);
        let missing = App { directory: Some(directory.path().join("missing")) };
        assert!(missing.migrations_if_any(Some(&handlers)).is_err(), "it was named");

        std::fs::create_dir_all(&beside).unwrap();
        std::fs::write(beside.join("2000_people.sql"), "create table people ()").unwrap();
        let migrations = app.migrations(Some(&handlers)).unwrap();
        assert_eq!(migrations.sql().last(), Some("create table people ()"));
        assert_ne!(app.migrations_if_any(Some(&handlers)).unwrap().fingerprint(), host);
        // A flag overrides the places.
        let empty = App { directory: Some(directory.path().to_owned()) };
        let migrations = empty.migrations(Some(&handlers)).unwrap();
        assert!(migrations.sql().all(|sql| sql != "create table people ()"));
    }
}
