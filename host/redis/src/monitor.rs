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

mod answers;
mod cleaning;
mod connection;

use std::sync::Arc;

use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::endpoint::RedisEndpoint;
use super::fault::{self, Fault};
use super::keyspace::Keyspace;
use super::link::{Confirmed, Health, Link, Live, RedisGuard};
use super::packed;
use super::tracking::{self, Attempt};
use answers::{Seen, generation_of};
use connection::{CheckError, Connection, Tracking, check_error, connect, one};
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
}
