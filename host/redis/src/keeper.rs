//! The task behind a link. It connects, asks the server who it is, and looks again twice a second and whenever a command
//! finds something wrong. A link serves commands only while all of this holds:
//!
//! * The server is a primary and takes writes: it counts a beat up.
//! * Its guard key names the generation of keys that the fleet uses, and this very server. A server that was restarted, and a
//!   replica that took over, have another run id than their guard says: they may have lost writes. An emptied server has no
//!   guard.
//! * The beat is above the last one that was seen. A server whose data was replaced by an older state falls behind it.
//!
//! Where one of the last two does not hold, the generation is raised in Postgres, and with it everything that Redis holds
//! for the fleet is void: keys of the old generation are never read again, and are deleted in the background.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionInfo, Pipeline, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::fault::{self, Fault};
use super::keyspace::Keyspace;
use super::link::{Confirmed, Guard, Health, Link, Live, reason};
use super::place::Place;
use super::{BACKOFF_MAX, BACKOFF_MIN, SILENCE_MAX, packed};
use crate::limits;

/// Between two looks at a connection.
const PULSE: Duration = Duration::from_millis(500);
/// Commands that fail ask for a look; many that fail at once share one.
const LOOKS_APART: Duration = Duration::from_millis(20);
/// A server that refuses writes for so long may be a primary that was left behind: the node connects anew, and finds another
/// server where the address leads to one.
const REFUSES_MAX: Duration = Duration::from_secs(1);
/// The generation may be raised by whoever is no keeper; it is read so often.
const TRUTH_EVERY: Duration = Duration::from_secs(1);
const TRUTH_WAIT: Duration = Duration::from_millis(500);
/// Old keys are deleted a step at a time.
const CLEAN_APART: Duration = Duration::from_millis(50);
const CLEAN_KEYS: &str = "2000";
/// By then every node uses the new generation.
const CLEAN_AGAIN: Duration = Duration::from_secs(5);
/// Who counts a beat to a multiple of this looks for old keys: about once an hour in a fleet of three nodes.
const CLEAN_BEATS: i64 = 20_000;
/// Rounds until a guard that others move too is settled.
const SETTLE_ROUNDS: usize = 8;

/// Sets the guard unless it names a later generation already. Returns whether it was set, and the guard.
const CLAIM: &str = "local now=redis.call('GET',KEYS[1]) \
                     local generation=now and tonumber(string.match(now,'^%-?%d+')) \
                     if generation and generation>=tonumber(ARGV[1]) then return {0,now} end \
                     redis.call('SET',KEYS[1],ARGV[2]) return {1,ARGV[2]}";

pub(super) struct Keeper {
    pub(super) link: Arc<Link>,
    pub(super) place: Place,
    pub(super) keyspace: Keyspace,
    /// The hash tag of the guard: in a cluster each server has a guard in one of its own slots.
    pub(super) tag: watch::Receiver<String>,
}

/// What must be remembered from one look to the next.
#[derive(Default)]
struct Memory {
    /// The highest beat seen, and in which generation.
    beat: Option<(i64, i64)>,
    truth_at: Option<Instant>,
    /// Where the deletion of old keys stands.
    cleaning: Option<String>,
    /// When it is done once more: a node that had not heard of the new generation may have written old keys meanwhile.
    clean_again_at: Option<Instant>,
}

/// What a server said about itself.
struct Seen {
    run_id: Arc<str>,
    /// Run id and replication id: it changes whenever the data may have been replaced.
    identity: String,
    guard: Option<String>,
    /// None where the server is full and counts no further.
    beat: Option<i64>,
    is_full: bool,
}

enum Trouble {
    /// The connection is of no use.
    Leave(String),
    /// The server is the right one, and refuses for now.
    Stay(String),
}

impl Keeper {
    /// For as long as anyone holds the `Redis`.
    pub(super) async fn run(self) {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(SILENCE_MAX))
            // Each call has its own deadline.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(limits::REDIS_QUEUE_MAX);
        let (mut memory, mut backoff) = (Memory::default(), BACKOFF_MIN);
        loop {
            match connect(&self.place, &settings).await {
                Ok((info, connection)) => {
                    self.link.server.store(Some(Arc::new(info.clone())));
                    if self.serve(&info, connection, &mut memory).await {
                        backoff = BACKOFF_MIN;
                    }
                }
                Err(why) => self.away(why),
            }
            sleep_until(Instant::now() + backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn away(&self, why: String) {
        self.link.set(None, Health::Away(why));
        self.link.primary.send_replace(None);
    }

    /// Until the connection is to be given up. Says whether it took commands.
    async fn serve(
        &self,
        info: &ConnectionInfo,
        mut connection: MultiplexedConnection,
        memory: &mut Memory,
    ) -> bool {
        let (mut served, mut refuses_since) = (false, None);
        let (mut names, mut tag) = (self.keyspace.changes(), self.tag.clone());
        loop {
            let looked_at = Instant::now();
            match self.look(&mut connection, memory).await {
                Ok((confirmed, seen)) => {
                    (served, refuses_since) = (true, None);
                    let health = match seen.is_full {
                        true => Health::Full(fault::explained("OOM")),
                        false => Health::Writable,
                    };
                    let live = Live { connection: connection.clone(), confirmed: Some(confirmed) };
                    self.link.set(Some(live), health);
                    self.link.primary.send_if_modified(|primary| {
                        let is_new = primary.as_ref() != Some(&seen.run_id);
                        *primary = Some(seen.run_id);
                        is_new
                    });
                }
                Err(Trouble::Leave(why)) => {
                    self.away(why);
                    return served;
                }
                Err(Trouble::Stay(why)) => {
                    let live = Live { connection: connection.clone(), confirmed: None };
                    self.link.set(Some(live), Health::Refuses(why));
                    let since = *refuses_since.get_or_insert(looked_at);
                    if since.elapsed() >= REFUSES_MAX {
                        return served;
                    }
                }
            }
            if memory.cleaning.is_none() && memory.clean_again_at.is_some_and(|at| at <= Instant::now()) {
                memory.cleaning = Some("0".to_owned());
                memory.clean_again_at = None;
            }
            if memory.cleaning.is_some() {
                self.clean(&mut connection, memory).await;
            }
            let pulse = if memory.cleaning.is_some() { CLEAN_APART } else { PULSE };
            tokio::select! {
                () = sleep_until(looked_at + pulse) => {}
                () = self.link.doubted.notified() => sleep_until(looked_at + LOOKS_APART).await,
                _ = names.changed() => {}
                Ok(()) = tag.changed() => {}
            }
            if self.place.has_moved_from(info).await {
                self.away("the sentinels name another primary".to_owned());
                return served;
            }
        }
    }

    /// Asks the server who it is, and settles which generation of keys is valid on it.
    async fn look(
        &self,
        connection: &mut MultiplexedConnection,
        memory: &mut Memory,
    ) -> Result<(Confirmed, Seen), Trouble> {
        let Some(namespace) = self.keyspace.namespace().map(str::to_owned) else {
            let seen = self.ask(connection, None).await?;
            return Ok((Confirmed { generation: 0, guard: None }, seen));
        };
        let tag = self.tag.borrow().clone();
        let (key, beats) = (format!("{namespace}:guard:{tag}"), format!("{namespace}:beat:{tag}"));
        let mut seen = self.ask(connection, Some((&key, &beats))).await?;
        if memory.truth_at.is_none_or(|at| at.elapsed() >= TRUTH_EVERY) {
            // Where Postgres is away, nobody raises it either: what this node knows holds, as long as the guard agrees.
            if let Ok(Ok(truth)) = timeout(TRUTH_WAIT, self.keyspace.truth()).await {
                self.adopt_raised(truth);
            }
            memory.truth_at = Some(Instant::now());
        }
        for _ in 0..SETTLE_ROUNDS {
            let generation = self.keyspace.names().generation;
            let text = format!("{generation} {}", seen.identity);
            if seen.guard.as_deref() == Some(text.as_str()) {
                let before = memory.beat.filter(|(of, _)| *of == generation).map(|(_, beat)| beat);
                let fell = matches!((before, seen.beat), (Some(before), Some(now)) if now <= before);
                if !fell {
                    if let Some(beat) = seen.beat {
                        memory.beat = Some((generation, beat));
                        if beat % CLEAN_BEATS == 0 {
                            memory.cleaning = Some("0".to_owned());
                        }
                    }
                    return Ok((Confirmed { generation, guard: Some(Guard { key, text }) }, seen));
                }
                let why = "its data is older than what this node has seen";
                let next = self.raise(generation, generation, why).await?;
                self.claim(connection, memory, &key, next, &mut seen).await?;
                continue;
            }
            let truth = self.keyspace.truth().await.map_err(Trouble::Stay)?;
            let guard = seen.guard.as_deref().and_then(generation_of);
            let next = match guard {
                Some((of, identity)) if of == truth && identity == seen.identity => {
                    self.keyspace.adopt(truth);
                    continue;
                }
                // Keys of a later generation were never written here.
                Some((of, _)) if of < truth => truth,
                Some((of, _)) => {
                    let why = match of > truth {
                        true => "Postgres has lost a generation that Redis knows",
                        false => "the server was restarted, or a replica took over: writes may be lost",
                    };
                    self.raise(truth, of.max(generation), why).await?
                }
                None => {
                    self.raise(truth, truth.max(generation), "the server holds nothing of this fleet").await?
                }
            };
            self.claim(connection, memory, &key, next, &mut seen).await?;
        }
        Err(Trouble::Stay("the nodes do not agree on the generation of keys yet".to_owned()))
    }

    /// A generation that somebody else raised. A lower one means that Postgres went back, which the guard shows.
    fn adopt_raised(&self, truth: i64) {
        if truth > self.keyspace.names().generation {
            self.keyspace.adopt(truth);
        }
    }

    async fn raise(&self, expected: i64, known: i64, why: &str) -> Result<i64, Trouble> {
        let next = self.keyspace.raise(expected, known).await.map_err(Trouble::Stay)?;
        tracing::warn!(generation = next, "what Redis holds is void and is rebuilt from Postgres: {why}");
        metrics::counter!("switchboard_redis_voids_total").increment(1);
        Ok(next)
    }

    /// Writes the guard for the generation, unless a later one stands there. Whoever writes it deletes the old keys.
    async fn claim(
        &self,
        connection: &mut MultiplexedConnection,
        memory: &mut Memory,
        key: &str,
        generation: i64,
        seen: &mut Seen,
    ) -> Result<(), Trouble> {
        let text = format!("{generation} {}", seen.identity);
        let claim = packed(&["EVAL", CLAIM, "1", key, &generation.to_string(), &text]);
        match one(connection, &claim).await? {
            Value::Array(items) => match &items[..] {
                [Value::Int(set), Value::BulkString(now)] => {
                    if *set == 1 {
                        memory.cleaning = Some("0".to_owned());
                        memory.clean_again_at = Some(Instant::now() + CLEAN_AGAIN);
                    }
                    seen.guard = Some(String::from_utf8_lossy(now).into_owned());
                    self.adopt_raised(generation);
                    Ok(())
                }
                _ => Err(Trouble::Stay("the guard of keys cannot be written".to_owned())),
            },
            Value::ServerError(error) => Err(trouble(fault::code(&error))),
            _ => Err(Trouble::Stay("the guard of keys cannot be written".to_owned())),
        }
    }

    /// Role, identity, guard and beat in one round trip.
    async fn ask(
        &self,
        connection: &mut MultiplexedConnection,
        guarded: Option<(&str, &str)>,
    ) -> Result<Seen, Trouble> {
        let mut pipeline = Pipeline::new();
        pipeline.add_command(packed(&["INFO", "server"])).add_command(packed(&["INFO", "replication"]));
        let count = match guarded {
            Some((guard, beats)) => {
                pipeline.add_command(packed(&["GET", guard])).add_command(packed(&["INCR", beats]));
                4
            }
            None => 2,
        };
        let sent = connection.send_packed_commands(&pipeline, 0, count);
        let replies = match timeout(SILENCE_MAX, sent).await {
            Ok(Ok(replies)) => replies,
            Ok(Err(error)) if error.code().is_some() => {
                return Err(self.refused(error.code().unwrap_or_default()));
            }
            Ok(Err(error)) => return Err(Trouble::Leave(reason(&error))),
            Err(_) => {
                return Err(Trouble::Leave(format!(
                    "the server did not answer within {} s",
                    SILENCE_MAX.as_secs()
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
        let info: HashMap<String, String> = replies.iter().take(2).flat_map(fields).collect();
        let field = |name: &str| info.get(name).map_or("-", String::as_str);
        if field("role") == "slave" {
            return Err(Trouble::Leave(fault::explained("READONLY")));
        }
        let guard = match replies.get(2) {
            Some(Value::BulkString(text)) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        };
        let beat = match replies.get(3) {
            Some(Value::Int(beat)) => Some(*beat),
            _ => None,
        };
        let identity = format!("{} {}", field("run_id"), field("master_replid"));
        Ok(Seen { run_id: field("run_id").into(), identity, guard, beat, is_full })
    }

    fn refused(&self, code: &str) -> Trouble {
        if code == "BUSY" {
            self.link.overdue.notify_one();
        }
        trouble(code)
    }

    /// One step of deleting keys of generations before this one.
    async fn clean(&self, connection: &mut MultiplexedConnection, memory: &mut Memory) {
        let (Some(cursor), Some(namespace)) = (memory.cleaning.take(), self.keyspace.namespace()) else {
            return;
        };
        let generation = self.keyspace.names().generation;
        let scan = ["SCAN", &cursor, "MATCH", &format!("{namespace}:*"), "COUNT", CLEAN_KEYS];
        let Ok(Value::Array(found)) = one(connection, &packed(&scan)).await else { return };
        let [Value::BulkString(next), Value::Array(keys)] = &found[..] else { return };
        let old = keys.iter().filter_map(|key| match key {
            Value::BulkString(key) => std::str::from_utf8(key).ok(),
            _ => None,
        });
        let old = old.filter(|key| is_older(key, namespace, generation)).map(|key| packed(&["UNLINK", key]));
        let old: Vec<Cmd> = old.collect();
        if !old.is_empty() {
            let mut pipeline = Pipeline::with_capacity(old.len());
            let count = old.len();
            for unlink in old {
                pipeline.add_command(unlink);
            }
            let _ = timeout(SILENCE_MAX, connection.send_packed_commands(&pipeline, 0, count)).await;
        }
        memory.cleaning = (next != b"0").then(|| String::from_utf8_lossy(next).into_owned());
    }
}

/// A key of a generation before this one.
fn is_older(key: &str, namespace: &str, generation: i64) -> bool {
    let rest = key.strip_prefix(namespace).and_then(|rest| rest.strip_prefix(':'));
    let of = rest.and_then(|rest| rest.split_once(':')).and_then(|(of, _)| of.parse::<i64>().ok());
    of.is_some_and(|of| of < generation)
}

fn trouble(code: &str) -> Trouble {
    match Fault::of_code(code) {
        Fault::Server => Trouble::Leave(fault::explained(code)),
        Fault::Refusal | Fault::Full | Fault::Moved | Fault::Caller => Trouble::Stay(fault::explained(code)),
    }
}

/// A guard is `{generation} {run id} {replication id}`.
fn generation_of(guard: &str) -> Option<(i64, &str)> {
    let (generation, identity) = guard.split_once(' ')?;
    Some((generation.parse().ok()?, identity))
}

/// The lines `name:value` of an answer to `INFO`.
fn fields(info: &Value) -> Vec<(String, String)> {
    let text = match info {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => text.clone(),
        _ => return Vec::new(),
    };
    let field = |line: &str| line.trim_end().split_once(':').map(|(a, b)| (a.to_owned(), b.to_owned()));
    text.lines().filter_map(field).collect()
}

async fn one(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, Trouble> {
    match timeout(SILENCE_MAX, connection.send_packed_command(command)).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => match error.code() {
            Some(code) => Err(trouble(code)),
            None => Err(Trouble::Leave(reason(&error))),
        },
        Err(_) => Err(Trouble::Leave("the server did not answer".to_owned())),
    }
}

async fn connect(
    place: &Place,
    settings: &AsyncConnectionConfig,
) -> Result<(ConnectionInfo, MultiplexedConnection), String> {
    let info = place.find().await?;
    let client = Client::open(info.clone()).map_err(|error| reason(&error))?;
    let connection = client.get_multiplexed_async_connection_with_config(settings).await;
    Ok((info, connection.map_err(|error| reason(&error))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_of_earlier_generations_of_this_fleet_are_old() {
        for (key, expected) in [
            ("sb:f:3:list:ana", true),
            ("sb:f:4:list:ana", false),
            ("sb:f:5:list:ana", false),
            ("sb:f:guard:{0}", false),
            ("sb:f:beat:{0}", false),
            ("sb:fa:3:list:ana", false),
            ("sb:g:3:list:ana", false),
            ("list:ana", false),
        ] {
            assert_eq!(is_older(key, "sb:f", 4), expected, "{key}");
        }
    }

    #[test]
    fn a_guard_names_a_generation_and_a_server() {
        assert_eq!(generation_of("4 run repl"), Some((4, "run repl")));
        assert_eq!((generation_of("4"), generation_of("x run"), generation_of("")), (None, None, None));
        let info = Value::BulkString(b"# Server\r\nredis_version:7.0.15\r\nrun_id:ab\r\n".to_vec());
        assert_eq!(fields(&info)[1], ("run_id".to_owned(), "ab".to_owned()));
    }
}
