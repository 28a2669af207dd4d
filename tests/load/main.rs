//! The load generator: every row of this version, each beside its control, in one run on one machine. It is a
//! process of its own, bounded in count and time, on the loopback only. It prints times and asserts none.

mod delivery;
mod fanout;
mod figures;
mod idle;
mod idle_node;
mod native;
mod notifications;
mod outbox;
mod overhead;
mod pgbench;
mod plot;
mod presence;
mod process;
mod reads;
mod rig;
mod sends;
mod swaps;

use std::future::Future;
use std::time::Duration;

use clap::{Parser, Subcommand};
use figures::Row;
use rig::Rig;
use switchboard_tests::checker::Wrong;
use switchboard_tests::paths;

/// Open files of this process, and of the host, which inherits the bound: ten thousand sockets, the ones
/// before, and the steady stream after them.
const DESCRIPTORS: u64 = 20_000;
/// Maximum time of a row. The longest row takes a third of it.
const ROW_MAX: Duration = Duration::from_secs(900);

#[derive(Parser)]
#[command(about = "Measures a host of its own beside native controls")]
struct Cli {
    /// Under three minutes: shorter and fewer rows, enough to see that they still run.
    #[arg(long)]
    quick: bool,
    /// Postgres waits for the disk at every COMMIT.
    #[arg(long)]
    flush: bool,
    /// Only rows whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
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

fn main() -> std::io::Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
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
    ended
}

async fn run(cli: &Cli) -> std::io::Result<()> {
    let quick = cli.quick;
    let wanted = |name: &str| name.contains(&cli.only);
    // Left out of a quick run unless it is named; otherwise a quick run would take longer than three minutes.
    let long = |name: &str| wanted(name) && (!quick || !cli.only.is_empty());
    let seconds = |quick_s: u64, full_s: u64| Duration::from_secs(if quick { quick_s } else { full_s });
    let profile = paths::profile_name();
    let disk = if cli.flush { "waits for the disk" } else { "does not wait for the disk (--flush)" };
    println!("{profile} profile; a COMMIT {disk}, for the host and for pgbench");
    process::raise_descriptors(DESCRIPTORS);
    let rig = Rig::start(cli.flush).await;
    let mut run = Run { rig: &rig, rows: Vec::new() };
    figures::print_header();
    if wanted("overhead") {
        run.keep("overhead", async { Ok(overhead::row().into_iter().collect()) }).await?;
    }
    if wanted("idle node") {
        run.keep("idle node", async { Ok(idle_node::rows(&rig, seconds(10, 100), seconds(10, 60)).await) })
            .await?;
    }
    // Memory first: allocations of later rows would hide it.
    if wanted("connections") {
        let size = if quick { idle::Size::QUICK } else { idle::Size::FULL };
        run.keep("connections", idle::rows(&rig, size)).await?;
    }
    if wanted("sends") {
        run.keep("sends", sends::rows(&rig, seconds(5, 20))).await?;
    }
    if wanted("held") {
        run.keep("held", async { Ok(vec![sends::held(&rig, seconds(8, 60)).await?]) }).await?;
    }
    if wanted("swaps") {
        let (sockets, count) = if quick { (400, 100) } else { (2_000, 1_000) };
        let size = swaps::Size { sockets, swaps: count, time: seconds(5, 20) };
        run.keep("swaps", swaps::rows(&rig, &size)).await?;
    }
    // This row takes minutes and measures memory alone, so it runs only by its name.
    if cli.only == "ten thousand swaps" {
        swaps::many(&rig, if quick { 1_000 } else { 10_000 }).await;
    }
    if wanted("fan-out") {
        run.keep("fan-out", fanout::rows(&rig, &[200, 1000], seconds(4, 15))).await?;
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
        run.keep("delivery", delivery::rows(&rig, if quick { 200 } else { 500 }, seconds(8, 30))).await?;
    }
    if long("notification") {
        run.keep("notification", notifications::rows(&rig, 200, seconds(8, 30))).await?;
    }
    if long("outbox") {
        run.keep("outbox", async { Ok(outbox::rows(&rig, if quick { 20_000 } else { 100_000 }).await) })
            .await?;
    }
    let file = paths::target().join("bench").join(if quick { "quick" } else { "full" });
    figures::write(&file.with_extension("json"), &profile, quick, cli.flush, &run.rows)?;
    plot::write(&file.with_extension("svg"), &run.rows)?;
    println!("\nwritten to {}.json and .svg", file.display());
    Ok(())
}

/// The rows so far.
struct Run<'a> {
    rig: &'a Rig,
    rows: Vec<Row>,
}

impl Run<'_> {
    /// The measured row, or an error with the reason: a wrong history, or a wait that did not end.
    async fn keep(
        &mut self,
        name: &str,
        rows: impl Future<Output = Result<Vec<Row>, Wrong>>,
    ) -> std::io::Result<()> {
        self.rig.is("it began");
        let rows = tokio::time::timeout(ROW_MAX, rows).await.map_err(|_| {
            let doing = self.rig.doing();
            std::io::Error::other(format!("`{name}` is not done after {ROW_MAX:?}; where it stood: {doing}"))
        })??;
        rows.iter().for_each(Row::print);
        self.rows.extend(rows);
        Ok(())
    }
}

async fn controls() {
    let time = Duration::from_secs(3);
    figures::print_header();
    let idle = idle::native(idle::Size::QUICK).await;
    figures::print_line("idle connections: 2000", &idle.idle, "", "");
    figures::print_line("handshakes, a steady stream", &idle.stream, "", "");
    for (size, in_flight) in [(200, 4), (200, 64), (1000, 4), (1000, 64)] {
        let figures = fanout::native(size, in_flight, fanout::FRAME_BYTES, time).await;
        figures::print_line(&format!("fan-out: room of {size}, {in_flight} in flight"), &figures, "", "");
    }
    figures::print_line("raw Redis publish, 200/s", &delivery::redis(200, time).await, "", "");
}
