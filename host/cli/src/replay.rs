//! `switchboard replay`: runs a recording on one release or on two, and shows the differences from the
//! recording and between both.

use std::path::PathBuf;

use serde_json::json;

use super::client::{Where, release};
use super::{Failure, Output};
use switchboard_core::config::Config;
use switchboard_harness::{Handler, Harness, case, suite};
use switchboard_recording::{Difference, Recording, differences, keep_all};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A recording: of a test, or of a node.
    recording: PathBuf,
    /// A release file, or the beginning of a digest of a release that a fleet stores. Given twice, both are
    /// compared. By default, the handler as it was built last.
    #[arg(long = "release", value_name = "FILE|DIGEST")]
    releases: Vec<String>,
    /// Print the whole new call.
    #[arg(long)]
    print: bool,
    /// The directory with the release files of `switchboard build`.
    #[arg(long, value_name = "DIRECTORY", default_value = "target/handlers")]
    built: PathBuf,
    #[command(flatten)]
    at: Where,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let recording = case::read("", &args.recording)?.recording;
    if args.releases.len() > 2 {
        return Err(Failure::Usage("two releases can be compared, not more".to_owned()));
    }
    let mut named = args.releases.clone();
    if named.is_empty() {
        named.push(args.built.join(format!("{}.wasm", recording.handler)).display().to_string());
    }
    let harness = Harness::keeping(&config.data_dir.join("harness"))?;
    let mut runs: Vec<(String, Recording)> = Vec::new();
    for name in &named {
        let handler = harness.load_bytes(release(config, &args.at, name).await?).await?;
        runs.push((label(name, &handler), again(&handler, &recording).await?));
    }
    let (mut text, mut documents, mut same) = (Vec::new(), Vec::new(), true);
    let mut compare = |from: &str, to: &str, found: Vec<Difference>| {
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        same &= lines.is_empty();
        text.push(match lines.as_slice() {
            [] => format!("{to} does what {from} did"),
            lines => format!("{to} differs from {from} (- {from}, + {to})\n{}", lines.join("\n")),
        });
        documents.push(json!({ "from": from, "to": to, "differences": lines }));
    };
    for (label, run) in &runs {
        compare("the recording", label, differences(&recording, run));
    }
    if let [(first, a), (second, b)] = runs.as_slice() {
        compare(first, second, differences(a, b));
    }
    if args.print {
        runs.iter().for_each(|(_, run)| text.push(run.write(keep_all)));
    }
    out.answer(&json!({ "comparisons": documents }), text.join("\n"));
    if same { Ok(()) } else { Err(Failure::Answered) }
}

fn label(name: &str, handler: &Handler) -> String {
    format!("{} ({name})", handler.digest().short())
}

async fn again(handler: &Handler, recording: &Recording) -> Result<Recording, Failure> {
    if !recording.is_whole() {
        let why = format!(
            "the recording lacks {} host calls, so it can be read but not replayed",
            recording.left_out
        );
        return Err(Failure::failed(why));
    }
    Ok(suite::again(handler, recording).await?)
}
