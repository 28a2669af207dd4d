//! The command line: one file a command, each an `Args` and a `run`. Nothing else of the product is decided here.
//!
//! Answers go to standard output (one JSON document with `--json`), progress and complaints to standard error.
//! Exit codes: 0 done, 1 failed, 2 usage. A reader who goes away ends no command and changes no code.

mod admin_token;
mod build;
mod client;
mod deploy;
mod dev;
mod events;
mod inspect;
mod invoke;
mod keys;
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
mod serve;
mod sign;
mod status;
mod test;
mod token;
mod unshadow;
mod verify;

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
    /// Settings, instead of ./switchboard.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node until it is told to end.
    Serve(serve::Args),
    /// Run a node, and rebuild and swap a handler when its files change.
    Dev(dev::Args),
    /// Handler crates to release files.
    Build(build::Args),
    /// A component of another language's tools to a release file.
    Pack(pack::Args),
    /// A handler with a passing test, to begin with.
    New(new::Args),
    /// The tests of handlers, without any service; recorded with real ones.
    Test(test::Args),
    /// A recorded call on one release, or on two to see where they differ.
    Replay(replay::Args),
    /// One call of a handler, and the host calls it makes.
    Invoke(invoke::Args),
    /// Bring the database to this version.
    Migrate(migrate::Args),
    /// Release files to a running fleet.
    Deploy(deploy::Args),
    /// What is kept, and what of it runs.
    Releases(releases::Args),
    /// The canary, for everybody.
    Promote(promote::Args),
    /// Why a canary was taken back by itself, with the first call that went wrong.
    Report(report::Args),
    /// Back to what ran before, or to a named release; a canary that stands goes first.
    Rollback(rollback::Args),
    /// Take a handler out of the fleet; a deploy or a rollback brings it back.
    Retire(retire::Args),
    /// End the shadow of a handler.
    Unshadow(unshadow::Args),
    /// What a release answers to, may touch and may use.
    Inspect(inspect::Args),
    /// Nodes, releases, connections, outbox; exit code 1 when something is not as it should be.
    Status(status::Args),
    /// What a consumer of the outbox gave up, and what is to become of it.
    Events(events::Args),
    /// The read model in Redis, from Postgres.
    Rebuild(rebuild::Args),
    /// A development token (only with an HS256 secret).
    Token(token::Args),
    /// A token for the admin listener, of a role; or take one back.
    AdminToken(admin_token::Args),
    /// A pair of keys for signing releases.
    Keys(keys::Args),
    /// Vouch for release files: FILE.sig beside each.
    Sign(sign::Args),
    /// Whether release files are signed by a key that counts.
    Verify(verify::Args),
    /// The child of a node: a component on standard input, its machine code on standard output.
    #[command(name = switchboard_runtime::SUBCOMMAND, hide = true)]
    Compile,
}

pub fn main() -> ExitCode {
    // Clap answers `--help` with 0 and a wrong usage with 2.
    let cli = Cli::parse();
    let out = Output { json: cli.json, lost: OnceLock::new() };
    let result = match cli.command {
        Command::Build(args) => build::run(args, &out),
        Command::Pack(args) => pack::run(args, &out),
        Command::New(args) => new::run(args, &out),
        Command::Keys(args) => keys::run(args, &out),
        Command::Sign(args) => sign::run(args, &out),
        Command::Compile => switchboard_runtime::compile_as_child().map_err(Failure::failed),
        configured => Config::load(cli.config.as_deref())
            .map_err(Failure::from)
            .and_then(|config| configured.run(config, &out)),
    };
    match result.and_then(|()| out.said()) {
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
    /// The commands that need to know the settings.
    fn run(self, config: Config, out: &Output) -> Result<(), Failure> {
        match self {
            // They start without any.
            Self::Build(_) | Self::Pack(_) | Self::New(_) | Self::Compile | Self::Keys(_) | Self::Sign(_) => {
                Ok(())
            }
            Self::Test(args) => block_on(test::run(args, &config, out)),
            Self::Replay(args) => block_on(replay::run(args, &config, out)),
            Self::Invoke(args) => block_on(invoke::run(args, &config, out)),
            Self::AdminToken(args) => block_on(admin_token::run(args, &config, out)),
            Self::Verify(args) => verify::run(args, config, out),
            Self::Serve(args) => block_on(serve::run(args, config, out)),
            Self::Dev(args) => block_on(dev::run(args, config, out)),
            Self::Status(args) => block_on(status::run(args, &config, out)),
            Self::Events(args) => block_on(events::run(args, &config, out)),
            Self::Rebuild(args) => block_on(rebuild::run(args, &config, out)),
            Self::Token(args) => token::run(args, &config, out),
            Self::Migrate(args) => block_on(migrate::run(args, &config, out)),
            Self::Deploy(args) => block_on(deploy::run(args, &config, out)),
            Self::Releases(args) => block_on(releases::run(args, &config, out)),
            Self::Promote(args) => block_on(promote::run(args, &config, out)),
            Self::Report(args) => block_on(report::run(args, &config, out)),
            Self::Unshadow(args) => block_on(unshadow::run(args, &config, out)),
            Self::Retire(args) => block_on(retire::run(args, &config, out)),
            Self::Rollback(args) => block_on(rollback::run(args, &config, out)),
            Self::Inspect(args) => block_on(inspect::run(args, &config, out)),
        }
    }
}

/// Why a command did not do it. `?` makes a `Failed` of any error.
#[derive(Debug)]
pub enum Failure {
    Failed(Box<dyn Error + Send + Sync>),
    /// The command line asks for what is not there; exit code 2.
    Usage(String),
    /// The answer already says what is not as it should be.
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

/// Where a command speaks.
pub struct Output {
    json: bool,
    /// Why an answer could not be written.
    lost: OnceLock<io::Error>,
}

impl Output {
    /// What it is doing now: standard error, for people.
    pub fn progress(&self, line: impl fmt::Display) {
        // The macros panic where a reader has gone away. Complaints that nobody takes are dropped.
        let _ = writeln!(io::stderr(), "{line}");
    }

    /// The result: the document with `--json`, else the text.
    pub fn answer(&self, document: &impl Serialize, text: impl fmt::Display) {
        if self.json {
            self.print(serde_json::to_string_pretty(document).expect("an answer is plain data"));
        } else {
            self.print(text);
        }
    }

    fn print(&self, line: impl fmt::Display) {
        let mut stdout = io::stdout().lock();
        if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
            let _ = self.lost.set(error);
        }
    }

    /// Whether the answers were written. A reader who has gone away (`| head`) had enough.
    fn said(&self) -> Result<(), Failure> {
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

/// Runs a command that waits for others.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the runtime needs threads and an epoll")
        .block_on(work)
}
