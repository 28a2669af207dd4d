//! `switchboard test`: runs the tests of handlers: replays without Postgres, Redis or sockets, or records and
//! checks with them.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::build::{self, Source};
use super::dev::watch::Watch;
use super::local::LocalServices;
use super::migrate::App;
use super::{Failure, Output};
use switchboard_core::config::{self, Config};
use switchboard_harness::case::Subject;
use switchboard_harness::report::{Report, Tested};
use switchboard_harness::suite;
use switchboard_harness::{Harness, Services, faults, statements};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names of handlers (their directories); without a name, all.
    handlers: Vec<String>,
    /// The directory of the handlers.
    #[arg(long, default_value = "handlers")]
    from: PathBuf,
    /// Test the release files of this directory, without a build.
    #[arg(long, value_name = "DIRECTORY")]
    built: Option<PathBuf>,
    /// Run each test with a scenario against real services, each in a new database, and record their answers.
    #[arg(long, conflicts_with_all = ["update", "real"])]
    record: bool,
    /// Write the present host calls and results into recordings whose answers still match. Read the
    /// differences first.
    #[arg(long)]
    update: bool,
    /// Compare with real services: check the recorded answers, and plan every statement with the handler's
    /// role.
    #[arg(long, conflicts_with = "update")]
    real: bool,
    /// Let every host call of every test fail once, in every way. With --real, check the database afterwards.
    #[arg(long, conflicts_with_all = ["record", "update"])]
    faults: bool,
    /// Run again when a file changes, until Ctrl-C.
    #[arg(long, conflicts_with_all = ["record", "real", "faults", "built"])]
    watch: bool,
    /// Write the results as JUnit XML for CI.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// A Postgres where databases may be made and dropped; by default that of SWITCHBOARD_TEST_DATABASE_URL
    /// or of the configuration, or else a private one.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// A Redis whose database 15 may be emptied; by default that of SWITCHBOARD_TEST_REDIS_URL or of the
    /// configuration, or else a private one.
    #[arg(long, value_name = "URL")]
    redis_url: Option<String>,
    #[command(flatten)]
    app: App,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let harness = Harness::keeping(&config.data_dir.join("harness"))?;
    if !args.watch {
        return once(&args, config, &harness, out).await;
    }
    let watch = Watch::start(&args.from)?;
    loop {
        match once(&args, config, &harness, out).await {
            Ok(()) | Err(Failure::Answered) => {}
            Err(failure) => out.progress(failure),
        }
        let changed = watch.changed().await;
        out.progress(format_args!("\n{} changed", changed.summary()));
    }
}

async fn once(args: &Args, config: &Config, harness: &Harness, out: &Output) -> Result<(), Failure> {
    let subjects = subjects(args)?;
    let mut printed = false;
    let report = if args.faults {
        return find_faults(args, config, harness, &subjects, out).await;
    } else if args.record || args.real {
        let (_local, services) = services(args, config)?;
        let each = |tested: &Tested| tested.message().into_iter().for_each(|message| out.progress(message));
        let mut report = suite::real(&services, &subjects, args.record, each).await;
        printed = true;
        if args.real {
            plan_statements(&services, &subjects, &mut report, out).await?;
        }
        report
    } else {
        suite::replay(harness, &subjects, args.update).await?
    };
    if let Some(path) = &args.junit {
        std::fs::write(path, report.junit())
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
    }
    out.answer(&report.json(), if printed { report.summary() } else { report.text() });
    if report.is_ok() { Ok(()) } else { Err(Failure::Answered) }
}

/// Builds the named handlers, and reads their tests.
fn subjects(args: &Args) -> Result<Vec<Subject>, Failure> {
    let sources = Source::find(&args.from)?;
    let is_wanted = |source: &Source| args.handlers.is_empty() || args.handlers.contains(&source.name);
    let file_of = |name: &str| match &args.built {
        Some(directory) => Ok(directory.join(format!("{name}.wasm"))),
        None => Err(()),
    };
    let built = match args.built {
        Some(_) => None,
        None => Some(build::build(&args.from, None, None, &args.handlers)?),
    };
    for name in &args.handlers {
        if !sources.iter().any(|source| source.name == *name) {
            return Err(Failure::Usage(format!("no handler `{name}` in {}/", args.from.display())));
        }
    }
    let subject = |source: &Source| {
        let file = file_of(&source.name).or_else(|()| {
            let mut files = built.iter().flat_map(|built| &built.handlers);
            files.find(|file| file.name == source.name).map(|file| file.path.clone()).ok_or(())
        });
        let file = file.map_err(|()| Failure::failed(format!("{} was not built", source.name)))?;
        Ok(Subject::read(&source.name, &source.directory, &file)?)
    };
    sources.iter().filter(|source| is_wanted(source)).map(subject).collect()
}

/// The named services, or private ones, which end when the first value is dropped.
fn services(args: &Args, config: &Config) -> Result<(LocalServices, Services), Failure> {
    let mut database = named(&args.database_url, "SWITCHBOARD_TEST_DATABASE_URL", &config.database_url);
    let mut redis = named(&args.redis_url, "SWITCHBOARD_TEST_REDIS_URL", &config.redis_url);
    // The roles of a private server always have the passwords of the harness, whatever the environment has.
    let secret = if database.is_none() { None } else { config.secret.as_deref() };
    let directory = config.data_dir.join("test-services");
    let local = LocalServices::start_alone(&directory, &mut database, &mut redis)?;
    let (Some(database), Some(redis)) = (database, redis) else {
        return Err(Failure::failed("the private Postgres or Redis has no URL"));
    };
    let cache: &Path = &config.data_dir.join("harness");
    let migrations = args.app.migrations_if_any(Some(&args.from))?;
    let services = Services::new(&database, &redis, secret, cache, migrations)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    Ok((local, services))
}

/// A flag overrides a variable, and a variable overrides the configuration.
fn named(flag: &Option<String>, variable: &str, configured: &Option<String>) -> Option<String> {
    flag.clone().or_else(|| config::variable(variable)).or_else(|| configured.clone())
}

async fn plan_statements(
    services: &Services,
    subjects: &[Subject],
    report: &mut Report,
    out: &Output,
) -> Result<(), Failure> {
    let checked = statements::check(services, subjects).await?;
    out.progress(format_args!("{} statements planned as their handlers' roles", checked.planned));
    checked.refused.iter().for_each(|refused| out.progress(refused));
    report.refused_statements(checked.refused);
    Ok(())
}

async fn find_faults(
    args: &Args,
    config: &Config,
    harness: &Harness,
    subjects: &[Subject],
    out: &Output,
) -> Result<(), Failure> {
    let begun = std::time::Instant::now();
    let each = |finding: &faults::Finding| out.progress(finding);
    let faults = if args.real {
        let (_local, services) = services(args, config)?;
        faults::real(&services, subjects, each).await?
    } else {
        faults::scripted(harness, subjects).await?
    };
    let lines: Vec<_> = faults.found.iter().map(ToString::to_string).collect();
    let printed: &[String] = if args.real { &[] } else { &lines };
    let last = format!(
        "{} faults tried, {} findings ({} ms)",
        faults.tried,
        faults.found.len(),
        begun.elapsed().as_millis()
    );
    let text = printed.iter().chain([&last]).map(String::as_str).collect::<Vec<_>>().join("\n");
    out.answer(&json!({ "tried": faults.tried, "findings": lines }), text);
    if faults.found.is_empty() { Ok(()) } else { Err(Failure::Answered) }
}
