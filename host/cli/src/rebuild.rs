//! `switchboard rebuild`: rebuilds the read model in Redis from Postgres, with a progress bar. The host does
//! not know the model: a handler does the work step by step, and returns the begin of the next step.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, Where};
use super::{Failure, Output, page};
use switchboard_core::config::Config;

const PATH: &str = "/admin/v1/rebuild";
const FORGET: &str = "/admin/v1/redis/forget";

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    at: Where,
}

#[derive(Deserialize)]
struct Step {
    done: u64,
    total: u64,
    /// The begin of the next step; none at the end.
    cursor: Option<String>,
    /// Patterns of keys in Redis to delete, because no step writes them again; with the first step only.
    #[serde(default)]
    forget: Vec<String>,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let client = Client::of(config, &args.at);
    let (began, bar) = (Instant::now(), bar());
    let mut asked = json!({});
    let done = loop {
        let step: Step = client.post(PATH, &asked).await?;
        if !step.forget.is_empty() {
            let _: Value = client.post(FORGET, &json!({ "keys": step.forget })).await?;
        }
        bar.set_length(step.total);
        bar.set_position(step.done);
        match step.cursor {
            Some(cursor) => asked = json!({ "cursor": cursor }),
            None => break step.done,
        }
    };
    bar.finish_and_clear();
    let took_ms = began.elapsed().as_millis() as u64;
    let text = format!(
        "the read model is rebuilt: {} entries in {}",
        page::thousands(done),
        page::duration(took_ms)
    );
    out.answer(&json!({ "done": done, "took_ms": took_ms }), text);
    Ok(())
}

/// The progress bar, on standard error, and only on a terminal.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {human_pos} of {human_len}, {eta} left");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
