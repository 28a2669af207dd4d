//! `log`: log lines of a handler, with its name, release, call and request. Their number and length are
//! bounded; further lines are dropped and counted. Standard output and standard error of WASI are log lines
//! too.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use serde::Serialize;

use super::call::Function;
use super::{CallState, Terms};
use switchboard_contract::log::{self, Level};
use switchboard_core::ids::RequestId;
use switchboard_core::limits;

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
        let args = Args { level, message: &message, fields: &fields };
        let lines = &self.log;
        let live = async { lines.write(level, &message, &fields) };
        self.middleware.call(Function::LogLog, &args, live).await
    }
}

/// Writes the log lines of one call. It is cheap to clone; each stream of WASI has a clone.
#[derive(Clone)]
pub(super) struct CallLogger(Arc<Inner>);

struct Inner {
    terms: Arc<Terms>,
    call: Arc<str>,
    request: Option<RequestId>,
    written: AtomicU32,
}

impl CallLogger {
    pub(super) fn new(terms: Arc<Terms>, call: Arc<str>, request: Option<RequestId>) -> Self {
        Self(Arc::new(Inner { terms, call, request, written: AtomicU32::new(0) }))
    }

    pub(super) fn write(&self, level: Level, message: &str, fields: &[(String, String)]) {
        if self.0.written.fetch_add(1, Relaxed) >= limits::LOG_LINES_MAX {
            return;
        }
        let secrets = &self.0.terms.secrets;
        let mut line = secrets.conceal_text(message).into_owned();
        for (name, value) in fields {
            line.push(' ');
            let name = secrets.conceal_text(name);
            line.extend(
                name.chars().map(|c| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' }),
            );
            let _ = write!(line, "={:?}", secrets.conceal_text(value));
        }
        if line.len() > limits::LOG_LINE_BYTES_MAX {
            line.truncate(line.floor_char_boundary(limits::LOG_LINE_BYTES_MAX));
        }
        let (handler, release) = (self.0.terms.handler.as_str(), self.0.terms.release_short.as_str());
        let (call, request_id) = (&*self.0.call, self.0.request.as_deref());
        macro_rules! write_at {
            ($level:ident) => {
                tracing::event!(
                    target: "handler",
                    tracing::Level::$level,
                    { handler.name = handler, handler.release = release, call, request_id },
                    "{line}"
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

    /// Returns a text without the values that no log line may contain.
    pub(super) fn concealed<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.0.terms.secrets.conceal_text(text)
    }

    pub(super) fn dropped(&self) -> u32 {
        self.0.written.load(Relaxed).saturating_sub(limits::LOG_LINES_MAX)
    }
}
