//! The control of rows that use Postgres: the same statements in pgbench.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::figures::{Figures, Latencies};
use crate::rig::Rig;

/// Runs one script with this many clients, for this time.
pub(crate) async fn run(rig: &Rig, clients: usize, time: Duration, script: &str) -> Figures {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("script.sql");
    fs::write(&file, script).expect("the script");
    // pgbench is a client; only the time of Postgres counts.
    let meter = rig.meter();
    let output = tokio::process::Command::from(command(rig, clients, time, &file))
        .current_dir(directory.path())
        .output()
        .await
        .expect("pgbench runs");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pgbench: {complaint}");
    let text = String::from_utf8_lossy(&output.stdout);
    let tps = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    let (cpu, latencies) = (meter.read(), logged(directory.path()));
    let postgres_cpu_us = cpu.postgres_us(latencies.count() as f64);
    Figures { per_second: tps, spread: latencies.spread(), postgres_cpu_us, ..Figures::default() }
}

/// Puts these values in the places of the statement's parameters, from `$1`, and removes its comments: they
/// name parameters too, and pgbench would send them.
pub(crate) fn filled(statement: &str, values: &[&str]) -> String {
    let lines = statement.lines().filter(|line| !line.trim_start().starts_with("--"));
    let statement = lines.collect::<Vec<_>>().join("\n").trim_end().trim_end_matches(';').to_owned();
    // From the last, so that `$1` is not taken for the beginning of `$14`.
    values
        .iter()
        .enumerate()
        .rev()
        .fold(statement, |statement, (place, value)| statement.replace(&format!("${}", place + 1), value))
}

fn command(rig: &Rig, clients: usize, time: Duration, file: &Path) -> Command {
    let mut command = Command::new("pgbench");
    command
        // The same as for the host's connections; otherwise the control is planned for empty tables.
        .env("PGOPTIONS", "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off")
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=2", "--log"])
        .arg(format!("--client={clients}"))
        .arg(format!("--time={}", time.as_secs()))
        .arg(format!("--file={}", file.display()))
        .arg(rig.host.database.url_at(None))
        .stdin(Stdio::null());
    command
}

/// The log of pgbench has the time of every transaction: client, number, microseconds, …
fn logged(directory: &Path) -> Latencies {
    let mut latencies = Latencies::default();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("pgbench_log") {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let times = text.lines().filter_map(|line| line.split(' ').nth(2)?.parse().ok());
            times.for_each(|us| latencies.add(Duration::from_micros(us)));
        }
    }
    latencies
}
