//! A node with all handlers and without connections: the transactions of its Postgres, the commands of its
//! Redis, and its processor time. The control is the target.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use switchboard_tests::services::Connection;

use crate::figures::{By, Figures, Row};
use crate::rig::Rig;
use crate::server::Server;

/// `warm_up` is the time until the node is idle. For 90 s after the start of an empty Redis, sweeps of
/// presence read one key more.
pub(crate) async fn rows(rig: &Rig, warm_up: Duration, time: Duration) -> Vec<Row> {
    rig.is("waiting for the node to be idle");
    tokio::time::sleep(warm_up).await;
    rig.is("counting what an idle node does");
    let mut counter = Counter::new(&rig.node()).await;
    let (before, meter, start) = (counter.read().await, rig.meter(), Instant::now());
    tokio::time::sleep(time).await;
    let (cpu, seconds) = (meter.read(), start.elapsed().as_secs_f64());
    let used = counter.read().await.since(&before);
    let row = |name: &str, count: f64, to_reach, target| Row {
        name: format!("idle node: {name} a second, CPU µs a second"),
        figures: Figures { per_second: Some(count / seconds), ..Figures::default() }.with_cpu(cpu, seconds),
        control_name: "the target".into(),
        control: Figures { per_second: Some(target), server_cpu_us: Some(3_000.0), ..Figures::default() },
        peers: None,
        by: By::PerSecond,
        to_reach,
    };
    vec![
        row("Postgres transactions", used.transactions, "≤ 3/s; CPU ≤ 0.3 %", 3.0),
        row("Redis commands", used.commands(), "≤ 10/s; CPU ≤ 0.3 %", 10.0),
    ]
}

/// Reads how much the node has asked of Postgres and Redis.
pub(crate) struct Counter {
    postgres: Connection,
    redis: MultiplexedConnection,
}

/// Transactions of Postgres, and commands of Redis by name, those within scripts too.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    pub transactions: f64,
    pub by_command: BTreeMap<String, f64>,
}

impl Counter {
    pub(crate) async fn new(server: &Server<'_>) -> Self {
        let client = redis::Client::open(server.rig.host.redis.url_at(None)).expect("a URL");
        let redis = client.get_multiplexed_async_connection().await.expect("Redis answers");
        Self { postgres: server.connect_database().await, redis }
    }

    pub(crate) async fn read(&mut self) -> Counts {
        let sum =
            "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()";
        let transactions: i64 = self.postgres.rows(sum).await[0].get(0);
        let mut info = redis::cmd("INFO");
        let text: String = info.arg("commandstats").query_async(&mut self.redis).await.expect("a text");
        Counts { transactions: transactions as f64, by_command: by_command(&text) }
    }
}

/// `cmdstat_get:calls=3,usec=…` in each line.
fn by_command(text: &str) -> BTreeMap<String, f64> {
    let calls = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    text.lines().filter_map(calls).collect()
}

impl Counts {
    /// The counts since an earlier read. The earlier read itself was a transaction and a command.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let own = |name: &str| if name == "info" { 1.0 } else { 0.0 };
        let before = |name: &str| earlier.by_command.get(name).copied().unwrap_or(0.0);
        let more = self.by_command.iter().map(|(name, count)| (name, count - before(name) - own(name)));
        Self {
            transactions: self.transactions - earlier.transactions - 1.0,
            by_command: more
                .filter(|(_, count)| *count > 0.0)
                .map(|(name, count)| (name.clone(), count))
                .collect(),
        }
    }

    /// All commands.
    pub(crate) fn commands(&self) -> f64 {
        self.by_command.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_between_two_reads() {
        let counts = |transactions: f64, text: &str| Counts { transactions, by_command: by_command(text) };
        let before =
            counts(10.0, "# Commandstats\r\ncmdstat_info:calls=4,usec=9\r\ncmdstat_get:calls=7,usec=1\r\n");
        let after = counts(
            21.0,
            "cmdstat_info:calls=5,usec=9\r\ncmdstat_get:calls=9,usec=1\r\ncmdstat_client|setinfo:calls=2,usec=1",
        );
        let expected = BTreeMap::from([("get".to_owned(), 2.0), ("client|setinfo".to_owned(), 2.0)]);
        assert_eq!(after.since(&before), Counts { transactions: 10.0, by_command: expected });
        assert_eq!(after.since(&before).commands(), 4.0);
    }
}
