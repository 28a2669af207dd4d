//! A host under test: its own process, database, Redis and ports. A test can kill, drain and restart it.
//! After a successful test, the harness checks what the test left behind.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::panic::AssertUnwindSafe;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::admin::{ADMIN_TOKEN, Admin};
use crate::client::Client;
use crate::patience::{until, within};
use crate::rest::Rest;
use crate::services::{Database, Redis};
use crate::token::{JWT_SECRET, Token};
use crate::{paths, services};

/// Role passwords and the artifact cache depend on it, so all test hosts of a run share both.
pub const SECRET: &str = "secret-of-the-black-box-tests-0123456789abcdef";
/// Long enough for a first start, which compiles every handler, on a machine that is busy with other tests.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// The lines of the host's log that a failed test shows.
const LOG_TAIL_LINES: usize = 60;

/// Differences from the usual host.
#[derive(Clone, Default)]
pub struct Options {
    environment: Vec<(String, String)>,
    database_at: Option<SocketAddr>,
    redis_at: Option<SocketAddr>,
    log_is_unread: bool,
}

impl Options {
    /// Sets a variable, for instance `("CONNECTIONS_MAX", "3")`.
    pub fn set(mut self, setting: &str, value: impl ToString) -> Self {
        self.environment.push((format!("SWITCHBOARD_{setting}"), value.to_string()));
        self
    }

    /// Sets a variable that is not a setting of the host, for instance `SSL_CERT_FILE`.
    pub fn variable(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// A node whose clock has an offset of this many seconds. Its timers are right. None if libfaketime is
    /// not installed.
    pub fn with_clock(mut self, offset_s: i64) -> Option<Self> {
        let variables = switchboard_services::faketime::variables(offset_s)?;
        self.environment.extend(variables.into_iter().map(|(name, value)| (name.to_owned(), value)));
        Some(self)
    }

    /// For tests that send more than a person would: turns off the rate limits.
    pub fn without_rate_limits(self) -> Self {
        self.set("HANDLERS__SEND_MESSAGE__MESSAGES_PER_MINUTE", 100_000_000)
            .set("HANDLERS__CHANGE_MESSAGE__CHANGES_PER_MINUTE", 100_000_000)
            .set("HANDLERS__CONVERSATIONS__CONVERSATIONS_PER_MINUTE", 0)
            .set("HANDLERS__CONVERSATIONS__MEMBERS_PER_MINUTE", 0)
            .set("HANDLERS__PARTICIPANTS__INVITATIONS_PER_MINUTE", 0)
            .set("HANDLERS__PARTICIPANTS__INVITATIONS_PER_PERSON_PER_MINUTE", 0)
            .set("HANDLERS__CLASSES__CLASSES_PER_MINUTE", 0)
            .set("HANDLERS__CLASSES__CODES_PER_MINUTE", 0)
            .set("HANDLERS__CLASSES__INVITATIONS_PER_MINUTE", 0)
            .set("HANDLERS__CLASSES__INVITATIONS_PER_PERSON_PER_MINUTE", 0)
            .set("HANDLERS__SEARCH__SEARCHES_PER_MINUTE", 0)
            .set("FRAMES_PER_SECOND", 1_000_000)
            .set("FRAMES_BURST", 1_000_000)
    }

    /// Closes the reader of the log, so that every write of a line fails.
    pub fn without_reader_of_its_log(mut self) -> Self {
        self.log_is_unread = true;
        self
    }

    /// Connects to Postgres at another address, such as that of a proxy.
    pub fn database_at(mut self, address: SocketAddr) -> Self {
        self.database_at = Some(address);
        self
    }

    /// Connects to Redis at another address, such as that of a proxy.
    pub fn redis_at(mut self, address: SocketAddr) -> Self {
        self.redis_at = Some(address);
        self
    }
}

pub struct Host {
    pub address: SocketAddr,
    pub admin: Admin,
    pub database: Database,
    pub redis: Redis,
    admin_address: SocketAddr,
    options: Options,
    /// Directory of the working files and the log.
    directory: TempDir,
    process: Option<Child>,
}

impl Host {
    /// Runs a test against a new host, and checks afterwards that nothing is left behind. A failed test shows
    /// the end of the host's log.
    pub async fn test(options: Options, test: impl AsyncFnOnce(&mut Self)) {
        Self::test_over(services::database().await, Redis::start().await, options, test).await;
    }

    /// The same, with backends that the test has made itself.
    pub async fn test_over(
        database: Database,
        redis: Redis,
        options: Options,
        test: impl AsyncFnOnce(&mut Self),
    ) {
        let mut host = Self::over(database, redis, options).await;
        let outcome = AssertUnwindSafe(async {
            host.start().await;
            test(&mut host).await;
            host.check_the_world().await;
        })
        .catch_unwind()
        .await;
        if let Err(panic) = outcome {
            eprintln!("---- the host's log ends with:\n{}", host.log_tail());
            eprintln!("---- the outbox: {:?}", host.database.outbox_unread().await);
            eprintln!("---- deadlocks: {}", host.database.deadlocks().await);
            // Printed again, because a report that shows only the end would not contain it.
            eprintln!("---- it failed with: {}", text_of(&*panic));
            host.kill().await;
            std::panic::resume_unwind(panic);
        }
        host.database.drop_it().await;
    }

    /// Makes a host that is not running yet.
    pub async fn over(database: Database, redis: Redis, options: Options) -> Self {
        let (address, admin_address) = (free_address(), free_address());
        Self {
            address,
            admin: Admin::new(admin_address),
            database,
            redis,
            admin_address,
            options,
            directory: tempfile::tempdir().expect("a temporary directory"),
            process: None,
        }
    }

    /// Starts another node of the same fleet: the same database and Redis, its own ports.
    pub async fn another_node(&self) -> Self {
        self.another_node_with(self.options.clone()).await
    }

    /// The same, with other options.
    pub async fn another_node_with(&self, options: Options) -> Self {
        let mut node = Self::over(self.database.clone(), self.redis.shared(), options).await;
        node.start().await;
        node
    }

    /// Starts the process and waits until it is ready.
    pub async fn start(&mut self) {
        self.spawn();
        within(READY_WITHIN, "the host to be ready", async || {
            if let Some(status) = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten())
            {
                panic!("the host ended at start: {status}");
            }
            self.admin.ready().await.then_some(())
        })
        .await;
    }

    /// Starts the process without waiting.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        let mut command = Command::new(paths::switchboard());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SWITCHBOARD_")) {
            command.env_remove(name);
        }
        let database_url = self.database.url_at(self.options.database_at);
        let redis_url = self.redis.url_at(self.options.redis_at);
        command
            .arg("serve")
            .env("SWITCHBOARD_LISTEN", self.address.to_string())
            .env("SWITCHBOARD_ADMIN_LISTEN", self.admin_address.to_string())
            .env("SWITCHBOARD_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("SWITCHBOARD_DATABASE_URL", database_url)
            .env("SWITCHBOARD_REDIS_URL", redis_url)
            .env("SWITCHBOARD_SECRET", SECRET)
            .env("SWITCHBOARD_JWT_SECRET", JWT_SECRET)
            .env("SWITCHBOARD_HANDLERS_DIR", paths::handlers())
            .env("SWITCHBOARD_DATA_DIR", paths::target().join("tests-data"))
            .env("SWITCHBOARD_DRAIN_MS", "1000")
            .envs(self.options.environment.iter().cloned())
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .kill_on_drop(true);
        if self.options.log_is_unread {
            let (_, writer) = std::io::pipe().expect("a pipe");
            command.stderr(writer);
        }
        self.process = Some(command.spawn().expect("the host starts"));
    }

    /// Kills the process with SIGKILL.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await.expect("a process of ours can be killed");
        }
    }

    /// Sends SIGTERM, without waiting for the end.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Stops the process (SIGSTOP): nothing of it runs, and its connections stay open.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid();
        let sent =
            std::process::Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIG{signal} to {pid}");
    }

    /// Waits for the end of the process.
    pub async fn ended(&mut self) -> ExitStatus {
        let process = self.process.as_mut().expect("it was started");
        let status = tokio::time::timeout(Duration::from_secs(30), process.wait()).await;
        let status = status.expect("the host ends after SIGTERM").expect("its status");
        self.process = None;
        status
    }

    /// The address of the admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().and_then(Child::id).expect("it runs")
    }

    /// Runs the command line as an operator of this host. Returns its exit code and the printed document.
    pub async fn switchboard(&self, arguments: &[&str]) -> (i32, Value) {
        self.switchboard_with(&[], arguments).await
    }

    /// The same, with these variables.
    pub async fn switchboard_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> (i32, Value) {
        let mut command = Command::new(paths::switchboard());
        let output = command
            .args(arguments)
            .env("SWITCHBOARD_ADMIN_LISTEN", self.admin_address.to_string())
            .env("SWITCHBOARD_ADMIN_TOKEN", ADMIN_TOKEN)
            .envs(variables.iter().copied())
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .output()
            .await
            .expect("the command runs");
        let code = output.status.code().expect("it was not killed");
        (code, serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    /// The same, with these bytes on standard input. Returns the exit code, and everything that it printed.
    pub async fn switchboard_fed(
        &self,
        variables: &[(&str, &str)],
        input: &[u8],
        arguments: &[&str],
    ) -> (i32, String) {
        let mut child = Command::new(paths::switchboard())
            .args(arguments)
            .env("SWITCHBOARD_ADMIN_LISTEN", self.admin_address.to_string())
            .env("SWITCHBOARD_ADMIN_TOKEN", ADMIN_TOKEN)
            .envs(variables.iter().copied())
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the command runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        // It may end without reading everything.
        let _ = stdin.write_all(input).await;
        drop(stdin);
        let output = child.wait_with_output().await.expect("the command ends");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().expect("it was not killed"), String::from_utf8_lossy(&text).into_owned())
    }

    /// Returns its exit code, and everything that it printed.
    pub async fn switchboard_text(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new(paths::switchboard());
        let output =
            command.args(arguments).current_dir(self.directory.path()).stdin(Stdio::null()).output().await;
        let output = output.expect("the command runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().expect("it was not killed"), String::from_utf8_lossy(&text).into_owned())
    }

    /// Runs a command that needs no host.
    pub async fn switchboard_alone(arguments: &[&str]) {
        let output = Command::new(paths::switchboard()).args(arguments).output().await.expect("it runs");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "switchboard {arguments:?}: {}: {complaint}", output.status);
    }

    /// The full name in Redis of a key with this name for handlers.
    pub async fn redis_key(&self, name: &str) -> String {
        let rows = self.database.rows("select switchboard.redis_prefix()").await;
        format!("{}{name}", rows[0].get::<_, String>(0))
    }

    pub async fn client(&self, user: &str) -> Client {
        Client::sign_in(self.address, user).await
    }

    pub fn rest(&self, user: &str) -> Rest {
        Rest::new(self.address, Token::of(user).sign())
    }

    pub fn rest_with(&self, token: impl Into<Option<String>>) -> Rest {
        Rest::new(self.address, token)
    }

    /// Makes a group of these users; the first is the owner. Returns its id.
    pub async fn group(&self, name: &str, members: &[&str]) -> String {
        let (owner, others) = members.split_first().expect("an owner");
        let body = json!({"type": "group", "name": name, "members": others});
        let answer = self.rest(owner).post("/api/v1/conversations", body).await.expect(201);
        answer["conversation"]["id"].as_str().expect("an id").to_owned()
    }

    /// Creates a conversation of ana, its owner, and bo. Both clients are subscribed to it.
    pub async fn two_members(&self, name: &str) -> (Client, Client) {
        let conversation = self.group(name, &["ana", "bo"]).await;
        let (mut ana, mut bo) = (self.client("ana").await, self.client("bo").await);
        ana.enter(&conversation).await;
        bo.enter(&conversation).await;
        (ana, bo)
    }

    /// Runs a command of `switchboard` against this host. Returns its JSON answer.
    pub async fn command(&self, args: &[&str]) -> Value {
        let output = Command::new(paths::switchboard())
            .args(args)
            .arg("--admin")
            .arg(self.admin_address.to_string())
            .env("SWITCHBOARD_ADMIN_TOKEN", ADMIN_TOKEN)
            .current_dir(self.directory.path())
            .output()
            .await
            .expect("switchboard runs");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "switchboard {args:?}: {}: {complaint}", output.status);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("switchboard {args:?}: {error}"))
    }

    /// The digest of the current release of a handler.
    pub async fn current(&self, handler: &str) -> Value {
        let releases = self.admin.releases().await;
        let list = releases["releases"].as_array().cloned().unwrap_or_default();
        let current = list.iter().find(|r| r["handler"] == handler && r["current"] == true);
        current.unwrap_or_else(|| panic!("no current release of {handler}: {releases}"))["release"].clone()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The contents of the files in a directory that the host writes, sorted by name. Empty if there is none.
    pub fn files_of(&self, directory: &str) -> Vec<String> {
        let entries =
            std::fs::read_dir(self.directory.path().join(directory)).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    fn log_path(&self) -> std::path::PathBuf {
        self.directory.path().join("host.log")
    }

    /// Checks the state after a test: no connection, no open transaction, an outbox that every consumer has
    /// read, no panic in the log, and a process that ends on SIGTERM.
    async fn check_the_world(&mut self) {
        if self.process.is_none() {
            return;
        }
        until("all connections to be gone", async || {
            (self.admin.metric("switchboard_connections").await == Some(0.0)).then_some(())
        })
        .await;
        until("no transaction to be open", async || {
            (self.database.open_transactions().await == 0).then_some(())
        })
        .await;
        until("every consumer to have read the outbox", async || {
            self.database.outbox_unread().await.is_empty().then_some(())
        })
        .await;
        self.terminate();
        let status = self.ended().await;
        assert!(status.success(), "the host ended with {status} ({:?})", status.signal());
        let log = self.log();
        assert!(!log.contains("panicked"), "the host panicked:\n{log}");
        assert_eq!(self.database.deadlocks().await, 0, "statements waited for each other in a circle");
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text")
}

/// A free port, below those that the system gives to outgoing connections: a restarted server must find its
/// own port free.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const PORTS: u16 = 12_000;
    // Tests of several checkouts may run at the same time, so they begin at different ports.
    let begin = (std::process::id() % u32::from(PORTS)) as u16;
    for _ in 0..PORTS {
        let place = (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let address = SocketAddr::from(([127, 0, 0, 1], FIRST + place));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port");
}
