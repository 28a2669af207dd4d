//! The load generator: every row of this version, each beside its control, and with `--peers` beside Bun and
//! ws, in one run on one machine. It is a process of its own, bounded in count and time, on the loopback
//! only. It prints times and asserts none.

mod delivery;
mod fanout;
mod figures;
mod idle;
mod idle_node;
mod joins;
mod low_load;
mod native;
mod notifications;
mod outbox;
mod overhead;
mod peers;
mod pgbench;
mod platform;
mod plot;
mod presence;
mod process;
mod program;
mod reads;
mod rig;
mod sends;
mod server;
mod swaps;

use std::future::Future;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use figures::{Conditions, Row};
use peers::Kind;
use rig::Rig;
use switchboard_tests::paths;

/// Open files of this process, and of the host, which inherits the bound: ten thousand sockets, the ones
/// before, and the steady stream after them.
const DESCRIPTORS: u64 = 20_000;
/// The node and each peer are measured this often in turn; the figures are the medians.
const ROUNDS: usize = 3;
/// Maximum time of a row. The longest row takes a third of it.
const ROW_MAX: Duration = Duration::from_secs(900);

#[derive(Parser)]
#[command(about = "Measures a host of its own beside native controls and peers")]
struct Cli {
    /// Under three minutes: shorter and fewer rows, enough to see that they still run.
    #[arg(long)]
    quick: bool,
    /// Postgres waits for the disk at every COMMIT.
    #[arg(long)]
    flush: bool,
    /// Also measures Bun and ws, which npm installs under target/, or only one of them. A COMMIT then waits
    /// for the disk.
    #[arg(
        long,
        value_enum,
        value_name = "PEER",
        num_args = 0..,
        require_equals = true,
        value_delimiter = ',',
        default_missing_values = ["bun", "ws"]
    )]
    peers: Option<Vec<Kind>>,
    /// Only groups of rows whose name contains one of these words, separated by commas.
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    only: Vec<String>,
    #[command(subcommand)]
    command: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// Only the controls: the figures of this machine without the host.
    Controls,
    /// The native control, which the load starts.
    #[command(hide = true)]
    Native,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("the system has threads and a poller");
    let ended = runtime.block_on(async {
        match &cli.command {
            Some(Part::Native) => native::run().await,
            Some(Part::Controls) => {
                controls().await;
                Ok(())
            }
            None => run(&cli).await,
        }
    });
    // Do not wait for it: a blocked thread is the reason for the end of the run.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> std::io::Result<()> {
    let (quick, flush) = (cli.quick, cli.flush || cli.peers.is_some());
    let wanted = |name: &str| cli.only.is_empty() || cli.only.iter().any(|word| name.contains(word));
    // Left out of a quick run unless it is named; otherwise a quick run would take longer than three minutes.
    let long = |name: &str| wanted(name) && (!quick || !cli.only.is_empty());
    let seconds = |quick_s: u64, full_s: u64| Duration::from_secs(if quick { quick_s } else { full_s });
    let profile = paths::profile_name();
    let disk = if flush { "waits for the disk" } else { "does not wait for the disk (--flush)" };
    println!("{profile} profile; a COMMIT {disk}, for the host, for pgbench and for the peers");
    let peers = cli.peers.clone().unwrap_or_default();
    if peers.is_empty() {
        println!("Bun and ws are not measured: --peers installs them with npm and measures them too");
    } else {
        peers::install().await?;
    }
    process::raise_descriptors(DESCRIPTORS);
    let rounds = if quick { 1 } else { ROUNDS };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let conditions = Conditions { profile, quick, flush, rounds, cores };
    let rig = Rig::start(flush, &peers, rounds).await;
    // A part of the table does not replace another part.
    let parts = cli.only.iter().map(|word| format!("-{}", word.replace(|c: char| !c.is_alphanumeric(), "-")));
    let name = format!("{}{}", if quick { "quick" } else { "full" }, parts.collect::<String>());
    let file = paths::target().join("bench").join(name);
    let mut run = Run { rig: &rig, conditions, file: &file, rows: Vec::new() };
    figures::print_header();
    if wanted("overhead") {
        run.keep("overhead", async { Ok(overhead::row().into_iter().collect()) }).await?;
    }
    if wanted("platform") {
        run.keep("platform", async { Ok(platform::rows(if quick { 200 } else { 2_000 }).await) }).await?;
    }
    if wanted("idle node") {
        run.keep("idle node", async { Ok(idle_node::rows(&rig, seconds(5, 100), seconds(8, 45)).await) })
            .await?;
    }
    let size = if quick { idle::Size::QUICK } else { idle::Size::FULL };
    // Memory first: allocations of later rows would hide it.
    if wanted("connections") {
        run.keep("connections", idle::rows(&rig, size)).await?;
    }
    if wanted("handshakes") {
        run.keep("handshakes", idle::handshakes(&rig, size)).await?;
        run.keep("handshakes: requests", idle::requests(&rig, size)).await?;
    }
    if wanted("sends") {
        run.keep("sends", sends::rows(&rig, seconds(2, 4))).await?;
    }
    if wanted("pipelined") {
        let time = seconds(2, 3);
        run.keep("pipelined", fanout::rows(&rig, fanout::From::One, &[200], time)).await?;
    }
    if wanted("low load") {
        run.keep("low load", low_load::rows(&rig, seconds(3, 5))).await?;
    }
    if long("requests of low load") {
        run.keep("requests of low load", low_load::requests(&rig, seconds(4, 15))).await?;
    }
    if wanted("joins") {
        run.keep("joins", joins::rows(&rig, if quick { 200 } else { 3_000 })).await?;
    }
    if wanted("held") {
        run.keep("held", async { Ok(vec![sends::held(&rig, seconds(5, 60)).await?]) }).await?;
    }
    if wanted("swaps") {
        let (sockets, count) = if quick { (400, 100) } else { (2_000, 1_000) };
        let size = swaps::Size { sockets, swaps: count, time: seconds(5, 20) };
        run.keep("swaps", swaps::rows(&rig, &size)).await?;
    }
    if long("settings") {
        let (sockets, count) = if quick { (400, 100) } else { (2_000, 1_000) };
        let size = swaps::Size { sockets, swaps: count, time: seconds(5, 20) };
        run.keep("settings", swaps::settings(&rig, &size)).await?;
    }
    // This row takes minutes and measures memory alone, so it runs only by its name.
    if cli.only == ["ten thousand swaps"] {
        swaps::many(&rig, if quick { 1_000 } else { 10_000 }).await;
    }
    if wanted("fan-out") {
        let time = seconds(2, 5);
        run.keep("fan-out", fanout::rows(&rig, fanout::From::Many, &[200, 1000], time)).await?;
    }
    if long("history") || long("search") || long("lists") {
        // A million messages take a minute to make; a quick run of this row alone has fewer.
        let size = if quick { reads::Size::SMALL } else { reads::Size::FULL };
        run.keep("history, search, lists", async {
            Ok(reads::rows(&rig, size, seconds(4, 20), wanted).await)
        })
        .await?;
    }
    if long("presence") {
        run.keep("presence", async { Ok(presence::rows(&rig, if quick { 2_000 } else { 10_000 }).await) })
            .await?;
    }
    if wanted("delivery") {
        run.keep("delivery", delivery::rows(&rig, if quick { 200 } else { 500 }, seconds(5, 10))).await?;
    }
    if long("notification") {
        run.keep("notification", notifications::rows(&rig, 200, seconds(8, 30))).await?;
    }
    if long("outbox") {
        run.keep("outbox", async { Ok(outbox::rows(&rig, if quick { 20_000 } else { 100_000 }).await) })
            .await?;
    }
    println!("\nwritten to {}.json and .svg", file.display());
    Ok(())
}

/// The rows so far.
struct Run<'a> {
    rig: &'a Rig,
    conditions: Conditions,
    /// Without the ending.
    file: &'a Path,
    rows: Vec<Row>,
}

impl Run<'_> {
    /// The measured row, or an error with the reason: a wrong history, a peer that ended, or a wait that
    /// did not end.
    async fn keep(
        &mut self,
        name: &str,
        rows: impl Future<Output = std::io::Result<Vec<Row>>>,
    ) -> std::io::Result<()> {
        self.rig.is("it began");
        let begin = Instant::now();
        let rows = tokio::time::timeout(ROW_MAX, rows).await.map_err(|_| {
            let doing = self.rig.doing();
            std::io::Error::other(format!("`{name}` is not done after {ROW_MAX:?}; where it stood: {doing}"))
        })??;
        rows.iter().for_each(Row::print);
        println!("  `{name}` took {:.0} s", begin.elapsed().as_secs_f64());
        self.rows.extend(rows);
        // After each group, so that a later one that fails does not lose it.
        figures::write(&self.file.with_extension("json"), &self.conditions, &self.rows)?;
        plot::write(&self.file.with_extension("svg"), &self.conditions, &self.rows)
    }
}

async fn controls() {
    let time = Duration::from_secs(3);
    figures::print_header();
    let [rate, stream] = idle::native(idle::Size::QUICK).await;
    figures::print_line("handshakes", &rate, "", "");
    figures::print_line("handshakes, a steady stream", &stream, "", "");
    for (size, in_flight) in [(200, 4), (200, 64), (1000, 4), (1000, 64)] {
        let figures = fanout::native(fanout::From::Many, size, in_flight, fanout::FRAME_BYTES, time).await;
        figures::print_line(&format!("fan-out: room of {size}, {in_flight} in flight"), &figures, "", "");
    }
    figures::print_line(
        "raw Redis publish, 200/s",
        &delivery::redis(200, delivery::ROOM, time).await,
        "",
        "",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_peers_and_words_is_optional() {
        let parsed = |arguments: &[&str]| Cli::parse_from([&["load"], arguments].concat());
        assert_eq!(parsed(&["--quick"]).peers, None);
        assert_eq!(parsed(&["--peers", "--quick"]).peers, Some(vec![Kind::Bun, Kind::Ws]));
        assert_eq!(parsed(&["--peers=bun"]).peers, Some(vec![Kind::Bun]));
        assert_eq!(parsed(&["--only", "sends,low load"]).only, ["sends", "low load"]);
    }
}
