//! The background task of a link. It connects and checks the server, again at intervals and whenever a
//! command finds something wrong. A link takes commands only while all of this holds:
//!
//! - The server is a primary and takes writes: the task increments a counter, the *beat*.
//! - The server's guard key names the generation of keys that the fleet uses, and this very server. A server
//!   that was restarted, and a replica that took over, have another run id than their guard names: they may
//!   have lost writes. An emptied server has no guard.
//! - The beat is higher than the last one that was seen. When the server's data was replaced by an older
//!   state, the beat is lower.
//!
//! When one of the last two does not hold, the task raises the generation in Postgres. Then everything that
//! Redis holds for the fleet is void: keys of the old generation are never read again, and are deleted in the
//! background.

use std::collections::HashMap;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, Pipeline, ProtocolVersion, RedisError,
    Value,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::endpoint::RedisEndpoint;
use super::fault::{self, Fault};
use super::keyspace::Keyspace;
use super::link::{Confirmed, Health, Link, Live, RedisGuard, reason};
use super::tracking::{self, Attempt, Changes, TrackedGuard};
use super::{Error, packed};
use switchboard_core::limits;

/// Sets the guard, unless it already names the same or a later generation. Returns whether it was set, and
/// the guard.
const CLAIM: &str = "local now=redis.call('GET',KEYS[1]) \
                     local generation=now and tonumber(string.match(now,'^%-?%d+')) \
                     if generation and generation>=tonumber(ARGV[1]) then return {0,now} end \
                     redis.call('SET',KEYS[1],ARGV[2]) return {1,ARGV[2]}";

pub(super) struct Monitor {
    pub(super) link: Arc<Link>,
    pub(super) endpoint: RedisEndpoint,
    pub(super) keyspace: Keyspace,
    /// The hash tag of the guard: in a cluster, each server has a guard in one of its own slots.
    pub(super) tag: watch::Receiver<String>,
}

/// The state that is kept from one check to the next.
#[derive(Default)]
struct Memory {
    /// The generation, and the highest beat seen in it.
    beat: Option<(i64, i64)>,
    /// The scan cursor of the deletion of old keys.
    cleaning: Option<String>,
    /// When old keys are deleted once more: a node that did not know the new generation yet may have written
    /// old keys.
    clean_again_at: Option<Instant>,
    /// When old keys were last deleted because the server had no memory for a guard.
    found_full_at: Option<Instant>,
    /// Why the server does not report changes of the guard, as it was logged last.
    logged_refusal: Option<String>,
}

/// A connection of the driver to one server.
struct Connection {
    info: ConnectionInfo,
    redis: MultiplexedConnection,
    tracking: Tracking,
    /// The run id of the server, once it is known: it cannot change on one connection.
    run_id: Option<Arc<str>>,
}

/// Whether the server reports changes of the guard on this connection.
enum Tracking {
    Untried(Changes),
    Works(Changes),
    /// It does not, for this reason.
    Refused(String),
}

/// A server's answers about itself.
struct Seen {
    run_id: Arc<str>,
    /// Run id and replication id. They change whenever the data may have been replaced.
    identity: String,
    guard: Option<String>,
    /// None: the server does not report changes of this value of the guard.
    tracked: Option<TrackedGuard>,
    /// None when the memory of the server is full and it refuses to count.
    beat: Option<i64>,
    is_full: bool,
}

enum CheckError {
    /// The connection cannot be used; connect again.
    Reconnect(String),
    /// The server is the right one, but refuses for now; stay connected.
    Refused(String),
}

/// Without the valid generation, no key may be used.
impl From<Error> for CheckError {
    fn from(error: Error) -> Self {
        Self::Refused(error.to_string())
    }
}

impl Monitor {
    /// Runs until the last `Redis` is dropped.
    pub(super) async fn run(self) {
        let (mut memory, mut backoff) = (Memory::default(), limits::REDIS_BACKOFF_MIN);
        loop {
            match connect(&self.endpoint).await {
                Ok(connection) => {
                    self.link.server.store(Some(Arc::new(connection.info.clone())));
                    if self.serve(connection, &mut memory).await {
                        backoff = limits::REDIS_BACKOFF_MIN;
                    }
                }
                Err(why) => self.away(why),
            }
            sleep_until(Instant::now() + backoff).await;
            backoff = (backoff * 2).min(limits::REDIS_BACKOFF_MAX);
        }
    }

    fn away(&self, why: String) {
        self.link.set(None, Health::Away(why));
        self.link.primary.send_replace(None);
    }

    /// Checks the server until the connection must be given up. Returns true when it took commands.
    async fn serve(&self, mut connection: Connection, memory: &mut Memory) -> bool {
        let (mut served, mut refuses_since) = (false, None);
        let (mut names, mut tag) = (self.keyspace.changes(), self.tag.clone());
        loop {
            let checked_at = Instant::now();
            self.try_tracking(&mut connection, memory).await;
            match self.check(&mut connection, memory).await {
                Ok((confirmed, seen)) => {
                    (served, refuses_since) = (true, None);
                    let health = match seen.is_full {
                        true => Health::Full(fault::explained("OOM")),
                        false => Health::Writable,
                    };
                    let live = Live { connection: connection.redis.clone(), confirmed: Some(confirmed) };
                    self.link.set(Some(live), health);
                    self.link.primary.send_if_modified(|primary| {
                        let is_new = primary.as_ref() != Some(&seen.run_id);
                        *primary = Some(seen.run_id);
                        is_new
                    });
                }
                Err(CheckError::Reconnect(why)) => {
                    self.away(why);
                    return served;
                }
                Err(CheckError::Refused(why)) => {
                    let live = Live { connection: connection.redis.clone(), confirmed: None };
                    self.link.set(Some(live), Health::Refuses(why));
                    let since = *refuses_since.get_or_insert(checked_at);
                    if since.elapsed() >= limits::REDIS_REFUSES_WRITES_MAX {
                        return served;
                    }
                }
            }
            if memory.cleaning.is_none() && memory.clean_again_at.is_some_and(|at| at <= Instant::now()) {
                memory.cleaning = Some("0".to_owned());
                memory.clean_again_at = None;
            }
            if memory.cleaning.is_some() {
                self.clean(&mut connection.redis, memory).await;
            }
            let next_check = if memory.cleaning.is_some() {
                limits::REDIS_CLEAN_STEPS_APART
            } else if refuses_since.is_some() {
                limits::REDIS_REFUSES_WRITES_MAX / 2
            } else {
                limits::REDIS_CHECK_EVERY
            };
            tokio::select! {
                () = sleep_until(checked_at + next_check) => {}
                () = self.link.check_requested.notified() => sleep_until(checked_at + limits::REDIS_CHECKS_APART).await,
                _ = names.changed() => {}
                Ok(()) = tag.changed() => {}
            }
            if self.endpoint.has_moved_from(&connection.info).await {
                self.away("the sentinels name another primary".to_owned());
                return served;
            }
        }
    }

    /// The guard key of the server, and its counter of beats. None: the keyspace has no guard.
    fn guard_and_beats(&self) -> Option<(String, String)> {
        let (namespace, tag) = (self.keyspace.namespace()?, self.tag.borrow());
        Some((format!("{namespace}:guard:{}", *tag), format!("{namespace}:beat:{}", *tag)))
    }

    /// Makes the server report changes of the guard, if that was not tried on this connection. Without these
    /// reports, every batch of commands reads the guard.
    async fn try_tracking(&self, connection: &mut Connection, memory: &mut Memory) {
        let Some((_, beats)) = self.guard_and_beats() else { return };
        if let Tracking::Untried(changes) = &connection.tracking {
            let changes = changes.clone();
            match tracking::start(&mut connection.redis, &changes, &beats).await {
                Attempt::Works => connection.tracking = Tracking::Works(changes),
                Attempt::Refused(why) => connection.tracking = Tracking::Refused(why),
                Attempt::Unknown => {}
            }
        }
        match &connection.tracking {
            Tracking::Refused(why) if memory.logged_refusal.as_ref() != Some(why) => {
                tracing::info!(
                    "Redis does not report changes of the guard key, so each batch of commands has one more \
                     command that reads it: {why}"
                );
                memory.logged_refusal = Some(why.clone());
            }
            _ => {}
        }
    }

    /// Checks the server, and settles which generation of keys is valid on it.
    async fn check(
        &self,
        connection: &mut Connection,
        memory: &mut Memory,
    ) -> Result<(Confirmed, Seen), CheckError> {
        let Some((key, beats)) = self.guard_and_beats() else {
            let seen = self.ask(connection, None).await?;
            return Ok((Confirmed { generation: 0, guard: None, tracked: None }, seen));
        };
        let mut seen = self.ask(connection, Some((&key, &beats))).await?;
        // While Postgres is not reachable, no node can raise the generation: the one that this node knows is
        // valid as long as the guard agrees.
        if let Some(fleet_generation) = self.keyspace.last_polled() {
            self.adopt_raised(fleet_generation);
        }
        for _ in 0..limits::REDIS_GUARD_ROUNDS_MAX {
            let generation = self.keyspace.names().generation;
            let text = format!("{generation} {}", seen.identity);
            if seen.guard.as_deref() == Some(text.as_str()) {
                let before = memory.beat.filter(|(of, _)| *of == generation).map(|(_, beat)| beat);
                let fell = matches!((before, seen.beat), (Some(before), Some(now)) if now <= before);
                if !fell {
                    if let Some(beat) = seen.beat {
                        memory.beat = Some((generation, beat));
                        if beat % limits::REDIS_CLEAN_BEATS == 0 {
                            memory.cleaning = Some("0".to_owned());
                        }
                    }
                    let (guard, tracked) = (Some(RedisGuard { key, text }), seen.tracked.take());
                    return Ok((Confirmed { generation, guard, tracked }, seen));
                }
                let why = "the server's data is older than what this node has seen";
                let next = self.raise(generation, generation, why).await?;
                self.claim(&mut connection.redis, memory, &key, next, &mut seen).await?;
                continue;
            }
            let fleet_generation = self.keyspace.read_generation().await?;
            let guard = seen.guard.as_deref().and_then(generation_of);
            let next = match guard {
                Some((of, identity)) if of == fleet_generation && identity == seen.identity => {
                    self.keyspace.adopt(fleet_generation);
                    continue;
                }
                // Keys of a later generation were never written to this server.
                Some((of, _)) if of < fleet_generation => fleet_generation,
                Some((of, _)) => {
                    let why = match of > fleet_generation {
                        true => "Postgres has lost a generation that Redis has",
                        false => "the server was restarted, or a replica took over, and writes may be lost",
                    };
                    self.raise(fleet_generation, of.max(generation), why).await?
                }
                None => {
                    self.raise(
                        fleet_generation,
                        fleet_generation.max(generation),
                        "the server holds no data of this fleet",
                    )
                    .await?
                }
            };
            self.claim(&mut connection.redis, memory, &key, next, &mut seen).await?;
        }
        Err(CheckError::Refused("the nodes do not yet agree on the generation of Redis keys".to_owned()))
    }

    /// Adopts a generation that another node raised. A lower one means that Postgres lost history; the guard
    /// shows that.
    fn adopt_raised(&self, fleet_generation: i64) {
        if fleet_generation > self.keyspace.names().generation {
            self.keyspace.adopt(fleet_generation);
        }
    }

    async fn raise(&self, expected: i64, known: i64, why: &str) -> Result<i64, CheckError> {
        let next = self.keyspace.raise(expected, known).await?;
        tracing::warn!(
            generation = next,
            "the fleet's data in Redis is void and is rebuilt from Postgres: {why}"
        );
        metrics::counter!("switchboard_redis_voids_total").increment(1);
        Ok(next)
    }

    /// Writes the guard for the generation, unless it names a later one. The node that writes it deletes the
    /// old keys. When the memory of the server is full, the node deletes them first.
    async fn claim(
        &self,
        connection: &mut MultiplexedConnection,
        memory: &mut Memory,
        key: &str,
        generation: i64,
        seen: &mut Seen,
    ) -> Result<(), CheckError> {
        let text = format!("{generation} {}", seen.identity);
        let claim = packed(&["EVAL", CLAIM, "1", key, &generation.to_string(), &text]);
        match one(connection, &claim).await? {
            Value::Array(items) => match &items[..] {
                [Value::Int(set), Value::BulkString(now)] => {
                    if *set == 1 {
                        memory.cleaning = Some("0".to_owned());
                        memory.clean_again_at = Some(Instant::now() + limits::REDIS_CLEAN_AGAIN_AFTER);
                    }
                    seen.guard = Some(String::from_utf8_lossy(now).into_owned());
                    // The next check makes the server report changes of the new value.
                    seen.tracked = None;
                    self.adopt_raised(generation);
                    Ok(())
                }
                _ => Err(CheckError::Refused("the guard key cannot be written".to_owned())),
            },
            Value::ServerError(error) => {
                // The void keys themselves may fill the memory. Then no guard can be written before the node
                // has deleted some of them.
                let is_due =
                    memory.found_full_at.is_none_or(|at| at.elapsed() >= limits::REDIS_CLEAN_AGAIN_AFTER);
                if Fault::of(&error) == Fault::Full && is_due {
                    self.adopt_raised(generation);
                    memory.cleaning.get_or_insert_with(|| "0".to_owned());
                    memory.found_full_at = Some(Instant::now());
                }
                Err(check_error(fault::code(&error)))
            }
            _ => Err(CheckError::Refused("the guard key cannot be written".to_owned())),
        }
    }

    /// Reads role, identity, guard and beat in one round trip.
    async fn ask(
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

    /// Runs one step of deleting keys of earlier generations.
    async fn clean(&self, connection: &mut MultiplexedConnection, memory: &mut Memory) {
        let (Some(cursor), Some(namespace)) = (memory.cleaning.take(), self.keyspace.namespace()) else {
            return;
        };
        let generation = self.keyspace.names().generation;
        let scan = [
            "SCAN",
            &cursor,
            "MATCH",
            &format!("{namespace}:*"),
            "COUNT",
            &limits::REDIS_SCAN_KEYS.to_string(),
        ];
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
            let _ = timeout(limits::REDIS_SILENCE_MAX, connection.send_packed_commands(&pipeline, 0, count))
                .await;
        }
        memory.cleaning = (next != b"0").then(|| String::from_utf8_lossy(next).into_owned());
    }
}

/// True for a key of an earlier generation of this fleet.
fn is_older(key: &str, namespace: &str, generation: i64) -> bool {
    let rest = key.strip_prefix(namespace).and_then(|rest| rest.strip_prefix(':'));
    let of = rest.and_then(|rest| rest.split_once(':')).and_then(|(of, _)| of.parse::<i64>().ok());
    of.is_some_and(|of| of < generation)
}

fn check_error(code: &str) -> CheckError {
    match Fault::of_code(code) {
        Fault::Server => CheckError::Reconnect(fault::explained(code)),
        Fault::Refusal | Fault::Full | Fault::Moved | Fault::Caller => {
            CheckError::Refused(fault::explained(code))
        }
    }
}

/// Parses a guard: `{generation} {run id} {replication id}`.
fn generation_of(guard: &str) -> Option<(i64, &str)> {
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

async fn one(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, CheckError> {
    match timeout(limits::REDIS_SILENCE_MAX, connection.send_packed_command(command)).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => match error.code() {
            Some(code) => Err(check_error(code)),
            None => Err(CheckError::Reconnect(reason(&error))),
        },
        Err(_) => Err(CheckError::Reconnect("the server did not answer in time".to_owned())),
    }
}

/// Opens a connection with RESP3, in which a server can report changes of keys. Servers and proxies that know
/// only RESP2 get that.
async fn connect(endpoint: &RedisEndpoint) -> Result<Connection, String> {
    let info = endpoint.find().await?;
    let changes = Changes::default();
    let login = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let with_pushes = settings().set_push_sender(changes.counter());
    let (redis, tracking) = match open(info.clone().set_redis_settings(login), &with_pushes).await {
        Ok(redis) => (redis, Tracking::Untried(changes)),
        Err(error) if is_about_resp3(&error) => {
            let why = format!("it refuses RESP3 ({})", reason(&error));
            let login = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
            let redis = open(info.clone().set_redis_settings(login), &settings()).await;
            (redis.map_err(|error| reason(&error))?, Tracking::Refused(why))
        }
        Err(error) => return Err(reason(&error)),
    };
    Ok(Connection { info, redis, tracking, run_id: None })
}

fn settings() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(limits::REDIS_SILENCE_MAX))
        // No response time-out, because each call has its own deadline.
        .set_response_timeout(None)
        .set_pipeline_buffer_size(limits::REDIS_QUEUE_MAX)
}

async fn open(
    info: ConnectionInfo,
    settings: &AsyncConnectionConfig,
) -> Result<MultiplexedConnection, RedisError> {
    Client::open(info)?.get_multiplexed_async_connection_with_config(settings).await
}

/// Whether a connection may have failed because it began with `HELLO 3`. A proxy may end the connection
/// instead of answering. Any other error would be the same with RESP2: a server that is not there, or has too
/// many clients.
fn is_about_resp3(error: &RedisError) -> bool {
    match error.code() {
        Some(code) => {
            let is_full = error.detail().is_some_and(|text| text.contains("max number of clients"));
            Fault::of_code(code) != Fault::Server && !is_full
        }
        None => {
            let is_dropped = error.is_connection_dropped() && !error.is_connection_refusal();
            error.kind() == ErrorKind::RESP3NotSupported || is_dropped
        }
    }
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
