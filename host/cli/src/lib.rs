//! The command line: one file for each command, with its `Args` and `run`. It makes no other decisions of the
//! product.
//!
//! Answers go to standard output (one JSON document with `--json`), progress and errors to standard error.
//! Exit codes: 0 done, 1 failed, 2 usage. If the reader of the output ends, the command continues with the
//! same exit code.

mod admin_token;
mod build;
mod change;
mod client;
mod deploy;
mod dev;
mod embedded;
mod events;
mod inspect;
mod invoke;
mod keys;
mod local;
mod migrate;
mod new;
mod pack;
mod page;
mod promote;
mod rebuild;
mod registry;
mod releases;
mod replay;
mod report;
mod retire;
mod rollback;
mod secret;
mod serve;
mod settings;
mod sign;
mod status;
mod tail;
mod test;
mod timers;
mod token;
mod unshadow;
mod verify;
mod wit;

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Parser, Subcommand};
use serde::Serialize;

use switchboard_core::config::Config;

#[derive(Parser)]
#[command(
    name = "switchboard",
    version,
    about = "A realtime host whose behaviour lives in sandboxed handlers"
)]
struct Cli {
    /// Answer with one JSON document.
    #[arg(long, global = true)]
    json: bool,
    /// The file with the settings, instead of ./switchboard.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node until SIGTERM or Ctrl-C.
    Serve(serve::Args),
    /// Run a node, and build and deploy a handler when its files change.
    Dev(dev::Args),
    /// Build release files from handler crates.
    Build(build::Args),
    /// Make a release file from a component of another language's tools.
    Pack(pack::Args),
    /// Make a new handler with a passing test.
    New(new::Args),
    /// Print or write the contract between host and handlers, for any language.
    Wit(wit::Args),
    /// Run the tests of handlers without services, or record them with real ones.
    Test(test::Args),
    /// Run a recorded call on one release, or on two to compare them.
    Replay(replay::Args),
    /// Make one call of a handler, and show its host calls.
    Invoke(invoke::Args),
    /// Migrate the database to this version.
    Migrate(migrate::Args),
    /// Deploy release files to a running fleet.
    Deploy(deploy::Args),
    /// List the stored releases, and the running ones.
    Releases(releases::Args),
    /// Make the canary run for everybody.
    Promote(promote::Args),
    /// Show why a canary was withdrawn, with its first failed call.
    Report(report::Args),
    /// Remove the canary, or return to the release before, or to a named release.
    Rollback(rollback::Args),
    /// Retire a handler from the fleet; a deploy or a rollback restores it.
    Retire(retire::Args),
    /// Show, set and roll back the live settings of a handler.
    Config(settings::Args),
    /// Set, list or remove the secrets that handlers may read.
    Secret(secret::Args),
    /// End the shadow of a handler.
    Unshadow(unshadow::Args),
    /// Show what a release answers, may use, and how much.
    Inspect(inspect::Args),
    /// Show nodes, releases, connections and the outbox; exit code 1 if something is wrong.
    Status(status::Args),
    /// Show calls and log lines of all nodes while they happen.
    Tail(tail::Args),
    /// List, retry or drop the parked events of the outbox.
    Events(events::Args),
    /// List or cancel the timers of handlers.
    Timers(timers::Args),
    /// Rebuild the read model in Redis from Postgres.
    Rebuild(rebuild::Args),
    /// Make a development token (only with an HS256 secret).
    Token(token::Args),
    /// Make, list or revoke tokens for the admin listener.
    AdminToken(admin_token::Args),
    /// Make a pair of keys for signing releases.
    Keys(keys::Args),
    /// Sign release files: writes FILE.sig beside each.
    Sign(sign::Args),
    /// Check that release files are signed by a trusted key.
    Verify(verify::Args),
    /// The child process of a node: reads a component from standard input, and writes its machine code to
    /// standard output.
    #[command(name = switchboard_runtime::SUBCOMMAND, hide = true)]
    Compile,
}

pub fn main() -> ExitCode {
    // Clap exits with 0 for `--help` and with 2 for a wrong usage.
    let cli = Cli::parse();
    let out = Output { json: cli.json, lost: OnceLock::new() };
    let result = match cli.command {
        Command::Build(args) => build::run(args, &out),
        Command::Pack(args) => pack::run(args, &out),
        Command::New(args) => new::run(args, &out),
        Command::Wit(args) => wit::run(args, &out),
        Command::Keys(args) => keys::run(args, &out),
        Command::Sign(args) => sign::run(args, &out),
        Command::Compile => switchboard_runtime::compile_as_child().map_err(Failure::from),
        configured => Config::load(cli.config.as_deref())
            .map_err(Failure::from)
            .and_then(|config| configured.run(config, &out)),
    };
    match result.and_then(|()| out.written()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(match failure {
                Failure::Failed(_) | Failure::Answered => 1,
                Failure::Usage(_) => 2,
            })
        }
    }
}

impl Command {
    /// The commands that need the settings.
    fn run(self, config: Config, out: &Output) -> Result<(), Failure> {
        match self {
            // These start without settings.
            Self::Build(_)
            | Self::Pack(_)
            | Self::New(_)
            | Self::Wit(_)
            | Self::Compile
            | Self::Keys(_)
            | Self::Sign(_) => Ok(()),
            Self::Test(args) => block_on(test::run(args, &config, out)),
            Self::Replay(args) => block_on(replay::run(args, &config, out)),
            Self::Invoke(args) => block_on(invoke::run(args, &config, out)),
            Self::AdminToken(args) => block_on(admin_token::run(args, &config, out)),
            Self::Verify(args) => verify::run(args, config, out),
            Self::Serve(args) => block_on(serve::run(args, config, out)),
            Self::Dev(args) => block_on(dev::run(args, config, out)),
            Self::Status(args) => block_on(status::run(args, &config, out)),
            Self::Tail(args) => block_on(tail::run(args, &config, out)),
            Self::Events(args) => block_on(events::run(args, &config, out)),
            Self::Timers(args) => block_on(timers::run(args, &config, out)),
            Self::Rebuild(args) => block_on(rebuild::run(args, &config, out)),
            Self::Token(args) => token::run(args, &config, out),
            Self::Migrate(args) => block_on(migrate::run(args, &config, out)),
            Self::Deploy(args) => block_on(deploy::run(args, &config, out)),
            Self::Releases(args) => block_on(releases::run(args, &config, out)),
            Self::Promote(args) => block_on(promote::run(args, &config, out)),
            Self::Report(args) => block_on(report::run(args, &config, out)),
            Self::Unshadow(args) => block_on(unshadow::run(args, &config, out)),
            Self::Retire(args) => block_on(retire::run(args, &config, out)),
            Self::Secret(args) => block_on(secret::run(args, &config, out)),
            Self::Rollback(args) => block_on(rollback::run(args, &config, out)),
            Self::Config(args) => block_on(settings::run(args, &config, out)),
            Self::Inspect(args) => block_on(inspect::run(args, &config, out)),
        }
    }
}

/// The failure of a command, for the person who ran it. `?` converts any error to `Failed`. It has no blame,
/// unlike the errors of the other crates: no program reads it, and the exit code tells only failure and usage
/// apart.
#[derive(Debug)]
pub enum Failure {
    Failed(Box<dyn Error + Send + Sync>),
    /// The command line is wrong; exit code 2.
    Usage(String),
    /// The printed answer already names the problem.
    Answered,
}

impl Failure {
    pub fn failed(what: impl Into<String>) -> Self {
        Self::Failed(what.into().into())
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) => f.write_str(what),
            Self::Answered => Ok(()),
            Self::Failed(error) => {
                write!(f, "{error}")?;
                let mut source = error.source();
                while let Some(cause) = source {
                    write!(f, ": {cause}")?;
                    source = cause.source();
                }
                Ok(())
            }
        }
    }
}

/// The output of a command.
pub struct Output {
    json: bool,
    /// The error of a write.
    lost: OnceLock<io::Error>,
}

impl Output {
    /// Prints the progress to standard error, for people.
    pub fn progress(&self, line: impl fmt::Display) {
        // The print macros panic if the reader has ended, so write directly and ignore errors.
        let _ = writeln!(io::stderr(), "{line}");
    }

    /// Prints the result: the document with `--json`, otherwise the text.
    pub fn answer(&self, document: &impl Serialize, text: impl fmt::Display) {
        if self.json {
            self.print(serde_json::to_string_pretty(document).expect("an answer is plain data"));
        } else {
            self.print(text);
        }
    }

    /// Prints one of several results: a line of JSON with `--json`, otherwise the text. Returns false when
    /// the reader has ended, so that a command without an end can end.
    pub fn line(&self, document: &impl Serialize, text: impl fmt::Display) -> bool {
        if self.json {
            self.print(serde_json::to_string(document).expect("an answer is plain data"));
        } else {
            self.print(text);
        }
        self.lost.get().is_none()
    }

    fn print(&self, line: impl fmt::Display) {
        let mut stdout = io::stdout().lock();
        if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
            let _ = self.lost.set(error);
        }
    }

    /// An error if an answer could not be written. A reader that ended early (`| head`) is no error.
    fn written(&self) -> Result<(), Failure> {
        match self.lost.get() {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::failed(format!("cannot write the answer: {error}")))
            }
            _ => Ok(()),
        }
    }

    fn failure(&self, failure: &Failure) {
        if matches!(failure, Failure::Answered) {
            return;
        }
        if self.json {
            self.print(serde_json::json!({ "error": failure.to_string() }));
        }
        self.progress(format_args!("error: {failure}"));
    }
}

/// Runs an asynchronous command.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the runtime needs threads and an epoll")
        .block_on(work)
}
