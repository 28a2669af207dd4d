//! Postgres and Redis for tests: private processes in temporary directories, which tests can kill and
//! restart. They end with the process that started them, however it ends.
//!
//! `SWITCHBOARD_TEST_DATABASE_URL` (a superuser's, for instance
//! `postgres://postgres@127.0.0.1:5432/postgres`) names a cluster to share instead of starting one; every
//! test has its own database in it. Redis is always private, because its channels are not separated by
//! database: two hosts on one would receive each other's messages.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use switchboard_services::server;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio_postgres::{NoTls, Row};

use crate::host::{SECRET, free_address};
use crate::paths;
use crate::patience::until;

/// A process that a small shell supervises: it ends when the pipe to it closes, which the system does when we
/// end.
pub(crate) struct Watched {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Watched {
    /// `signal` ends the process in the way that its data directory needs.
    pub(crate) fn start(program: &str, arguments: &[String], signal: &str, log: &Path) -> Self {
        const WATCH: &str = r#"
            signal=$1 log=$2; shift 2
            "$@" >>"$log" 2>&1 </dev/null & pid=$!
            read -r order; kill -${order:-$signal} $pid; wait $pid
        "#;
        let mut shell = Command::new("sh");
        shell.args(["-c", WATCH, "watch", signal]).arg(log);
        let mut shell = shell
            .args(as_service_user(program))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        let pipe = shell.stdin.take();
        Self { shell, pipe }
    }

    /// Sends this signal and waits for the end.
    pub(crate) fn end(&mut self, signal: &str) {
        if let Some(mut pipe) = self.pipe.take() {
            use std::io::Write;
            // An error means that it has ended already.
            let _ = pipe.write_all(format!("{signal}\n").as_bytes());
        }
        let _ = self.shell.wait();
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.shell.wait();
    }
}

/// Postgres and PgBouncer refuse to run as root.
pub(crate) fn as_service_user(program: &str) -> Vec<String> {
    let service = ["postgres", "initdb", "pg_basebackup", "pgbouncer"];
    let postgres = service.iter().any(|name| program.ends_with(name));
    if postgres && is_root() {
        let switch = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", program];
        switch.map(str::to_owned).to_vec()
    } else {
        vec![program.to_owned()]
    }
}

/// Lets the service user read and write what is in the directory.
pub(crate) fn own_as_service_user(directory: &Path) {
    if is_root() {
        let owner = Command::new("chown").args(["-R", "postgres"]).arg(directory).status();
        assert!(owner.is_ok_and(|status| status.success()), "chown to postgres");
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|myself| myself.uid() == 0)
}

/// A Postgres cluster: a private one, or the one of the variable.
pub struct Postgres {
    address: SocketAddr,
    user: String,
    password: Option<String>,
    ours: Option<parking_lot::Mutex<Cluster>>,
    template: OnceCell<String>,
}

struct Cluster {
    directory: TempDir,
    process: Option<Watched>,
}

/// The databases of the run: one cluster for all tests but those that break it.
pub async fn database() -> Database {
    static SHARED: OnceCell<Arc<Postgres>> = OnceCell::const_new();
    let shared = SHARED.get_or_init(async || match std::env::var("SWITCHBOARD_TEST_DATABASE_URL") {
        Ok(url) => Arc::new(Postgres::named(&url)),
        Err(_) => Postgres::start(&["fsync = off"]).await,
    });
    shared.await.database().await
}

impl Postgres {
    /// Starts a new cluster with these lines of settings beside the usual ones.
    pub async fn start(settings: &[&str]) -> Arc<Self> {
        let directory = tempfile::Builder::new().prefix("switchboard-postgres-").tempdir();
        let directory = directory.expect("a temporary directory");
        let data = directory.path().join("data");
        std::fs::create_dir(&data).expect("an empty directory");
        own_as_service_user(directory.path());
        let initdb = as_service_user(&binary("initdb"));
        let made = Command::new(&initdb[0])
            .args(&initdb[1..])
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"])
            .arg("--pgdata")
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let lines = settings.join("\n");
        let port = free_address().port();
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nmax_connections = 300\nunix_socket_directories = ''\n\
             shared_buffers = '256MB'\nmax_wal_size = '2GB'\n{lines}\n"
        );
        let file = data.join("postgresql.auto.conf");
        std::fs::write(file, settings).expect("the settings");
        let cluster = Cluster { directory, process: None };
        let postgres = Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            user: "postgres".into(),
            password: None,
            ours: Some(parking_lot::Mutex::new(cluster)),
            template: OnceCell::new(),
        };
        postgres.start_again().await;
        Arc::new(postgres)
    }

    /// Starts a streaming replica, which reaches this server at `primary`: a proxy's address, so that it can
    /// lag. It is asynchronous: nothing waits for it.
    pub async fn replica(&self, primary: SocketAddr) -> Arc<Self> {
        let directory = tempfile::Builder::new().prefix("switchboard-replica-").tempdir();
        let directory = directory.expect("a temporary directory");
        let data = directory.path().join("data");
        own_as_service_user(directory.path());
        let copy = as_service_user(&binary("pg_basebackup"));
        let (host, port) = (primary.ip().to_string(), primary.port().to_string());
        let copied = tokio::process::Command::new(&copy[0])
            .args(&copy[1..])
            .args(["--host", &host, "--port", &port, "--username", &self.user])
            .args(["--checkpoint=fast", "--write-recovery-conf", "--no-sync", "--pgdata"])
            .arg(&data)
            .current_dir(directory.path())
            .output()
            .await
            .expect("pg_basebackup runs");
        assert!(copied.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&copied.stderr));
        let port = free_address().port();
        let file = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.auto.conf"));
        // The last line of a setting wins.
        use std::io::Write;
        writeln!(file.expect("the copied settings"), "port = {port}").expect("the replica's port");
        let replica = Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            user: self.user.clone(),
            password: None,
            ours: Some(parking_lot::Mutex::new(Cluster { directory, process: None })),
            template: OnceCell::new(),
        };
        replica.start_again().await;
        Arc::new(replica)
    }

    /// Waits until this replica has everything that `primary` has written so far.
    pub async fn has_caught_up_with(&self, primary: &Self) {
        let (source, copy) = (primary.connect("postgres").await, self.connect("postgres").await);
        let lsn = source.rows("select pg_current_wal_lsn()::text").await[0].get::<_, String>(0);
        let reached = format!("select pg_last_wal_replay_lsn() >= '{lsn}'::pg_lsn");
        until("the replica to catch up", async || {
            copy.rows(&reached).await[0].get::<_, bool>(0).then_some(())
        })
        .await;
    }

    /// Makes this replica a primary, on a timeline of its own.
    pub async fn promote(&self) {
        let promoted = self.connect("postgres").await.rows("select pg_promote()").await;
        assert!(promoted[0].get::<_, bool>(0), "pg_promote");
    }

    fn named(url: &str) -> Self {
        let config: tokio_postgres::Config = url.parse().expect("SWITCHBOARD_TEST_DATABASE_URL is a URL");
        let host = match config.get_hosts() {
            [tokio_postgres::config::Host::Tcp(host), ..] => host.clone(),
            hosts => panic!("SWITCHBOARD_TEST_DATABASE_URL names no host: {hosts:?}"),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let address = std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), port));
        let address = address.ok().and_then(|mut found| found.find(SocketAddr::is_ipv4));
        Self {
            address: address.unwrap_or_else(|| panic!("{host} has no address")),
            user: config.get_user().unwrap_or("postgres").to_owned(),
            password: config.get_password().map(|text| String::from_utf8_lossy(text).into_owned()),
            ours: None,
            template: OnceCell::new(),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The first process of the cluster, the parent of all others.
    pub fn pid(&self) -> u32 {
        let file = self.cluster(|cluster| cluster.directory.path().join("data/postmaster.pid"));
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
        pid.unwrap_or_else(|| panic!("{}: no pid", file.display()))
    }

    /// Kills it like a crash: every connection is gone, and only data that COMMIT flushed is kept.
    pub fn kill(&self) {
        self.cluster(|cluster| {
            if let Some(mut process) = cluster.process.take() {
                process.end("QUIT");
            }
        });
    }

    /// The same data on the same port.
    pub async fn start_again(&self) {
        self.cluster(|cluster| {
            let data = cluster.directory.path().join("data");
            let arguments = ["-D".to_owned(), data.display().to_string()];
            let log = cluster.directory.path().join("log");
            cluster.process = Some(Watched::start(&binary("postgres"), &arguments, "INT", &log));
        });
        until("Postgres to accept connections", async || self.try_connect("postgres").await.ok()).await;
    }

    fn cluster<T>(&self, work: impl FnOnce(&mut Cluster) -> T) -> T {
        let cluster = self.ours.as_ref().expect("a cluster that was named to us is not ours to stop");
        work(&mut cluster.lock())
    }

    /// Makes a migrated database for one test.
    pub async fn database(self: &Arc<Self>) -> Database {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let template = self.template.get_or_init(|| self.make_template()).await;
        let name = format!("test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let connection = self.connect("postgres").await;
        // Postgres makes only one copy of a template at a time.
        connection.run("select pg_advisory_lock(7171)").await;
        connection.run(&format!("drop database if exists {name} with (force)")).await;
        connection.run(&format!("create database {name} template {template}")).await;
        // Privileges on the database itself are not copied with it.
        let privileges = format!(
            "update pg_database set datacl = (select datacl from pg_database where datname = '{template}') \
             where datname = '{name}'"
        );
        connection.run(&privileges).await;
        connection.run("select pg_advisory_unlock(7171)").await;
        Database { postgres: self.clone(), name }
    }

    /// The template: migrated once for each build of the host and change of the application's migrations, and
    /// found again by its name in a cluster that outlives a run.
    async fn make_template(&self) -> String {
        let changed = |path: &Path| {
            let at = std::fs::metadata(path).and_then(|file| file.modified()).ok()?;
            Some(at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis())
        };
        let files = std::fs::read_dir(paths::app_migrations()).expect("the application's migrations");
        let migrations = files.flatten().filter_map(|file| changed(&file.path())).max();
        let built = changed(&paths::switchboard());
        let name = format!("template_{:x}_{:x}", built.unwrap_or(0), migrations.unwrap_or(0));
        let connection = self.connect("postgres").await;
        connection.run("select pg_advisory_lock(7171)").await;
        let found = connection.rows(&format!("select 1 from pg_database where datname = '{name}'")).await;
        if found.is_empty() {
            let making = format!("{name}_making");
            connection.run(&format!("drop database if exists {making} with (force)")).await;
            connection.run(&format!("create database {making}")).await;
            let migrated = tokio::process::Command::new(paths::switchboard())
                .arg("migrate")
                .arg("--app")
                .arg(paths::app_migrations())
                .env("SWITCHBOARD_DATABASE_URL", self.url(&making, self.address))
                .env("SWITCHBOARD_SECRET", SECRET)
                .current_dir(std::env::temp_dir())
                .output()
                .await
                .expect("the host runs");
            let complaint = String::from_utf8_lossy(&migrated.stderr);
            assert!(migrated.status.success(), "switchboard migrate: {complaint}");
            connection.run(&format!("alter database {making} rename to {name}")).await;
        }
        connection.run("select pg_advisory_unlock(7171)").await;
        name
    }

    fn url(&self, database: &str, address: SocketAddr) -> String {
        let password = self.password.as_ref().map(|text| format!(":{text}")).unwrap_or_default();
        format!("postgres://{}{password}@{address}/{database}", self.user)
    }

    async fn connect(&self, database: &str) -> Connection {
        let connected = self.try_connect(database).await;
        connected.unwrap_or_else(|error| panic!("{database} at {}: {error}", self.address))
    }

    async fn try_connect(&self, database: &str) -> Result<Connection, tokio_postgres::Error> {
        let url = self.url(database, self.address);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        Ok(Connection { client })
    }
}

/// The path of a program of Postgres.
pub fn program(name: &str) -> String {
    binary(name)
}

fn binary(name: &str) -> String {
    let path = server::postgres_program(name).unwrap_or_else(|error| panic!("{error}"));
    path.display().to_string()
}

/// A superuser's connection.
pub struct Connection {
    client: tokio_postgres::Client,
}

impl Connection {
    pub async fn run(&self, statement: &str) {
        let done = self.client.batch_execute(statement).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }

    pub async fn rows(&self, statement: &str) -> Vec<Row> {
        let rows = self.client.query(statement, &[]).await;
        rows.unwrap_or_else(|error| panic!("{statement}: {error:?}"))
    }
}

/// One database of a cluster.
#[derive(Clone)]
pub struct Database {
    pub postgres: Arc<Postgres>,
    pub name: String,
}

impl Database {
    /// The URL for the host: direct, or through a proxy.
    pub fn url_at(&self, address: Option<SocketAddr>) -> String {
        self.postgres.url(&self.name, address.unwrap_or(self.postgres.address))
    }

    pub async fn connect(&self) -> Connection {
        self.postgres.connect(&self.name).await
    }

    /// Runs statements over a connection of their own.
    pub async fn run(&self, statements: &str) {
        self.connect().await.run(statements).await;
    }

    pub async fn rows(&self, statement: &str) -> Vec<Row> {
        self.connect().await.rows(statement).await
    }

    pub async fn open_transactions(&self) -> i64 {
        let connection = self.connect().await;
        let rows = connection
            .rows(
                "select count(*) from pg_stat_activity \
                 where datname = current_database() and state like 'idle in transaction%'",
            )
            .await;
        rows[0].get(0)
    }

    /// Number of deadlocks that Postgres resolved. Complete when the host has ended.
    pub async fn deadlocks(&self) -> i64 {
        let connection = self.connect().await;
        let statement = "select deadlocks from pg_stat_database where datname = current_database()";
        connection.rows(statement).await[0].get(0)
    }

    /// The remaining work of the outbox's consumers, one line each; empty if nothing is left and nothing was
    /// parked.
    pub async fn outbox_unread(&self) -> Vec<String> {
        let connection = self.connect().await;
        let rows = connection
            .rows(
                "select format('%s has not read shard %s: its cursor is at %s with the holes %s, the newest event \
                                is %s', consumer, shard, high, holes, head) \
                 from (select shard, max(position) as head from switchboard.outbox group by shard) as heads \
                 cross join (select distinct consumer from switchboard.cursors \
                             where consumer <> all (switchboard.consumers_gone())) as consumers \
                 left join switchboard.cursors using (consumer, shard) \
                 where coalesce(high, 0) < head or holes <> '[]' \
                 union all \
                 select format('%s is to retry %s %s', consumer, event_type, id) from switchboard.retries \
                 union all \
                 select format('%s has parked %s %s: %s', consumer, event_type, id, error) from switchboard.parked",
            )
            .await;
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Drops it: the test is over, and no other test uses it.
    pub async fn drop_it(self) {
        let connection = self.postgres.connect("postgres").await;
        connection.run(&format!("drop database if exists {} with (force)", self.name)).await;
    }
}

/// A private Redis that keeps nothing when it ends.
pub struct Redis {
    port: u16,
    directory: Arc<TempDir>,
    process: Option<Watched>,
}

impl Redis {
    pub async fn start() -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let mut redis = Self { port: free_address().port(), directory, process: None };
        redis.start_again().await;
        redis
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// A handle of the same server for another host; only the first handle starts and kills it.
    pub fn shared(&self) -> Self {
        Self { port: self.port, directory: self.directory.clone(), process: None }
    }

    /// The URL for the host: direct, or through a proxy.
    pub fn url_at(&self, address: Option<SocketAddr>) -> String {
        format!("redis://{}", address.unwrap_or(self.address()))
    }

    /// Sends one command over a connection of its own.
    pub async fn say(&self, words: &[&str]) -> String {
        let client = redis::Client::open(self.url_at(None)).expect("an address");
        let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(word);
        });
        command.query_async(&mut connection).await.expect("a text")
    }

    /// `kill -9`; everything in it is lost.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end("KILL");
        }
    }

    /// Restarts it, empty, on the same port.
    pub async fn start_again(&mut self) {
        let arguments = [
            ["--port", &self.port.to_string()],
            ["--bind", "127.0.0.1"],
            ["--save", ""],
            ["--appendonly", "no"],
            ["--dir", &self.directory.path().display().to_string()],
        ];
        let arguments: Vec<_> = arguments.concat().into_iter().map(str::to_owned).collect();
        let log = self.directory.path().join("log");
        self.process = Some(Watched::start("redis-server", &arguments, "TERM", &log));
        until("Redis to answer", async || {
            let client = redis::Client::open(self.url_at(None)).ok()?;
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            redis::cmd("PING").query_async::<String>(&mut connection).await.ok()
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_restarted_redis_is_empty() {
        let mut redis = Redis::start().await;
        let client = redis::Client::open(redis.url_at(None)).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let () = redis::cmd("SET").arg("k").arg("v").query_async(&mut connection).await.unwrap();
        redis.kill();
        assert!(client.get_multiplexed_async_connection().await.is_err());
        redis.start_again().await;
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let value: Option<String> = redis::cmd("GET").arg("k").query_async(&mut connection).await.unwrap();
        assert_eq!(value, None);
    }

    #[tokio::test]
    async fn a_restarted_postgres_has_its_data() {
        let postgres = Postgres::start(&[]).await;
        let connection = postgres.connect("postgres").await;
        connection.run("create table kept (n int); insert into kept values (1)").await;
        postgres.kill();
        assert!(postgres.try_connect("postgres").await.is_err());
        postgres.start_again().await;
        assert_eq!(postgres.connect("postgres").await.rows("select n from kept").await.len(), 1);
    }
}
