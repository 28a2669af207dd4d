//! `switchboard report`: shows why a canary was withdrawn: the release, the reason, and the first failed
//! call.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::json;

use super::client::{Client, Where};
use super::{Failure, Output, page};
use switchboard_core::config::Config;
use switchboard_core::ids::Digest;
use switchboard_releases::repository::Event;

#[derive(clap::Args)]
pub(crate) struct Args {
    handler: String,
    /// The generation of the withdrawal, from `releases HANDLER --json`; by default the last one.
    #[arg(long, value_name = "NUMBER")]
    generation: Option<i64>,
    /// Write the recording of the first failed call into this file, for `switchboard replay`.
    #[arg(long, alias = "trace", value_name = "FILE")]
    recording: Option<PathBuf>,
    #[command(flatten)]
    at: Where,
}

#[derive(Deserialize)]
struct History {
    history: Vec<Event>,
}

/// The report of the node that withdrew the canary.
#[derive(Deserialize)]
struct Report {
    release: Digest,
    percent: u8,
    running: Digest,
    node: String,
    cause: String,
    canary: Figures,
    beside: Figures,
}

#[derive(Deserialize)]
struct Figures {
    calls: u64,
    failures: u64,
    errors: u64,
    p90_us: Option<u64>,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let client = Client::of(config, &args.at);
    let path = format!("/admin/v1/history?handler={}", page::escape(&args.handler));
    let History { history } = client.get(&path).await?;
    let is_it = |event: &&Event| {
        event.report.is_some() && args.generation.is_none_or(|generation| event.generation == generation)
    };
    let event = history.iter().find(is_it).ok_or_else(|| {
        Failure::failed(match args.generation {
            Some(generation) => {
                format!("generation {generation} of {} withdrew no canary", args.handler)
            }
            None => format!("no canary of {} was withdrawn", args.handler),
        })
    })?;
    let kept = event.report.clone().unwrap_or_default();
    let report: Report = serde_json::from_value(kept.clone())
        .map_err(|error| Failure::failed(format!("the report is of another version: {error}")))?;
    let recording = match event.has_recording {
        true => Some(client.download(&format!("/admin/v1/history/{}/trace", event.generation)).await?),
        false => None,
    };
    let recording = recording.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if let (Some(file), Some(recording)) = (&args.recording, &recording) {
        std::fs::write(file, recording)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", file.display())))?;
    }
    let text = text(event, &report, recording.as_deref());
    out.answer(
        &json!({ "at": event.at, "generation": event.generation, "report": kept, "trace": recording }),
        text,
    );
    Ok(())
}

fn text(event: &Event, report: &Report, recording: Option<&str>) -> String {
    let Report { release, percent, running, node, cause, canary, beside } = report;
    let (bad, good) = (release.short(), running.short());
    let row = |name: String, figures: &Figures| {
        let ms = |us: u64| format!("{:.1} ms", us as f64 / 1000.0);
        vec![
            name,
            page::thousands(figures.calls),
            page::thousands(figures.failures),
            page::thousands(figures.errors),
            figures.p90_us.map_or_else(|| "–".to_owned(), ms),
        ]
    };
    let head = ["", "calls", "without an answer", "errors", "slowest tenth from"].map(str::to_owned).to_vec();
    let table =
        page::table(&[head, row(format!("canary {bad}"), canary), row(format!("running {good}"), beside)]);
    let first = match recording {
        Some(recording) => format!("the first call that went wrong:\n\n{}", recording.trim_end()),
        None => "no call that went wrong was kept".to_owned(),
    };
    format!(
        "{} {}: the canary {bad} ({percent} % of the users) was withdrawn, {good} runs for everybody\n\n\
         release  {release}\ncause    {cause}\nseen by  node {node}\n\n{table}\n\n{first}",
        page::time(&event.at),
        event.name,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_the_release_the_cause_and_the_call() {
        let (bad, good) = (Digest::of(b"bad"), Digest::of(b"good"));
        let event = Event {
            generation: 7,
            at: "2026-11-20T15:00:00.000Z".to_owned(),
            action: "withdraw".to_owned(),
            name: "echo".to_owned(),
            digest: good,
            previous: Some(bad),
            percent: None,
            selection: None,
            by: "switchboard".to_owned(),
            note: None,
            report: None,
            has_recording: true,
        };
        let figures = |calls, failures, p90_us| Figures { calls, failures, errors: failures, p90_us };
        let report = Report {
            release: bad,
            percent: 10,
            running: good,
            node: "n1".to_owned(),
            cause: "3 of 3 calls ended without an answer".to_owned(),
            canary: figures(3, 3, None),
            beside: figures(1200, 0, Some(1500)),
        };
        let shown = text(&event, &report, Some("trace 1 of …\n"));
        let (bad_short, good_short) = (bad.short(), good.short());
        assert_eq!(
            shown,
            format!(
                "2026-11-20 15:00:00 echo: the canary {bad_short} (10 % of the users) was withdrawn, \
                 {good_short} runs for everybody\n\nrelease  {bad}\ncause    3 of 3 calls ended without an answer\n\
                 seen by  node n1\n\n                      calls  without an answer  errors  slowest tenth from\n\
                 canary {bad_short}   3      3                  3       –\n\
                 running {good_short}  1,200  0                  0       1.5 ms\n\n\
                 the first call that went wrong:\n\ntrace 1 of …"
            )
        );
    }
}
