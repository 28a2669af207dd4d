//! A node with all handlers and without connections: the transactions of its Postgres, the commands of its
//! Redis, and its processor time. The control is the target.

use std::time::{Duration, Instant};

use switchboard_tests::services::Connection;

use crate::figures::{By, Figures, Row};
use crate::process;
use crate::rig::Rig;

/// `warm_up` is the time until the node is idle. For 90 s after the start of an empty Redis, sweeps of
/// presence read one key more.
pub(crate) async fn rows(rig: &Rig, warm_up: Duration, time: Duration) -> Vec<Row> {
    rig.is("waiting for the node to be idle");
    tokio::time::sleep(warm_up).await;
    rig.is("counting what an idle node does");
    let connection = rig.host.database.connect().await;
    // Reading the count costs a connection of its own.
    let first = commands(rig).await;
    let before = commands(rig).await;
    let own = before - first;
    let transactions_before = transactions(&connection).await;
    let (cpu, start) = (process::cpu(rig.host.pid()), Instant::now());
    tokio::time::sleep(time).await;
    let (cpu, seconds) = (process::cpu(rig.host.pid()) - cpu, start.elapsed().as_secs_f64());
    // The measurement makes one transaction itself.
    let transactions = transactions(&connection).await - transactions_before - 1;
    let commands = commands(rig).await - before - own;
    let row = |name: &str, count: i64, to_reach, target| Row {
        name: format!("idle node: {name} a second, CPU µs a second"),
        figures: Figures {
            per_second: Some(count as f64 / seconds),
            server_cpu_us: Some(cpu.as_micros() as f64 / seconds),
            ..Figures::default()
        },
        control_name: "the target".into(),
        control: Figures { per_second: Some(target), server_cpu_us: Some(3_000.0), ..Figures::default() },
        by: By::PerSecond,
        to_reach,
    };
    vec![
        row("Postgres transactions", transactions, "≤ 3/s; CPU ≤ 0.3 %", 3.0),
        row("Redis commands", commands, "≤ 10/s; CPU ≤ 0.3 %", 10.0),
    ]
}

/// The transactions of the database so far.
async fn transactions(connection: &Connection) -> i64 {
    let sum = "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()";
    connection.rows(sum).await[0].get(0)
}

/// The commands that Redis has run so far.
async fn commands(rig: &Rig) -> i64 {
    let info = rig.host.redis.say(&["INFO", "stats"]).await;
    let count = info.lines().find_map(|line| line.trim().strip_prefix("total_commands_processed:"));
    count.and_then(|count| count.parse().ok()).unwrap_or_default()
}
