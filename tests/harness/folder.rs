//! A new folder outside of this repository, in which a test runs commands like an author of handlers: with
//! the command line in the path, and with nothing of this test run.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use switchboard_services::server::Life;
use switchboard_services::standing::Standing;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::paths;
use crate::patience::within;

/// The first start makes a Postgres cluster, on a machine that is busy with other tests.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// When it is dropped, the servers that a command left in it are removed, and a temporary folder too.
pub struct Folder {
    directory: PathBuf,
    environment: Vec<(&'static str, OsString)>,
    _temporary: Option<TempDir>,
}

impl Folder {
    /// An empty folder.
    pub fn new() -> Self {
        let temporary = tempfile::Builder::new().prefix("switchboard-folder-").tempdir();
        let temporary = temporary.expect("a temporary directory");
        Self { directory: temporary.path().to_owned(), environment: Vec::new(), _temporary: Some(temporary) }
    }

    /// A folder that is empty but for cargo's output of earlier runs. It has the same path in every run,
    /// because cargo uses that output only then. It is in the target directory, whose workspace does not know
    /// it.
    pub fn with_kept_target(name: &str) -> Self {
        let directory = paths::target().join("tests-data").join(name);
        fs::create_dir_all(&directory).expect("a directory");
        for entry in fs::read_dir(&directory).expect("a directory").flatten() {
            match entry.path() {
                path if path.ends_with("target") => {}
                path if path.is_dir() => fs::remove_dir_all(path).expect("a directory of an earlier run"),
                path => fs::remove_file(path).expect("a file of an earlier run"),
            }
        }
        let target = directory.join("target");
        Self { directory, environment: Vec::new(), _temporary: None }.with("CARGO_TARGET_DIR", target)
    }

    /// Sets a variable for all commands.
    pub fn with(mut self, variable: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((variable, value.into()));
        self
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.directory.join(inside)
    }

    pub fn write(&self, inside: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().expect("a file has a directory")).expect("a directory");
        fs::write(path, contents).expect("a file");
    }

    /// Runs a script. Returns everything that it printed.
    ///
    /// # Panics
    /// If it fails.
    pub async fn run(&self, script: &str) -> String {
        let (status, text) = self.ended(script).await;
        assert!(status.success(), "{script}: {status}\n{text}");
        text
    }

    /// The same for a script that must fail.
    pub async fn refuses(&self, script: &str) -> String {
        let (status, text) = self.ended(script).await;
        assert!(!status.success(), "{script} did not fail\n{text}");
        text
    }

    /// Returns the end of a script, and everything that it printed.
    pub async fn ended(&self, script: &str) -> (ExitStatus, String) {
        let mut bash = self.command("bash");
        let Output { status, stdout, stderr } =
            bash.args(["-euo", "pipefail", "-c", script]).output().await.expect("bash runs");
        (status, String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let own = paths::switchboard().parent().expect("a directory").display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let is_ours = name.to_str().is_some_and(|name| name.starts_with("SWITCHBOARD_"));
            // It is part of the toolchain of this machine.
            if is_ours && name != "SWITCHBOARD_WASM_ROUTE" {
                command.env_remove(name);
            }
        }
        command
            .env("PATH", format!("{own}:{path}"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Starts `switchboard dev`, and waits until it has printed its last line.
    pub async fn dev(&self, listen: SocketAddr, admin: SocketAddr) -> Dev {
        let log = self.path("dev.log");
        let file = File::create(&log).expect("a log file");
        let mut command = self.command(paths::switchboard());
        let process = command
            .arg("dev")
            .args(["--listen", &listen.to_string(), "--admin-listen", &admin.to_string()])
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .expect("it starts");
        let mut dev = Dev { process, log };
        dev.prints("switchboard status").await;
        dev
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for directory in [".switchboard/test-services", ".switchboard"].map(|inside| self.path(inside)) {
            if directory.is_dir() {
                // Data of servers are outside of the folder if the test runs as root.
                let _ = Standing::at(&directory, Life::Ours).and_then(Standing::remove);
            }
        }
    }
}

/// A running `switchboard dev`.
pub struct Dev {
    process: Child,
    log: PathBuf,
}

impl Dev {
    /// Waits until it has printed a text. Returns everything that it has printed.
    pub async fn prints(&mut self, text: &str) -> String {
        within(READY_WITHIN, format_args!("`switchboard dev` to print {text:?}"), async || {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            if let Ok(Some(status)) = self.process.try_wait() {
                panic!("`switchboard dev` ended: {status}\n{log}");
            }
            log.contains(text).then_some(log)
        })
        .await
    }

    /// Ends it as Ctrl-C does.
    pub async fn interrupt(mut self) -> ExitStatus {
        let pid = self.process.id().expect("it runs").to_string();
        let sent = std::process::Command::new("kill").args(["-INT", &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIGINT to {pid}");
        let ended = tokio::time::timeout(READY_WITHIN, self.process.wait()).await;
        ended.expect("it ends after SIGINT").expect("its status")
    }
}

/// The process of a private server of `switchboard dev`, as its record in this directory names it.
pub fn server_runs(directory: &Path, name: &str) -> bool {
    let record = fs::read_to_string(directory.join(format!("{name}.pid"))).expect("a record of the server");
    let pid = record.split_whitespace().next().expect("a pid");
    Path::new("/proc").join(pid).exists()
}
