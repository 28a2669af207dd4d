//! `switchboard inspect`: shows what a release answers, may use, and how much, from its file or from a fleet.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;
use wasmparser::{Parser, Payload};

use super::client::{Client, Where, release};
use super::secret::Secrets;
use super::{Failure, Output, page};
use switchboard_core::config::Config;
use switchboard_core::ids::Digest;
use switchboard_core::manifest::{Lifecycle, Manifest, OnFailure, Pattern, Timing};
use switchboard_runtime::ReleaseFile;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A file, or the beginning of the digest of a release that a fleet stores.
    release: String,
    #[command(flatten)]
    at: Where,
}

#[derive(Serialize)]
struct Document {
    handler: String,
    release: Digest,
    bytes: usize,
    imports: Vec<String>,
    exports: Vec<String>,
    manifest: Manifest,
    /// The granted secrets that are not set in the fleet which stores the release. None for a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_secrets: Option<Vec<String>>,
}

pub(crate) async fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let bytes = release(config, &args.at, &args.release).await?;
    let file = ReleaseFile::parse(bytes)?;
    let (imports, exports) = border(&file.bytes)?;
    let granted = &file.manifest.grants.secrets;
    let missing_secrets = match Path::new(&args.release).exists() || granted.is_empty() {
        true => None,
        false => {
            let Secrets { secrets, .. } = Secrets::ask(&Client::of(config, &args.at)).await?;
            let is_set = |name: &String| secrets.iter().any(|secret| secret.name == *name);
            Some(granted.iter().filter(|&name| !is_set(name)).cloned().collect())
        }
    };
    let document = Document {
        handler: file.manifest.name.clone(),
        release: file.digest,
        bytes: file.bytes.len(),
        imports,
        exports,
        manifest: file.manifest.to_show(),
        missing_secrets,
    };
    out.answer(&document, text(&document)?);
    Ok(())
}

/// The imports and exports of the outermost component.
fn border(bytes: &[u8]) -> Result<(Vec<String>, Vec<String>), Failure> {
    let (mut imports, mut exports, mut depth) = (Vec::new(), Vec::new(), 0);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

fn text(document: &Document) -> Result<String, Failure> {
    let Manifest { name, description, on, grants, limits, canary, needs, scripts, .. } = &document.manifest;
    let mut rows = vec![
        vec!["release".to_owned(), document.release.to_string()],
        vec!["size".to_owned(), page::bytes(document.bytes as u64)],
    ];
    let mut row = |label: &str, value: String| {
        if !value.is_empty() {
            rows.push(vec![label.to_owned(), value]);
        }
    };
    for (at, http) in on.http.iter().enumerate() {
        let open = if http.public { "  (without a token)" } else { "" };
        let action = http.action.as_ref().map(|action| format!("  (action {action})")).unwrap_or_default();
        row(if at == 0 { "answers" } else { "" }, format!("{} {}{open}{action}", http.method, http.path));
    }
    for frame in &on.frame {
        let also = frame.aliases.join(", ");
        let also = if also.is_empty() { also } else { format!("  (also {also})") };
        row("frame", format!("{}{also}", frame.frame_type));
    }
    let connection = &on.connection;
    let touched = if connection.touched { Lifecycle::Single } else { Lifecycle::Unbound };
    let life = [(connection.opened, "opened"), (connection.closed, "closed"), (touched, "touched")];
    let named = life.into_iter().filter_map(|(bound, name)| match bound {
        Lifecycle::Unbound => None,
        Lifecycle::Single => Some(name.to_owned()),
        Lifecycle::Batch => Some(format!("{name} in batches")),
    });
    row("connections", named.collect::<Vec<_>>().join(", "));
    row("fills gaps of", patterns(&connection.missed));
    for schedule in &on.schedule {
        let times = match &schedule.timing {
            Timing::Every(every_ms) => format!("every {}", page::duration(*every_ms)),
            Timing::Cron(cron) => format!("at {cron}"),
        };
        row("schedule", format!("{} {times}", schedule.name));
    }
    if let Some(event) = &on.event {
        let pace = match event.pace_ms {
            0 => String::new(),
            pace => format!(", a read each {}", page::duration(pace.into())),
        };
        row(
            "events",
            format!(
                "{}  (up to {} at once, {} attempts{pace})",
                patterns(&event.types),
                event.batch,
                event.attempts
            ),
        );
    }
    for hook in &on.before {
        let closes = match hook.on_failure {
            OnFailure::Closed => "not done if it fails",
            OnFailure::Open => "done if it fails",
        };
        row("decides before", format!("{}  (order {}, {closes})", hook.action, hook.order));
    }
    row("methods", on.call.join(", "));
    if let Some(timer) = &on.timer {
        row("timers", format!("{} attempts", timer.attempts));
    }
    row("postgres as", grants.postgres.clone().unwrap_or_default());
    row("redis keys", patterns(&grants.redis));
    row("publishes to", patterns(&grants.publish));
    row("subscribes to", patterns(&grants.subscribe));
    row("disconnects", if grants.disconnect { "yes".to_owned() } else { String::new() });
    row("wakes", grants.wake.join(", "));
    for (at, grant) in grants.fetch.iter().enumerate() {
        row(if at == 0 { "fetches" } else { "" }, grant.to_string());
    }
    let secret = |name: &String| match &document.missing_secrets {
        Some(missing) if missing.contains(name) => format!("{name} (not set)"),
        _ => name.clone(),
    };
    row("secrets", grants.secrets.iter().map(secret).collect::<Vec<_>>().join(", "));
    row("calls", grants.calls.join(", "));
    row("sets timers", if grants.timers { "yes".to_owned() } else { String::new() });
    row(
        "limits",
        format!(
            "{} ms, {} ms cpu, {} MiB, {} host calls, {}, {} at a time",
            limits.deadline_ms,
            limits.cpu_ms,
            limits.memory_mib,
            limits.host_calls,
            page::bytes(limits.host_bytes),
            limits.concurrency
        ),
    );
    if !grants.fetch.is_empty() {
        row(
            "",
            format!(
                "{} fetches, {} each, {} in flight on a node",
                limits.fetches,
                page::bytes(limits.fetch_bytes),
                limits.fetch_concurrency
            ),
        );
    }
    row(
        "as a canary",
        format!(
            "withdrawn at {} failures, {} percentage points more errors, or {} % more latency",
            canary.failures, canary.error_percent, canary.latency_percent
        ),
    );
    let needs = needs.migrations.iter().map(i64::to_string).collect::<Vec<_>>();
    row("migrations", needs.join(", "));
    row("scripts", scripts.keys().cloned().collect::<Vec<_>>().join(", "));
    for key in document.manifest.setting_keys() {
        let value = match document.manifest.config.get(key) {
            None => "(no default)".to_owned(),
            Some(value) if document.manifest.is_public(key) => value.to_string(),
            Some(_) => "(not shown: not in `public_settings`)".to_owned(),
        };
        let rule = document.manifest.settings.get(key).map(|rule| format!("  ({})", rule.describe()));
        row("setting", format!("{key} = {value}{}", rule.unwrap_or_default()));
    }
    row("imports", document.imports.join(", "));
    row("exports", document.exports.join(", "));

    let mut text = name.clone();
    if !description.is_empty() {
        write!(text, ": {description}")?;
    }
    write!(text, "\n{}", page::table(&rows))?;
    Ok(text)
}

fn patterns(patterns: &[Pattern]) -> String {
    patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(", ")
}
