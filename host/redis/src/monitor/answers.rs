//! The answers of a server about itself, read in one round trip.

use std::collections::HashMap;
use std::sync::Arc;

use redis::{Pipeline, Value};
use tokio::time::timeout;

use super::Monitor;
use super::connection::{CheckError, Connection, Tracking, check_error};
use crate::fault::{self, Fault};
use crate::link::reason;
use crate::packed;
use crate::tracking::{self, TrackedGuard};
use switchboard_core::limits;

/// A server's answers about itself.
pub(super) struct Seen {
    pub(super) run_id: Arc<str>,
    /// Run id and replication id. They change whenever the data may have been replaced.
    pub(super) identity: String,
    pub(super) guard: Option<String>,
    /// None: the server does not report changes of this value of the guard.
    pub(super) tracked: Option<TrackedGuard>,
    /// None when the memory of the server is full and it refuses to count.
    pub(super) beat: Option<i64>,
    pub(super) is_full: bool,
}

impl Monitor {
    /// Reads role, identity, guard and beat in one round trip.
    pub(super) async fn ask(
        &self,
        connection: &mut Connection,
        guarded: Option<(&str, &str)>,
    ) -> Result<Seen, CheckError> {
        let mut commands = vec![packed(&["INFO", "replication"])];
        let mut tracked = None;
        if let Some((guard, beats)) = guarded {
            commands.push(packed(&["INCR", beats]));
            match &connection.tracking {
                Tracking::Works(changes) => {
                    tracked = Some(TrackedGuard::before_read(changes));
                    commands.extend(tracking::read(guard));
                }
                Tracking::Untried(_) | Tracking::Refused(_) => commands.push(packed(&["GET", guard])),
            }
        }
        let guard_at = commands.len() - 1;
        if connection.run_id.is_none() {
            commands.push(packed(&["INFO", "server"]));
        }
        let mut pipeline = Pipeline::with_capacity(commands.len());
        let count = commands.len();
        for command in commands {
            pipeline.add_command(command);
        }
        let sent = connection.redis.send_packed_commands(&pipeline, 0, count);
        let replies = match timeout(limits::REDIS_SILENCE_MAX, sent).await {
            Ok(Ok(replies)) => replies,
            Ok(Err(error)) if error.code().is_some() => {
                return Err(self.refused(error.code().unwrap_or_default()));
            }
            Ok(Err(error)) => return Err(CheckError::Reconnect(reason(&error))),
            Err(_) => {
                return Err(CheckError::Reconnect(format!(
                    "the server did not answer within {} s",
                    limits::REDIS_SILENCE_MAX.as_secs()
                )));
            }
        };
        let mut is_full = false;
        for reply in &replies {
            if let Value::ServerError(error) = reply {
                match Fault::of(error) {
                    Fault::Full => is_full = true,
                    _ => return Err(self.refused(fault::code(error))),
                }
            }
        }
        let run_id = &mut connection.run_id;
        let infos = replies.iter().take(1).chain(run_id.is_none().then(|| replies.last()).flatten());
        let info: HashMap<String, String> = infos.flat_map(fields).collect();
        let field = |name: &str| info.get(name).map_or("-", String::as_str);
        if field("role") == "slave" {
            return Err(CheckError::Reconnect(fault::explained("READONLY")));
        }
        let guard = match replies.get(guard_at) {
            Some(Value::BulkString(text)) if guarded.is_some() => {
                Some(String::from_utf8_lossy(text).into_owned())
            }
            _ => None,
        };
        let beat = match replies.get(1) {
            Some(Value::Int(beat)) => Some(*beat),
            _ => None,
        };
        let run_id = run_id.get_or_insert_with(|| field("run_id").into()).clone();
        let identity = format!("{run_id} {}", field("master_replid"));
        Ok(Seen { run_id, identity, guard, tracked, beat, is_full })
    }

    fn refused(&self, code: &str) -> CheckError {
        if code == "BUSY" {
            self.link.script_overdue.notify_one();
        }
        check_error(code)
    }
}

/// Parses a guard: `{generation} {run id} {replication id}`.
pub(super) fn generation_of(guard: &str) -> Option<(i64, &str)> {
    let (generation, identity) = guard.split_once(' ')?;
    Some((generation.parse().ok()?, identity))
}

/// Returns the lines `name:value` of the answer to `INFO`.
fn fields(info: &Value) -> Vec<(String, String)> {
    let text = match info {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => text.clone(),
        _ => return Vec::new(),
    };
    let field = |line: &str| line.trim_end().split_once(':').map(|(a, b)| (a.to_owned(), b.to_owned()));
    text.lines().filter_map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_names_a_generation_and_a_server() {
        assert_eq!(generation_of("4 run repl"), Some((4, "run repl")));
        assert_eq!((generation_of("4"), generation_of("x run"), generation_of("")), (None, None, None));
        let info = Value::BulkString(b"# Server\r\nredis_version:7.0.15\r\nrun_id:ab\r\n".to_vec());
        assert_eq!(fields(&info)[1], ("run_id".to_owned(), "ab".to_owned()));
    }
}
