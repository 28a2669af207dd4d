//! A Redis with a replica, watched by three sentinels: real processes on private ports, which end with the
//! test.

use std::path::Path;

use tempfile::TempDir;

use crate::host::free_address;
use crate::patience::{PATIENCE, within};
use crate::services::Watched;

/// The name of the service at the sentinels.
const SERVICE: &str = "main";

pub struct Sentinels {
    directory: TempDir,
    servers: [Server; 2],
    sentinels: Vec<Server>,
}

struct Server {
    port: u16,
    process: Option<Watched>,
}

impl Sentinels {
    /// Waits until every sentinel knows the replica and the other sentinels.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [primary, replica] = [free_address().port(), free_address().port()];
        let of_replica = ["--replicaof".to_owned(), "127.0.0.1".to_owned(), primary.to_string()];
        let servers = [
            Server::redis(directory.path(), primary, &[]),
            Server::redis(directory.path(), replica, &of_replica),
        ];
        let sentinels = (0..3).map(|_| Server::sentinel(directory.path(), free_address().port(), primary));
        let started = Self { sentinels: sentinels.collect(), servers, directory };
        for sentinel in &started.sentinels {
            within(PATIENCE * 2, "the sentinels to know each other", async || {
                let known = ask(sentinel.port, &["SENTINEL", "MASTER", SERVICE]).await?;
                let known: Vec<String> = redis::from_redis_value(known).ok()?;
                let count = |name: &str| known.iter().skip_while(|word| *word != name).nth(1).cloned();
                let is_whole = count("num-slaves")? == "1" && count("num-other-sentinels")? == "2";
                is_whole.then_some(())
            })
            .await;
        }
        started
    }

    pub fn url(&self) -> String {
        let sentinels: Vec<_> = self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port)).collect();
        format!("redis-sentinel://{}/{SERVICE}", sentinels.join(","))
    }

    /// For a node that asks only the last sentinel. `fail_over` asks the first.
    pub fn url_of_last(&self) -> String {
        format!("redis-sentinel://127.0.0.1:{}/{SERVICE}", self.last().port)
    }

    /// Stops the last sentinel, or lets it continue. The others are enough for a failover.
    pub fn pause_last(&self, is_paused: bool) {
        let port = self.last().port;
        let pid = std::fs::read_to_string(self.directory.path().join(port.to_string()).join("pid"));
        let pid = pid.expect("a sentinel writes its pid").trim().to_owned();
        let signal = if is_paused { "-STOP" } else { "-CONT" };
        let sent = std::process::Command::new("kill").args([signal, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    fn last(&self) -> &Server {
        self.sentinels.last().expect("three sentinels")
    }

    /// The address of the primary from the sentinels.
    pub async fn primary(&self) -> Option<u16> {
        let asked = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE];
        let (_, port): (String, u16) =
            redis::from_redis_value(ask(self.sentinels[0].port, &asked).await?).ok()?;
        Some(port)
    }

    /// `kill -9`, and wait for the other to be the primary.
    pub async fn kill_primary(&mut self) {
        let was = self.primary().await.expect("a primary");
        let server = self.servers.iter_mut().find(|server| server.port == was).expect("one of ours");
        server.process.take().expect("it runs").end("KILL");
        self.moved_from(was).await;
    }

    /// Restarts it at its address; the sentinels make a replica of it.
    pub async fn start_killed(&mut self) {
        let directory = self.directory.path();
        let server = self.servers.iter_mut().find(|server| server.process.is_none()).expect("one was killed");
        *server = Server::redis(directory, server.port, &[]);
        let port = server.port;
        within(PATIENCE * 2, "the old primary to be a replica that is whole", async || {
            let info = ask(port, &["INFO", "replication"]).await?;
            let info: String = redis::from_redis_value(info).ok()?;
            (info.contains("role:slave") && info.contains("master_link_status:up")).then_some(())
        })
        .await;
    }

    /// Demotes the primary, which keeps running: connections to it stay open.
    pub async fn fail_over(&mut self) {
        let was = self.primary().await.expect("a primary");
        within(PATIENCE, "the sentinels to agree to a failover", async || {
            ask(self.sentinels[0].port, &["SENTINEL", "FAILOVER", SERVICE]).await.map(drop)
        })
        .await;
        self.moved_from(was).await;
    }

    async fn moved_from(&self, was: u16) {
        within(PATIENCE * 2, "the other to be the primary", async || {
            (self.primary().await? != was).then_some(())
        })
        .await;
    }
}

impl Server {
    fn redis(directory: &Path, port: u16, more: &[String]) -> Self {
        let own = directory.join(port.to_string());
        std::fs::create_dir_all(&own).expect("a directory");
        let mut arguments: Vec<String> = [
            ["--port", &port.to_string()],
            ["--bind", "127.0.0.1"],
            ["--save", ""],
            ["--appendonly", "no"],
            ["--repl-diskless-sync-delay", "0"],
            ["--dir", &own.display().to_string()],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
        arguments.extend_from_slice(more);
        Self { port, process: Some(Watched::start("redis-server", &arguments, "TERM", &own.join("log"))) }
    }

    fn sentinel(directory: &Path, port: u16, primary: u16) -> Self {
        let own = directory.join(port.to_string());
        std::fs::create_dir_all(&own).expect("a directory");
        // A file of its own, because a sentinel writes into it.
        let file = own.join("sentinel.conf");
        let settings = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\npidfile {}\n\
             sentinel monitor {SERVICE} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {SERVICE} 1000\nsentinel failover-timeout {SERVICE} 3000\n\
             sentinel parallel-syncs {SERVICE} 1\n",
            own.display(),
            own.join("pid").display()
        );
        std::fs::write(&file, settings).expect("a file");
        let arguments = [file.display().to_string(), "--sentinel".to_owned()];
        Self { port, process: Some(Watched::start("redis-server", &arguments, "TERM", &own.join("log"))) }
    }
}

async fn ask(port: u16, words: &[&str]) -> Option<redis::Value> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).ok()?;
    let mut connection = client.get_multiplexed_async_connection().await.ok()?;
    let mut command = redis::Cmd::new();
    words.iter().for_each(|word| {
        command.arg(word);
    });
    command.query_async(&mut connection).await.ok()
}
