//! The command line: one file a command, each an `Args` and a `run`. Nothing else of the product is decided here.
//!
//! Answers go to standard output (one JSON document with `--json`), progress and complaints to standard error.
//! Exit codes: 0 done, 1 failed, 2 usage.

mod build;

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;

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
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Handler crates to release files.
    Build(build::Args),
    /// The child of a node: a component on standard input, its machine code on standard output.
    #[command(name = crate::runtime::SUBCOMMAND, hide = true)]
    Compile,
}

pub fn main() -> ExitCode {
    // Clap answers `--help` with 0 and a wrong usage with 2.
    let cli = Cli::parse();
    let out = Output { json: cli.json };
    let result = match cli.command {
        Command::Build(args) => build::run(args, &out),
        Command::Compile => crate::runtime::compile_as_child().map_err(Failure::failed),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(match failure {
                Failure::Failed(_) => 1,
                Failure::Usage(_) => 2,
            })
        }
    }
}

/// Why a command did not do it. `?` makes a `Failed` of any error.
#[derive(Debug)]
pub enum Failure {
    Failed(Box<dyn Error + Send + Sync>),
    /// The command line asks for what is not there; exit code 2.
    Usage(String),
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
}

impl Output {
    /// What it is doing now: standard error, for people.
    pub fn progress(&self, line: impl fmt::Display) {
        eprintln!("{line}");
    }

    /// The result: the document with `--json`, else the text.
    pub fn answer(&self, document: &impl Serialize, text: impl fmt::Display) {
        if self.json {
            println!("{}", serde_json::to_string_pretty(document).expect("an answer is plain data"));
        } else {
            println!("{text}");
        }
    }

    fn failure(&self, failure: &Failure) {
        if self.json {
            println!("{}", serde_json::json!({ "error": failure.to_string() }));
        }
        eprintln!("error: {failure}");
    }
}

/// Runs a command that waits for others.
#[allow(dead_code, reason = "the first command that waits is on its way")]
fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the runtime needs threads and an epoll")
        .block_on(work)
}
