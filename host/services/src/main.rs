//! `services`: private Postgres and Redis, for `scripts/run`, `scripts/test` and for use by hand.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use clap::{Parser, Subcommand};
use switchboard_services::faketime::{self, Moment};
use switchboard_services::server::Life;
use switchboard_services::standing::{Standing, Up};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(about = "Private Postgres and Redis on free loopback ports")]
struct Cli {
    /// Variables are called PREFIX_DATABASE_URL and PREFIX_REDIS_URL. A server whose variable is set is not
    /// started.
    #[arg(long, global = true, default_value = "SWITCHBOARD_TEST")]
    prefix: String,
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start the servers that do not run yet, and leave them running.
    Up {
        #[arg(long)]
        dir: PathBuf,
    },
    /// End the running servers; the data stay.
    Down {
        #[arg(long)]
        dir: PathBuf,
    },
    /// Print lines for `eval`; starts the servers that do not run yet.
    Env {
        #[arg(long)]
        dir: PathBuf,
    },
    /// Run a command and its child processes at another time: tomorrow, month-end, month-begin, leap-day,
    /// next-year, or at each of them. Needs libfaketime; without it, prints that and runs nothing.
    At {
        #[arg(value_name = "MOMENT|each")]
        moments: String,
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// Start the servers, run a command, end the servers. The exit code is the command's.
    Run {
        /// The data stay here; without it they are new and go with the command.
        #[arg(long)]
        dir: Option<PathBuf>,
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },
}

// One thread: servers started for a command live no longer than the thread that started them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Task::Up { dir } => up(&cli.prefix, &dir),
        Task::Down { dir } => down(&dir),
        Task::Env { dir } => env(&cli.prefix, &dir),
        Task::At { moments, command } => at(&moments, &command),
        Task::Run { dir, command } => run(&cli.prefix, dir.as_deref(), &command).await,
    };
    done.unwrap_or_else(|error| {
        eprintln!("services: {error}");
        ExitCode::FAILURE
    })
}

type Done = Result<ExitCode, Box<dyn Error>>;

/// The variables of the servers that are not set in the environment.
fn variables(prefix: &str, standing: &Standing) -> io::Result<Vec<(String, Up)>> {
    let (database, redis) = (format!("{prefix}_DATABASE_URL"), format!("{prefix}_REDIS_URL"));
    let mut started = Vec::new();
    if std::env::var_os(&database).is_none() {
        started.push((database, standing.postgres()?));
    }
    if std::env::var_os(&redis).is_none() {
        started.push((redis, standing.redis()?));
    }
    Ok(started)
}

fn up(prefix: &str, dir: &Path) -> Done {
    for (variable, up) in variables(prefix, &Standing::at(dir, Life::Own)?)? {
        let state = if up.ours { "started" } else { "runs already" };
        eprintln!("{variable}: {state}, 127.0.0.1:{}, pid {}", up.server.port, up.server.pid);
    }
    Ok(ExitCode::SUCCESS)
}

fn down(dir: &Path) -> Done {
    for name in Standing::at(dir, Life::Own)?.down()? {
        eprintln!("{name}: ended");
    }
    Ok(ExitCode::SUCCESS)
}

fn env(prefix: &str, dir: &Path) -> Done {
    for (variable, up) in variables(prefix, &Standing::at(dir, Life::Own)?)? {
        println!("export {variable}='{}'", up.url);
    }
    Ok(ExitCode::SUCCESS)
}

/// One date after the other, also after one at which the command failed.
fn at(moments: &str, command: &[String]) -> Done {
    let moments = match moments {
        "each" => Moment::ALL.to_vec(),
        name => vec![name.parse()?],
    };
    let mut failed = Vec::new();
    for moment in moments {
        let Some(variables) = faketime::variables(moment.offset_s()) else {
            eprintln!(
                "services: libfaketime is not installed, so nothing is run at another time; as root: apt-get install \
                 libfaketime"
            );
            return Ok(ExitCode::SUCCESS);
        };
        eprintln!("services: at {}", moment.name());
        let status = std::process::Command::new(&command[0])
            .args(&command[1..])
            .envs(variables)
            .status()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", command[0])))?;
        if !status.success() {
            failed.push(moment.name());
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(format!("the command failed at {}", failed.join(", ")).into())
}

async fn run(prefix: &str, dir: Option<&Path>, command: &[String]) -> Done {
    // Before anything is started: a Ctrl-C between two starts must not leave the first behind.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let temporary = match dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("switchboard-services-").tempdir()?.keep()),
    };
    let dir = dir.or(temporary.as_deref()).expect("one of the two is there");
    let standing = Standing::at(dir, Life::Ours)?;
    let started = variables(prefix, &standing);
    // Another process may find and use them now, or end them.
    drop(standing);

    // Give the runtime time to receive a Ctrl-C that came meanwhile.
    let interrupted = tokio::time::timeout(Duration::from_millis(1), interrupt.recv()).await.is_ok();
    let outcome = match &started {
        _ if interrupted => Err(io::ErrorKind::Interrupted.into()),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        Ok(started) => {
            let mut child = Command::new(&command[0])
                .args(&command[1..])
                .envs(started.iter().map(|(variable, up)| (variable, &up.url)))
                .spawn()
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", command[0])));
            match &mut child {
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                Ok(child) => loop {
                    tokio::select! {
                        status = child.wait() => break status,
                        // The terminal has sent the signal to the command too, which decides when it ends.
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => pass_on(child, "TERM").await,
                        _ = hangup.recv() => pass_on(child, "HUP").await,
                    }
                },
            }
        }
    };

    for (_, up) in started.into_iter().flatten().filter(|(_, up)| up.ours) {
        let mut server = up.server;
        if temporary.is_some() { server.end_at_once()? } else { server.end()? }
    }
    if temporary.is_some() {
        Standing::at(dir, Life::Ours)?.remove()?;
    }
    Ok(exit_code(outcome?))
}

async fn pass_on(child: &Child, name: &str) {
    if let Some(pid) = child.id() {
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -s \"$1\" \"$2\"", "sh", name]).arg(pid.to_string()).stderr(Stdio::null());
        // An error means that it has ended, which the caller is waiting for.
        let _ = kill.status().await;
    }
}

/// As a shell reports it: 128 and the number of the signal.
fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
