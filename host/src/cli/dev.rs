//! `switchboard dev`: a node in this process, and its handlers built and swapped when their files change. Sockets stay open:
//! a change is a deploy like any other, through the admin API.

pub(super) mod watch;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Method;

use super::build::{self, Built};
use super::client::{Client, Where};
use super::serve::Node;
use super::{Failure, Output, deploy, page};
use crate::app;
use crate::config::Config;
use crate::postgres::migrate;
use watch::Watch;

#[derive(clap::Args)]
pub struct Args {
    /// The directory of the handler crates.
    #[arg(long, default_value = "handlers")]
    from: PathBuf,
    #[command(flatten)]
    node: Node,
}

pub async fn run(args: Args, config: Config, out: &Output) -> Result<(), Failure> {
    let mut config = args.node.over(config);
    if config.admin_token.is_none() {
        out.progress("no SWITCHBOARD_ADMIN_TOKEN: only this process can operate the node");
        config.admin_token = Some(format!("{:032x}", rand::random::<u128>()));
    }
    // What is built here is deployed here.
    config.handlers_dir = None;
    // Before the first build, so that what is saved during it is not missed.
    let watch = Watch::start(&args.from)?;
    let first = build(&args.from).await;
    migrate::run(&config).await?;

    let client = Client::of(&config, &Where::default());
    let mut node = std::pin::pin!(app::serve(config));
    let work = async {
        ready(&client).await;
        match first {
            Ok(built) => swap(&client, &built, |_| true, out).await,
            Err(failure) => out.progress(format_args!("{failure}; waiting for a change")),
        }
        loop {
            let changed = watch.changed().await;
            let saved = Instant::now();
            out.progress(format_args!("\n{} changed", changed.first()));
            match build(&args.from).await {
                Ok(built) if built.handlers.iter().all(|file| !file.changed) => {
                    out.progress("nothing to swap: every release is as it was");
                }
                Ok(built) => {
                    swap(&client, &built, |file| file.changed, out).await;
                    out.progress(format_args!("{} after the save", page::duration(millis(saved))));
                }
                // Cargo has said why; what runs goes on.
                Err(failure) => out.progress(format_args!("{failure}; the handlers go on as they are")),
            }
        }
    };
    tokio::select! {
        ended = node.as_mut() => Ok(ended?),
        () = work => Ok(()),
    }
}

async fn swap(client: &Client, built: &Built, wanted: impl Fn(&build::ReleaseFile) -> bool, out: &Output) {
    for file in built.handlers.iter().filter(|file| wanted(file)) {
        match deploy::deploy(client, &file.path, None, Some("switchboard dev")).await {
            Ok(outcome) => out.progress(deploy::said(&outcome)),
            Err(failure) => out.progress(format_args!("{} was not swapped: {failure}", file.name)),
        }
    }
}

/// On a thread of its own: cargo is waited for.
async fn build(from: &std::path::Path) -> Result<Built, Failure> {
    let from = from.to_owned();
    tokio::task::spawn_blocking(move || build::build(&from, None, None, &[]))
        .await
        .unwrap_or_else(|error| Err(Failure::failed(format!("the build broke off: {error}"))))
}

/// Resolves when the node can be asked. If it never can, it ends, and `run` with it.
async fn ready(client: &Client) {
    let mut again = tokio::time::interval(Duration::from_millis(50));
    loop {
        again.tick().await;
        let answer = client.ask(Method::GET, "/healthz", "", Bytes::new()).await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            return;
        }
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
