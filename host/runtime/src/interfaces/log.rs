//! `log`: log lines of a handler, with its name, release, call and request. Their number and length are
//! bounded; further lines are dropped and counted. Standard output and standard error of WASI are log lines
//! too.
//!
//! The logger keeps the last report of a guest that may trap (the message of a panic, the end of its standard
//! error) for the failure of the call.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;

use super::call::Function;
use super::log_line::LogLine;
use super::{CallState, Terms};
use switchboard_contract::log::{self, Level};
use switchboard_core::ids::RequestId;
use switchboard_core::{limits, timestamp};
use switchboard_fanout::{Subject, Watches};

#[derive(Serialize)]
struct Args<'a> {
    level: Level,
    message: &'a str,
    fields: &'a [(String, String)],
}

impl log::Host for CallState {
    async fn log(
        &mut self,
        level: Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        if self.log.keep_panic(level, &message, &fields) {
            return Ok(());
        }
        let args = Args { level, message: &message, fields: &fields };
        let (lines, watches) = (&self.log, self.backends.watches());
        let live = async { lines.write(level, &message, &fields, watches) };
        self.middleware.call(Function::LogLog, &args, live).await
    }
}

/// The one field of a line that reports a panic: the place in the source (`wit/log.wit`).
const PANIC_LOCATION: &str = "panic.location";

/// Writes the log lines of one call. It is cheap to clone; each stream of WASI has a clone.
#[derive(Clone)]
pub(super) struct CallLogger(Arc<Inner>);

struct Inner {
    terms: Arc<Terms>,
    call: Arc<str>,
    request: Option<RequestId>,
    written: AtomicU32,
    /// The first panic that the guest reported.
    panic: OnceLock<String>,
    /// The end of the guest's standard error.
    stderr: Mutex<String>,
}

impl CallLogger {
    pub(super) fn new(terms: Arc<Terms>, call: Arc<str>, request: Option<RequestId>) -> Self {
        Self(Arc::new(Inner {
            terms,
            call,
            request,
            written: AtomicU32::new(0),
            panic: OnceLock::new(),
            stderr: Mutex::default(),
        }))
    }

    /// Writes a line, and shows it to the operators who watch.
    pub(super) fn write(
        &self,
        level: Level,
        message: &str,
        fields: &[(String, String)],
        watches: Option<&Watches>,
    ) {
        if self.0.written.fetch_add(1, Relaxed) >= limits::LOG_LINES_MAX {
            return;
        }
        let line = LogLine::new(&self.0.terms.secrets, message, fields);
        if let Some(watches) = watches {
            self.show(level, &line, watches);
        }
        let (handler, release) = (self.0.terms.handler.as_str(), self.0.terms.release_short.as_str());
        let (call, request_id) = (&*self.0.call, self.0.request.as_deref());
        // The names of fields of `tracing` are constants. The output (`switchboard_telemetry`) makes each
        // member of this object a field of a JSON line.
        let fields = line.fields();
        let fields = fields.as_ref().map(tracing::field::display);
        let dropped = (line.fields_dropped > 0).then_some(line.fields_dropped);
        macro_rules! write_at {
            ($level:ident) => {
                tracing::event!(
                    target: "handler",
                    tracing::Level::$level,
                    {
                        handler.name = handler,
                        handler.release = release,
                        call,
                        request_id,
                        handler.fields = fields,
                        handler.fields_dropped = dropped
                    },
                    "{}",
                    line.message
                )
            };
        }
        match level {
            Level::Debug => write_at!(DEBUG),
            Level::Info => write_at!(INFO),
            Level::Warn => write_at!(WARN),
            Level::Error => write_at!(ERROR),
        }
    }

    fn show(&self, level: Level, line: &LogLine, watches: &Watches) {
        let (name, is_failure) = match level {
            Level::Debug => ("debug", false),
            Level::Info => ("info", false),
            Level::Warn => ("warn", true),
            Level::Error => ("error", true),
        };
        let subject = Subject { handler: &self.0.terms.handler, user: None, trigger: None, is_failure };
        watches.record(&subject, || {
            json!({
                "kind": "log",
                "at": timestamp::rfc3339(timestamp::now_ms()),
                "node": watches.node().to_string(),
                "handler": self.0.terms.handler,
                "release": self.0.terms.release_short,
                "call": &*self.0.call,
                "request_id": self.0.request.as_deref(),
                "level": name,
                "message": line.message,
                "fields": line.fields(),
                "fields_dropped": line.fields_dropped,
            })
            .to_string()
        });
    }

    /// Keeps the report of a panic for the failure of the call. It is no host call, so that it needs no
    /// budget and changes no recording. Returns false for any other line, and for a second report: that is a
    /// line like any other, so reports cannot get around the bound of lines.
    fn keep_panic(&self, level: Level, message: &str, fields: &[(String, String)]) -> bool {
        let (Level::Error, [(name, location)]) = (level, fields) else { return false };
        if name != PANIC_LOCATION {
            return false;
        }
        let part = |text: &str, bytes_max: usize| cut(self.concealed(text), bytes_max);
        let message = part(message, limits::PANIC_MESSAGE_BYTES_MAX);
        let location = part(location, limits::PANIC_LOCATION_BYTES_MAX);
        self.0.panic.set(format!("panic: {message}, in {location}")).is_ok()
    }

    /// Keeps the end of standard error. The line is concealed already.
    pub(super) fn keep_stderr(&self, line: &str) {
        let mut kept = self.0.stderr.lock();
        if !kept.is_empty() {
            kept.push('\n');
        }
        kept.push_str(line);
        let from = kept.ceil_char_boundary(kept.len().saturating_sub(limits::STDERR_KEPT_BYTES_MAX));
        kept.drain(..from);
    }

    /// Returns what the guest reported about its end, without secrets: its panic, or else the end of its
    /// standard error.
    pub(super) fn last_report(&self) -> Option<String> {
        self.0.panic.get().cloned().or_else(|| {
            let stderr = self.0.stderr.lock();
            (!stderr.is_empty())
                .then(|| format!("standard error: {}", cut(Cow::Borrowed(stderr.as_str()), usize::MAX)))
        })
    }

    /// Returns a text without the values that no log line may contain.
    pub(super) fn concealed<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.0.terms.secrets.conceal_text(text)
    }

    pub(super) fn dropped(&self) -> u32 {
        self.0.written.load(Relaxed).saturating_sub(limits::LOG_LINES_MAX)
    }
}

/// Cuts a concealed text. NUL is replaced, because Postgres, which keeps the error of a parked event, cannot
/// store it.
fn cut(text: Cow<'_, str>, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].replace('\0', "\u{fffd}")
}
