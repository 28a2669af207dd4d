//! `switchboard tail`: calls and log lines of all nodes while they happen. With `--json` each is one line.

use std::fmt::Write as _;

use hyper::Method;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Client, Where};
use super::{Failure, Output, page};
use switchboard_core::config::Config;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this handler.
    handler: Option<String>,
    /// Only calls that failed or answered with an error, and log lines from `warn` on.
    #[arg(long)]
    failed: bool,
    /// Only calls of this user. Log lines name no user, so none are shown.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only calls of this trigger, for instance `frame`. No log lines are shown.
    #[arg(long, value_name = "TRIGGER")]
    trigger: Option<String>,
    /// End after this number of events, instead of at Ctrl-C.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    events: Option<u64>,
    #[command(flatten)]
    at: Where,
}

/// The answer of a node when a watch is opened, and to each request for its events.
#[derive(Deserialize)]
struct Watched {
    watch: String,
    events: Vec<Value>,
    dropped: u64,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let client = Client::of(config, &args.at);
    let filter = query(&args);
    let mut left = args.events.unwrap_or(u64::MAX);
    loop {
        let Watched { watch, .. } = client.get(&format!("/admin/v1/tail{filter}")).await?;
        out.progress(format_args!("watching the fleet from {}; Ctrl-C ends it", client.address()));
        let path = format!("/admin/v1/tail?watch={watch}");
        while let Some(Watched { events, dropped, .. }) = take(&client, &path).await? {
            if dropped > 0 {
                let events = page::count(dropped, "event");
                out.progress(format_args!("{events} not shown: there are more than can be sent"));
            }
            for event in events {
                if !out.line(&event, text(&event)) {
                    return Ok(());
                }
                left -= 1;
                if left == 0 {
                    return Ok(());
                }
            }
        }
        out.progress("the node has ended the watch; opening it again");
    }
}

/// Takes events. `None`: the node does not know the watch any more.
async fn take(client: &Client, path: &str) -> Result<Option<Watched>, Failure> {
    let answer = client.ask(Method::GET, path, "application/json", bytes::Bytes::new()).await?;
    if answer.status == 404 {
        return Ok(None);
    }
    client.taken(&answer).map(Some)
}

fn query(args: &Args) -> String {
    let mut query = String::new();
    let failed = args.failed.then(|| "true".to_owned());
    let filters =
        [("handler", &args.handler), ("user", &args.user), ("trigger", &args.trigger), ("failed", &failed)];
    for (name, value) in filters {
        if let Some(value) = value {
            let separator = if query.is_empty() { '?' } else { '&' };
            let _ = write!(query, "{separator}{name}={}", page::escape(value));
        }
    }
    query
}

/// An event for people, in one line: its texts are foreign.
fn text(event: &Value) -> String {
    let word = |name: &str| event[name].as_str().unwrap_or_default();
    // The first digits of the ids of nodes are their start times, which may be equal.
    let node = word("node");
    let node = node.get(node.len().saturating_sub(6)..).unwrap_or_default();
    let time = word("at").get(11..23).unwrap_or_default();
    let mut line = format!("{time} {node} {}", word("handler"));
    if event["kind"] == "log" {
        let _ = write!(line, " {}: {}", word("level"), word("message"));
        for (name, value) in event["fields"].as_object().into_iter().flatten() {
            let _ = write!(line, " {}={value}", name.strip_prefix("field.").unwrap_or(name));
        }
    } else {
        let _ = write!(line, " {} {}", word("trigger"), word("outcome"));
        if !word("user").is_empty() {
            let _ = write!(line, " for {}", word("user"));
        }
        let took_us = event["took_us"].as_u64().unwrap_or_default();
        let _ = write!(line, " in {}.{} ms", took_us / 1000, took_us % 1000 / 100);
        if !word("failure").is_empty() {
            let _ = write!(line, ": {}", word("failure"));
        }
    }
    switchboard_telemetry::in_one_line(&line).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let at = "2026-11-20T06:12:01.123Z";
        let node = "019a0000-0000-7000-8000-0000000abcde";
        let call = json!({
            "kind": "call", "at": at, "node": node, "handler": "send", "trigger": "frame", "user": "ana",
            "outcome": "trap", "failure": "panic: no\nroom, in src/lib.rs:10:9", "took_us": 1540,
        });
        assert_eq!(
            text(&call),
            "06:12:01.123 0abcde send frame trap for ana in 1.5 ms: panic: no\\nroom, in src/lib.rs:10:9"
        );
        let log = json!({
            "kind": "log", "at": at, "node": node, "handler": "send", "level": "warn", "message": "waits",
            "fields": { "field.why": "a\u{202e}b" },
        });
        assert_eq!(text(&log), "06:12:01.123 0abcde send warn: waits why=\"a\\u{202e}b\"");
    }

    #[test]
    fn a_filter_is_escaped() {
        let mut args = Args {
            handler: None,
            failed: false,
            user: None,
            trigger: None,
            events: None,
            at: Where::default(),
        };
        assert_eq!(query(&args), "");
        args.user = Some("a&b".to_owned());
        args.failed = true;
        assert_eq!(query(&args), "?user=a%26b&failed=true");
    }
}
