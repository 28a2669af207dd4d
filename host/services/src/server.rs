//! A server process, Postgres or Redis: its program, its user, and whether it runs. `standing` decides its
//! purpose and its lifetime.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Wait after a signal that asks for the end; then the server is killed.
const END_AT_ONCE: Duration = Duration::from_secs(10);
/// Far longer than a server takes on a loaded machine; only a broken one reaches it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Interval between two checks of a state that has no notification of changes.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Ports below those that the system gives to outgoing connections, so that a restarted server finds its own
/// free.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// The user of the servers when the test runs as root: Postgres refuses root, and neither server needs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
}

impl Account {
    /// `None` if we are not root; then servers run as our own user.
    pub fn of_service(name: &str) -> io::Result<Option<Self>> {
        if fs::metadata("/proc/self")?.uid() != 0 {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd")?;
        let found =
            accounts.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(
                |fields| match fields[..] {
                    [user, _, uid, gid, ..] if user == name => {
                        Some(Self { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
                    }
                    _ => None,
                },
            );
        match found {
            Some(account) => Ok(Some(account)),
            None => Err(io::Error::other(format!("there is no user `{name}` to run as instead of root"))),
        }
    }

    pub fn own(&self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
    }
}

/// How long a server lives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Life {
    /// Until a command ends it.
    Own,
    /// At most as long as the thread that starts it, however that ends.
    Ours,
}

/// One running server, identified by its pid and its start time, which no other process shares.
#[derive(Debug)]
pub struct Server {
    /// `postgres` or `redis`.
    name: &'static str,
    pub pid: u32,
    started: u64,
    pub port: u16,
    /// Kept to notice the end of a child process.
    child: Option<Child>,
}

impl Server {
    pub fn start(
        name: &'static str,
        program: &Path,
        arguments: &[String],
        account: Option<Account>,
        life: Life,
        port: u16,
        log: &Path,
    ) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = match life {
            Life::Own => Command::new(program),
            Life::Ours => {
                let mut command = Command::new("setpriv");
                command.arg("--pdeathsig").arg("INT");
                // A change of the user resets it, so setpriv sets both.
                if let Some(account) = account {
                    command.arg(format!("--reuid={}", account.uid)).arg(format!("--regid={}", account.gid));
                    command.arg("--clear-groups");
                }
                command.arg(program);
                command
            }
        };
        if let (Life::Own, Some(account)) = (life, account) {
            command.uid(account.uid).gid(account.gid);
        }
        let child = quiet(command.args(arguments), log)?.process_group(0).spawn()?;
        let pid = child.id();
        let (_, started) = state(pid).ok_or_else(|| io::Error::other("it ended at once"))?;
        Ok(Self { name, pid, started, port, child: Some(child) })
    }

    /// Reads a line that `remember` wrote. `None` if the server does not run any more.
    pub fn recall(name: &'static str, file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let mut words = text.split_whitespace();
        let server = Self {
            name,
            pid: words.next()?.parse().ok()?,
            started: words.next()?.parse().ok()?,
            port: words.next()?.parse().ok()?,
            child: None,
        };
        server.runs().then_some(server)
    }

    pub fn remember(&self, file: &Path) -> io::Result<()> {
        fs::write(file, format!("{} {} {}\n", self.pid, self.started, self.port))
    }

    pub fn runs(&self) -> bool {
        state(self.pid)
            .is_some_and(|(state, started)| started == self.started && state != 'Z' && state != 'X')
    }

    /// Ends it so that its data can be used again. Returns when it has ended.
    pub fn end(&mut self) -> io::Result<()> {
        // Postgres ends at TERM only when its last client has gone; at INT it closes their connections.
        let signal = if self.name == "postgres" { "INT" } else { "TERM" };
        self.end_by(signal, PATIENCE)
    }

    /// Ends it at once. Its data are not used again. A server that does not end at the signal is killed, and
    /// the reason is logged.
    pub fn end_at_once(&mut self) -> io::Result<()> {
        // Postgres writes no checkpoint at QUIT. Redis has no handler for QUIT: it ignores that signal where
        // its parent did, as in every command that a script runs in the background.
        let signal = if self.name == "postgres" { "QUIT" } else { "TERM" };
        self.end_by(signal, END_AT_ONCE).or_else(|error| {
            eprintln!("{error}; it is killed");
            self.end_by("KILL", PATIENCE)
        })
    }

    /// Ends it like a crash.
    pub fn kill(&mut self) -> io::Result<()> {
        self.end_by("KILL", PATIENCE)
    }

    fn end_by(&mut self, signal: &str, patience: Duration) -> io::Result<()> {
        if self.runs() {
            // Every shell has `kill`; the program of that name is not on every machine.
            let kill = "kill -s \"$1\" \"$2\"";
            let pid = self.pid.to_string();
            let sent =
                Command::new("sh").args(["-c", kill, "sh", signal, &pid]).stderr(Stdio::null()).status()?;
            let ended = wait_for(patience, || Ok((!self.runs()).then_some(())))?;
            if ended.is_none() {
                let Self { name, pid, port, .. } = self;
                let state = state(*pid).map_or('?', |(state, _)| state);
                return Err(io::Error::other(format!(
                    "{name} (pid {pid}, port {port}) has not ended {patience:?} after SIG{signal} ({sent}); its state \
                     is {state}"
                )));
            }
        }
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        Ok(())
    }
}

/// State and start time of a process.
fn state(pid: u32) -> Option<(char, u64)> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name is in parentheses and may contain anything.
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?))
}

/// A command that reads nothing, writes its output into the log, and runs outside of our directories.
pub fn quiet(command: &mut Command, log: File) -> io::Result<&mut Command> {
    let errors = log.try_clone()?;
    Ok(command.stdin(Stdio::null()).stdout(log).stderr(errors).current_dir("/"))
}

/// The newest Postgres of Debian, or the one on the path.
pub fn postgres_program(name: &str) -> io::Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|version| {
            Some((version.file_name().to_str()?.parse().ok()?, version.path().join("bin").join(name)))
        })
        .filter(|(_, path)| path.is_file())
        .collect();
    found.sort();
    match found.pop() {
        Some((_, path)) => Ok(path),
        None => program(name),
    }
}

pub fn program(name: &str) -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        io::Error::other(format!(
            "`{name}` is not installed; on Debian: apt-get install postgresql redis-server util-linux"
        ))
    })
}

pub fn free_port() -> io::Result<u16> {
    let ports = u32::from(PORTS.end - PORTS.start);
    // Several processes may search at the same time, so they begin at different ports.
    let begin = std::process::id().wrapping_mul(31) % ports;
    (0..ports)
        .map(|step| PORTS.start + ((begin + step) % ports) as u16)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| io::Error::other(format!("no free port in {PORTS:?}")))
}

/// Checks until there is an answer. An error of the probe ends the wait.
pub fn wait_until<T>(what: &str, probe: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    wait_for(PATIENCE, probe)?
        .ok_or_else(|| io::Error::other(format!("waited {PATIENCE:?} in vain for {what}")))
}

/// Checks until there is an answer, at most for this time. An error of the probe ends the wait.
fn wait_for<T>(
    patience: Duration,
    mut probe: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = probe()? {
            return Ok(Some(answer));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// The last lines of a log, for an error message.
pub fn tail(log: &Path) -> String {
    const LINES: usize = 8;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
