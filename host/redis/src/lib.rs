//! Redis: one connection for the commands of all handlers (`link`), kept by a task that makes sure that its server is the
//! writable primary of this fleet (`keeper`), and one for what the bus hears (`pubsub`). Nothing in Redis is the truth, so
//! while it is away everything is answered `unavailable` at once.
//!
//! Handlers and their scripts know keys by their own names; `keyspace` puts the fleet and the generation before them. Which
//! keys a handler may touch is checked by `interfaces` with [`keys`].

use switchboard_contract as contract;
use switchboard_core::{config, limits, manifest};

mod bounds;
mod cluster;
mod fault;
mod guard;
mod keeper;
pub mod keys;
mod keyspace;
mod kill;
mod link;
mod place;
pub mod pubsub;
mod reply;
mod steps;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::Config;
use crate::contract::redis::{Error, Node};
use crate::manifest::Pattern;
use cluster::{Cluster, slot_of_command, slot_of_key};
use keeper::Keeper;
use keyspace::Names;
use link::{Health, Link, batch};
use place::Place;

pub use keyspace::{GenerationFuture, Generations, Keyspace, namespace};

const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(limits::REDIS_BACKOFF_MS_MAX);
const SILENCE_MAX: Duration = Duration::from_millis(limits::REDIS_SILENCE_MS_MAX);
/// Keys that one step of `forget` walks over.
const FORGET_KEYS: &str = "2000";
/// The hash tag of the guard of a Redis that is one server.
const GUARD_TAG: &str = "{0}";

/// A Lua script of a release, run by its hash.
#[derive(Clone, Debug)]
pub struct Script {
    pub name: String,
    pub text: String,
    /// In hex, as `EVALSHA` wants it.
    pub sha1: String,
}

impl Script {
    /// Behind the checks that keep it inside these grants.
    pub fn new(name: impl Into<String>, text: &str, grants: &[Pattern]) -> Self {
        let (name, text) = (name.into(), guard::guarded(text, grants));
        let sha1 = redis::Script::new(&text).get_hash().to_owned();
        Self { name, text, sha1 }
    }
}

#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    link: Arc<Link>,
    place: Place,
    keyspace: Keyspace,
    /// Then every command goes by it, and the link above only says whether it is up.
    cluster: Option<Cluster>,
    tasks: Vec<JoinHandle<()>>,
}

impl Redis {
    /// Only a setting can be wrong here: a Redis that is away is tried again and again.
    pub fn connect(config: &Config, keyspace: Keyspace) -> Result<Self, config::Error> {
        let url = config.redis_url()?;
        let place = Place::parse(url).map_err(|reason| config::Error::Invalid {
            source: "redis_url".to_owned(),
            // The text of a URL that does not parse may hold a password.
            reason: format!("not a Redis URL ({reason})"),
        })?;
        let link = Arc::new(Link::default());
        let (cluster, tasks) = match &place {
            Place::Among(seeds) => {
                let (cluster, keeper) = Cluster::start(seeds.clone(), link.clone(), keyspace.clone());
                (Some(cluster), vec![keeper])
            }
            place => {
                let (_, tag) = watch::channel(GUARD_TAG.to_owned());
                (None, spawn_keeper(link.clone(), place.clone(), keyspace.clone(), tag))
            }
        };
        Ok(Self(Arc::new(Inner { link, place, keyspace, cluster, tasks })))
    }

    /// Whether commands are taken now.
    pub fn is_up(&self) -> bool {
        self.0.link.is_up()
    }

    /// Whether Redis is a writable primary now, and if not, why. It asks nobody: the answer is at most half a second old, so
    /// a readiness check may ask as often as it likes. In a cluster every server must be one.
    pub fn writable_primary(&self) -> Result<(), String> {
        self.0.link.health.borrow().writable()
    }

    /// Resolves when it is up; for whoever starts.
    pub async fn up(&self) {
        // The sender lives in the same link.
        let _ = self.0.link.health.subscribe().wait_for(Health::takes_commands).await;
    }

    /// Everything that Redis holds for the fleet is void from now on: no node reads or writes it again, and the read model
    /// is rebuilt from Postgres. For whoever finds that Redis may hold what is not true any more. The other nodes follow
    /// within a second; until then a node's writes to what is void are answered `unavailable` once one node has begun.
    pub async fn void(&self, why: &str) -> Result<(), String> {
        let expected = self.0.keyspace.truth().await?;
        let generation = self.0.keyspace.raise(expected, self.0.keyspace.names().generation).await?;
        tracing::warn!(generation, "what Redis holds is dropped and rebuilt from Postgres: {why}");
        metrics::counter!("switchboard_redis_voids_total").increment(1);
        // The links follow, and answer `unavailable` until their servers have confirmed it.
        self.0.keyspace.adopt(generation);
        Ok(())
    }

    pub async fn command(&self, args: &[String], deadline: Instant) -> Result<Vec<Node>, Error> {
        check(&[args])?;
        let names = self.0.keyspace.names();
        let words = names.command(args)?;
        let slot = self.slot_of(&words);
        let reply = self.send(&names, slot, packed_words(&words), false, deadline).await?;
        reply::nodes(names.answer(&args[0], reply))
    }

    pub async fn pipeline(
        &self,
        commands: &[Vec<String>],
        deadline: Instant,
    ) -> Result<Vec<Vec<Node>>, Error> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        if commands.len() > limits::REDIS_PIPELINE_MAX {
            let most = limits::REDIS_PIPELINE_MAX;
            return Err(Error::Refused(format!("a pipeline has at most {most} commands")));
        }
        check(commands)?;
        let names = self.0.keyspace.names();
        let mut sent = Vec::with_capacity(commands.len());
        for args in commands {
            let words = names.command(args)?;
            sent.push((self.slot_of(&words), packed_words(&words)));
        }
        let replies = self.send_all(&names, sent, false, deadline).await?;
        let named = commands.iter().zip(replies).map(|(args, reply)| names.answer(&args[0], reply));
        reply::replies(named.collect())
    }

    /// Deletes every key of the fleet that matches one of the patterns, a step at a time: for an operator, not for a handler.
    /// Returns how many keys were deleted.
    pub async fn forget(&self, patterns: &[Pattern]) -> Result<u64, Error> {
        let links = match &self.0.cluster {
            Some(cluster) => cluster.links(),
            None => vec![self.0.link.clone()],
        };
        let mut forgotten = 0;
        for link in &links {
            forgotten += self.forget_on(link, patterns).await?;
        }
        Ok(forgotten)
    }

    async fn forget_on(&self, link: &Link, patterns: &[Pattern]) -> Result<u64, Error> {
        let names = self.0.keyspace.names();
        let (mut cursor, mut forgotten) = ("0".to_owned(), 0);
        loop {
            let matching = format!("{}*", names.prefix());
            let scan = packed(&["SCAN", &cursor, "MATCH", &matching, "COUNT", FORGET_KEYS]);
            let scan = batch([scan], names.generation, false);
            let reply = link.send(scan, Instant::now() + SILENCE_MAX).await?.pop();
            let Some(Value::Array(found)) = reply else { return Err(Error::Unavailable) };
            let [Value::BulkString(next), Value::Array(keys)] = &found[..] else {
                return Err(Error::Unavailable);
            };
            let unlinks = unlinks(&names, keys, patterns);
            if !unlinks.is_empty() {
                forgotten += unlinks.len() as u64;
                let unlinks = batch(unlinks, names.generation, false);
                link.send(unlinks, Instant::now() + SILENCE_MAX).await?;
            }
            if next == b"0" {
                return Ok(forgotten);
            }
            cursor = String::from_utf8_lossy(next).into_owned();
        }
    }

    /// By its hash; the text goes along only where Redis does not know it.
    pub async fn script(
        &self,
        script: &Script,
        keys: &[String],
        args: &[String],
        deadline: Instant,
    ) -> Result<Vec<Node>, Error> {
        check_size(&[keys, args])?;
        let names = self.0.keyspace.names();
        let keys: Vec<String> = keys.iter().map(|key| names.key(key)).collect();
        let count = keys.len().to_string();
        let say = |how, what| {
            let head = [how, what, count.as_str()];
            let words = head.into_iter().chain(keys.iter().chain(args).map(String::as_str));
            // The prelude takes the prefix of keys away again (`guard`).
            let words: Vec<&str> = words.chain([names.prefix()]).collect();
            packed(&words)
        };
        let slot = keys.first().map(|key| slot_of_key(key));
        match self.send(&names, slot, say("EVALSHA", &script.sha1), true, deadline).await {
            Ok(Value::ServerError(error)) if error.code() == "NOSCRIPT" => {}
            Ok(reply) => return reply::nodes(reply),
            Err(Error::Failed(reason)) if reason.contains("NOSCRIPT") => {}
            Err(error) => return Err(error),
        }
        reply::nodes(self.send(&names, slot, say("EVAL", &script.text), true, deadline).await?)
    }

    /// What Redis says to a script that is not Lua. It is compiled, not run. None where it compiles, and where nobody can
    /// say: Redis is away, or does not let this user load scripts.
    pub async fn complaint(&self, script: &Script, deadline: Instant) -> Option<String> {
        let load = packed(&["SCRIPT", "LOAD", &script.text]);
        let names = self.0.keyspace.names();
        match self.send(&names, None, load, false, deadline).await.and_then(reply::nodes) {
            Err(Error::Failed(said)) if said.contains("compiling script") => Some(said),
            _ => None,
        }
    }

    /// Messages for the bus, in one round trip. How many heard them is not looked at.
    pub async fn publish(
        &self,
        messages: &[(impl AsRef<[u8]>, impl AsRef<[u8]>)],
        deadline: Instant,
    ) -> Result<(), Error> {
        for messages in messages.chunks(limits::REDIS_PIPELINE_MAX) {
            let publish = |(channel, payload): &(_, _)| {
                let (channel, payload): (&[u8], &[u8]) = (AsRef::as_ref(channel), AsRef::as_ref(payload));
                packed(&[b"PUBLISH", channel, payload])
            };
            let mut pipeline = Pipeline::with_capacity(messages.len());
            for message in messages {
                pipeline.add_command(publish(message));
            }
            let link = match &self.0.cluster {
                Some(cluster) => cluster.any_link()?,
                None => self.0.link.clone(),
            };
            for reply in link.publish(&pipeline, messages.len(), deadline).await? {
                if let Value::ServerError(error) = reply {
                    return Err(Error::Failed(error.to_string()));
                }
            }
        }
        Ok(())
    }

    /// Where the bus listens.
    pub fn subscriber(&self) -> (pubsub::Subscriber, pubsub::Heard) {
        // Every server of a cluster hears everything.
        let primary = self.0.cluster.is_none().then(|| self.0.link.primary.subscribe());
        pubsub::listen(self.0.place.clone(), primary)
    }

    /// Only a cluster asks where a command belongs.
    fn slot_of(&self, words: &[Cow<'_, str>]) -> Option<u16> {
        self.0.cluster.as_ref().and_then(|_| slot_of_command(words))
    }

    async fn send(
        &self,
        names: &Names,
        slot: Option<u16>,
        command: Cmd,
        is_script: bool,
        deadline: Instant,
    ) -> Result<Value, Error> {
        let sent = vec![(slot, command)];
        self.send_all(names, sent, is_script, deadline).await?.pop().ok_or(Error::Unavailable)
    }

    async fn send_all(
        &self,
        names: &Names,
        commands: Vec<(Option<u16>, Cmd)>,
        has_script: bool,
        deadline: Instant,
    ) -> Result<Vec<Value>, Error> {
        if let Some(cluster) = &self.0.cluster {
            return cluster.run(&commands, names.generation, has_script, deadline).await;
        }
        let commands = commands.into_iter().map(|(_, command)| command);
        self.0.link.send(batch(commands, names.generation, has_script), deadline).await
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The tasks of one link: one keeps it, one ends scripts that do not end.
fn spawn_keeper(
    link: Arc<Link>,
    place: Place,
    keyspace: Keyspace,
    tag: watch::Receiver<String>,
) -> Vec<JoinHandle<()>> {
    let killer = tokio::spawn(kill::run(link.clone(), place.clone()));
    vec![tokio::spawn(Keeper { link, place, keyspace, tag }.run()), killer]
}

fn check(commands: &[impl AsRef<[String]>]) -> Result<(), Error> {
    if commands.iter().any(|args| args.as_ref().is_empty()) {
        return Err(Error::Refused("a command without a name".to_owned()));
    }
    let mut bytes = 0;
    for args in commands.iter().map(AsRef::as_ref) {
        let excess = bounds::excess(args).map_err(Error::Refused)?;
        bytes += args.iter().map(String::len).sum::<usize>() + excess;
    }
    within(bytes)
}

fn check_size(words: &[impl AsRef<[String]>]) -> Result<(), Error> {
    let bytes: usize = words.iter().flat_map(|words| words.as_ref()).map(String::len).sum();
    within(bytes)
}

fn within(bytes: usize) -> Result<(), Error> {
    if bytes > limits::REDIS_COMMAND_BYTES_MAX {
        return Err(Error::Refused(format!(
            "commands have at most {} bytes",
            limits::REDIS_COMMAND_BYTES_MAX
        )));
    }
    Ok(())
}

fn packed(args: &[impl AsRef<[u8]>]) -> Cmd {
    let mut command = Cmd::new();
    for arg in args {
        command.arg(arg.as_ref());
    }
    command
}

/// The deletions of those keys whose names match one of the patterns.
fn unlinks(names: &Names, keys: &[Value], patterns: &[Pattern]) -> Vec<Cmd> {
    let mut unlinks = Vec::new();
    for key in keys {
        if let Value::BulkString(key) = key
            && let Ok(key) = std::str::from_utf8(key)
            && let Some(name) = key.strip_prefix(names.prefix())
            && patterns.iter().any(|pattern| pattern.matches(name))
        {
            unlinks.push(packed(&["UNLINK", key]));
        }
    }
    unlinks
}

fn packed_words(words: &[Cow<'_, str>]) -> Cmd {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    packed(&words)
}
