//! Access to Redis: one connection for the commands of all handlers (`link`), with a background task that
//! makes sure that its server is the writable primary of this fleet (`monitor`), and one connection for the
//! messages of the bus (`pubsub`). Redis holds no data that cannot be rebuilt, so while it is not usable
//! every command fails with `unavailable` at once.
//!
//! Handlers and their scripts use their own names for keys; `keyspace` adds the fleet and the generation as a
//! prefix. `interfaces` checks with [`keys`] which keys a handler may touch.

mod bounds;
mod cluster;
mod endpoint;
mod error;
mod fault;
pub mod keys;
mod keyspace;
mod kill;
mod link;
mod monitor;
mod prelude;
pub mod pubsub;
mod reply;
mod steps;
#[cfg(test)]
mod tests;
mod tracking;

use std::borrow::Cow;
use std::sync::Arc;

use redis::{Cmd, Pipeline, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use cluster::{Cluster, slot_of_command, slot_of_key};
use endpoint::RedisEndpoint;
use keyspace::Names;
use link::{Health, Link, batch};
use monitor::Monitor;
use switchboard_contract::redis::{Error as CommandError, Node, ScriptRun};
use switchboard_core::config::Config;
use switchboard_core::limits;
use switchboard_core::manifest::Pattern;

pub use error::Error;
pub use keyspace::{GenerationFuture, Generations, Keyspace, namespace};

/// The hash tag of the guard key when Redis is a single server. A guard key names the server and the
/// generation of its keys ([`monitor`]).
const GUARD_TAG: &str = "{0}";

/// A Lua script of a release, run by its hash.
#[derive(Clone, Debug)]
pub struct Script {
    pub name: String,
    /// The prelude and the text of the release's file. The prelude adds no line, so an error of Redis has the
    /// line number of the file.
    pub text: String,
    /// In hex, as `EVALSHA` expects it.
    pub sha1: String,
}

impl Script {
    /// Puts the [`prelude`] before the script. Its checks keep the script inside these grants.
    pub fn new(name: impl Into<String>, text: &str, grants: &[Pattern]) -> Self {
        let (name, text) = (name.into(), prelude::with_prelude(text, grants));
        let sha1 = redis::Script::new(&text).get_hash().to_owned();
        Self { name, text, sha1 }
    }
}

#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    link: Arc<Link>,
    endpoint: RedisEndpoint,
    keyspace: Keyspace,
    /// Sends every command if Redis is a cluster. Then `link` sends none, and only has the state of the
    /// cluster.
    cluster: Option<Cluster>,
    /// The run id of the server that took the last publication.
    publisher: watch::Sender<Option<Arc<str>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Redis {
    /// Starts to connect. Fails only when a setting is wrong: the background task keeps trying to reach a
    /// Redis that is not reachable.
    pub fn connect(config: &Config, keyspace: Keyspace) -> Result<Self, Error> {
        let url = config.redis_url()?;
        let endpoint = RedisEndpoint::parse(url).map_err(|reason| switchboard_core::Error::Setting {
            place: "redis_url".to_owned(),
            // The text of a URL that does not parse may hold a password.
            reason: format!("not a Redis URL ({reason})"),
        })?;
        let link = Arc::new(Link::default());
        let (cluster, tasks) = match &endpoint {
            RedisEndpoint::Cluster(seeds) => {
                let (cluster, monitor) = Cluster::start(seeds.clone(), link.clone(), keyspace.clone());
                (Some(cluster), vec![monitor])
            }
            endpoint => {
                let (_, tag) = watch::channel(GUARD_TAG.to_owned());
                (None, spawn_tasks(link.clone(), endpoint.clone(), keyspace.clone(), tag))
            }
        };
        let publisher = watch::Sender::new(None);
        Ok(Self(Arc::new(Inner { link, endpoint, keyspace, cluster, publisher, tasks })))
    }

    /// True when Redis takes commands now.
    pub fn is_up(&self) -> bool {
        self.0.link.is_up()
    }

    /// Says whether Redis is a writable primary now, and if not, why. It sends no command: the answer is at
    /// most half a second old, so a readiness check may call it as often as it likes. In a cluster, every
    /// server must be a writable primary.
    pub fn writable_primary(&self) -> Result<(), String> {
        self.0.link.health.borrow().writable()
    }

    /// Resolves when Redis takes commands. For the start of a node.
    pub async fn up(&self) {
        // The sender is a field of the same link.
        let _ = self.0.link.health.subscribe().wait_for(Health::takes_commands).await;
    }

    /// Runs one command of a handler. Its keys are names without a prefix, and so are keys in the answer.
    pub async fn command(&self, args: &[String], deadline: Instant) -> Result<Vec<Node>, CommandError> {
        check_commands(&[args])?;
        let names = self.0.keyspace.names();
        let words = names.with_prefix(args)?;
        let slot = self.slot_of(&words);
        let reply = self.send(&names, slot, packed_words(&words), false, deadline).await?;
        reply::nodes(handlers_form(&names, args, reply))
    }

    /// Runs commands of a handler in one round trip, without a transaction. Returns an answer for each. More
    /// than [`limits::REDIS_PIPELINE_MAX`] commands are `refused`.
    pub async fn pipeline(
        &self,
        commands: &[Vec<String>],
        deadline: Instant,
    ) -> Result<Vec<Vec<Node>>, CommandError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        if commands.len() > limits::REDIS_PIPELINE_MAX {
            let most = limits::REDIS_PIPELINE_MAX;
            return Err(CommandError::Refused(format!("a pipeline has at most {most} commands")));
        }
        check_commands(commands)?;
        let names = self.0.keyspace.names();
        let mut sent = Vec::with_capacity(commands.len());
        for args in commands {
            let words = names.with_prefix(args)?;
            sent.push((self.slot_of(&words), packed_words(&words)));
        }
        let replies = self.send_all(&names, sent, false, deadline).await?;
        let formed = commands.iter().zip(replies).map(|(args, reply)| handlers_form(&names, args, reply));
        reply::replies(formed.collect())
    }

    /// Deletes every key of the fleet that matches one of the patterns, a step at a time. For operators, not
    /// for handlers. Returns the number of deleted keys.
    pub async fn forget(&self, patterns: &[Pattern]) -> Result<u64, CommandError> {
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

    async fn forget_on(&self, link: &Link, patterns: &[Pattern]) -> Result<u64, CommandError> {
        let names = self.0.keyspace.names();
        let (mut cursor, mut forgotten) = ("0".to_owned(), 0);
        loop {
            let matching = format!("{}*", names.prefix());
            let scan =
                packed(&["SCAN", &cursor, "MATCH", &matching, "COUNT", &limits::REDIS_SCAN_KEYS.to_string()]);
            let scan = batch([scan], names.generation, false);
            let reply = link.send(scan, Instant::now() + limits::REDIS_SILENCE_MAX).await?.pop();
            let Some(Value::Array(found)) = reply else { return Err(CommandError::Unavailable) };
            let [Value::BulkString(next), Value::Array(keys)] = &found[..] else {
                return Err(CommandError::Unavailable);
            };
            let unlinks = unlinks(&names, keys, patterns);
            if !unlinks.is_empty() {
                forgotten += unlinks.len() as u64;
                let unlinks = batch(unlinks, names.generation, false);
                link.send(unlinks, Instant::now() + limits::REDIS_SILENCE_MAX).await?;
            }
            if next == b"0" {
                return Ok(forgotten);
            }
            cursor = String::from_utf8_lossy(next).into_owned();
        }
    }

    /// Runs a script by its hash. The text is sent only when Redis does not know the hash.
    pub async fn script(
        &self,
        script: &Script,
        keys: &[String],
        args: &[String],
        deadline: Instant,
    ) -> Result<Vec<Node>, CommandError> {
        check_size(&[keys, args])?;
        let names = self.0.keyspace.names();
        let by_hash = run_command(&names, "EVALSHA", &script.sha1, keys, args);
        let slot = by_hash.0;
        match self.send(&names, slot, by_hash.1, true, deadline).await {
            Ok(Value::ServerError(error)) if error.code() == "NOSCRIPT" => {}
            Ok(reply) => return reply::nodes(reply),
            Err(CommandError::Failed(reason)) if reason.contains("NOSCRIPT") => {}
            Err(error) => return Err(error),
        }
        let (_, by_text) = run_command(&names, "EVAL", &script.text, keys, args);
        reply::nodes(self.send(&names, slot, by_text, true, deadline).await?)
    }

    /// Runs a script several times in one round trip. Returns a reply for each run. More than
    /// [`limits::REDIS_PIPELINE_MAX`] runs are `refused`.
    pub async fn scripts(
        &self,
        script: &Script,
        runs: &[ScriptRun],
        deadline: Instant,
    ) -> Result<Vec<Vec<Node>>, CommandError> {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        if runs.len() > limits::REDIS_PIPELINE_MAX {
            let most = limits::REDIS_PIPELINE_MAX;
            return Err(CommandError::Refused(format!("at most {most} runs of a script are sent at once")));
        }
        let words: Vec<&[String]> = runs.iter().flat_map(|run| [&run.keys[..], &run.args[..]]).collect();
        check_size(&words)?;
        let names = self.0.keyspace.names();
        let by_hash =
            runs.iter().map(|run| run_command(&names, "EVALSHA", &script.sha1, &run.keys, &run.args));
        let mut replies = self.send_all(&names, by_hash.collect(), true, deadline).await?;
        // Redis has restarted, or a server of the cluster never ran the script. The first run by its text
        // makes it known to its server, so mostly the others run by hash in their second attempt.
        for (reply, run) in replies.iter_mut().zip(runs) {
            if !matches!(reply, Value::ServerError(error) if error.code() == "NOSCRIPT") {
                continue;
            }
            let (slot, by_hash) = run_command(&names, "EVALSHA", &script.sha1, &run.keys, &run.args);
            *reply = self.send(&names, slot, by_hash, true, deadline).await?;
            if matches!(reply, Value::ServerError(error) if error.code() == "NOSCRIPT") {
                let (_, by_text) = run_command(&names, "EVAL", &script.text, &run.keys, &run.args);
                *reply = self.send(&names, slot, by_text, true, deadline).await?;
            }
        }
        reply::replies(replies)
    }

    /// Lets Redis compile a script without running it. Returns the message of Redis if the script does not
    /// compile. A deploy calls it for every script of a release, and refuses the release with this message.
    ///
    /// Returns `None` if the script compiles, and also if that is unknown: Redis does not answer before the
    /// deadline, or the user of `redis_url` may not run `SCRIPT LOAD`.
    pub async fn compile_error(&self, script: &Script, deadline: Instant) -> Option<String> {
        let load = packed(&["SCRIPT", "LOAD", &script.text]);
        let names = self.0.keyspace.names();
        // Nothing runs, so there is no script to kill at the deadline. In a cluster any server may answer.
        match self.send(&names, None, load, false, deadline).await.and_then(reply::nodes) {
            Err(CommandError::Failed(message)) if message.contains("compiling script") => Some(message),
            _ => None,
        }
    }

    /// Publishes messages of the bus in one round trip. The number of receivers is ignored. When the node
    /// moves to another server before the replies are there, the result is `unavailable`: the server that
    /// took the messages may have no subscribers any more.
    pub async fn publish(
        &self,
        messages: &[(impl AsRef<[u8]>, impl AsRef<[u8]>)],
        deadline: Instant,
    ) -> Result<(), CommandError> {
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
            let server = link.primary.borrow().clone();
            for reply in link.publish(&pipeline, messages.len(), deadline).await? {
                if let Value::ServerError(error) = reply {
                    return Err(CommandError::Failed(error.to_string()));
                }
            }
            if *link.primary.borrow() != server {
                return Err(CommandError::Unavailable);
            }
            self.0.publisher.send_if_modified(|last| {
                let is_another = *last != server;
                *last = server;
                is_another
            });
        }
        Ok(())
    }

    /// The run id of the server that took the last publication of this node. When it changes, the
    /// publications before the change may have reached nobody: after a failover the old primary takes
    /// publications until the node notices, and subscribers may have left it.
    pub fn publisher(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.0.publisher.subscribe()
    }

    /// Opens the connection on which the bus receives messages.
    pub fn subscriber(&self) -> (pubsub::Subscriber, pubsub::Messages) {
        // Every server of a cluster receives all messages.
        let primary = self.0.cluster.is_none().then(|| self.0.link.primary.subscribe());
        pubsub::listen(self.0.endpoint.clone(), primary)
    }

    /// The slot of the command's keys. `None` for a command without keys, and if Redis is not a cluster.
    fn slot_of(&self, words: &[Cow<'_, str>]) -> Option<u16> {
        self.0.cluster.as_ref().and_then(|_| slot_of_command(words))
    }

    /// Sends one command with keys of this generation. If `is_script`, and Redis has not answered within
    /// [`limits::REDIS_ANSWER_WAIT`], the node kills the script (`kill`).
    async fn send(
        &self,
        names: &Names,
        slot: Option<u16>,
        command: Cmd,
        is_script: bool,
        deadline: Instant,
    ) -> Result<Value, CommandError> {
        let sent = vec![(slot, command)];
        self.send_all(names, sent, is_script, deadline).await?.pop().ok_or(CommandError::Unavailable)
    }

    /// Sends commands in one round trip, or in one for each server of a cluster. `has_script` is as
    /// `is_script` in [`Self::send`].
    async fn send_all(
        &self,
        names: &Names,
        commands: Vec<(Option<u16>, Cmd)>,
        has_script: bool,
        deadline: Instant,
    ) -> Result<Vec<Value>, CommandError> {
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

/// The reply to a handler's command as handlers know it: in the form of RESP2, with the handler's names.
fn handlers_form(names: &Names, args: &[String], reply: Value) -> Value {
    names.without_prefix(&args[0], reply::in_resp2(&args[0], reply))
}

/// Starts the tasks of one link: one monitors its server, the other one ends scripts that run too long.
fn spawn_tasks(
    link: Arc<Link>,
    endpoint: RedisEndpoint,
    keyspace: Keyspace,
    tag: watch::Receiver<String>,
) -> Vec<JoinHandle<()>> {
    let killer = tokio::spawn(kill::run(link.clone(), endpoint.clone()));
    vec![tokio::spawn(Monitor { link, endpoint, keyspace, tag }.run()), killer]
}

/// Checks that each command has a name, and bounds the bytes of all of them. The bytes that Redis may have to
/// store beyond the words count too: `SETRANGE` with a large offset, for example.
fn check_commands(commands: &[impl AsRef<[String]>]) -> Result<(), CommandError> {
    if commands.iter().any(|args| args.as_ref().is_empty()) {
        return Err(CommandError::Refused("a command must have a name".to_owned()));
    }
    let mut bytes = 0;
    for args in commands.iter().map(AsRef::as_ref) {
        let added = bounds::added_bytes(args).map_err(CommandError::Refused)?;
        bytes += args.iter().map(String::len).sum::<usize>() + added;
    }
    check_bytes(bytes)
}

/// Bounds the bytes of a script's keys and arguments. The prelude bounds the commands that the script runs.
fn check_size(words: &[impl AsRef<[String]>]) -> Result<(), CommandError> {
    let bytes: usize = words.iter().flat_map(|words| words.as_ref()).map(String::len).sum();
    check_bytes(bytes)
}

fn check_bytes(bytes: usize) -> Result<(), CommandError> {
    if bytes > limits::REDIS_COMMAND_BYTES_MAX {
        return Err(CommandError::Refused(format!(
            "commands have at most {} bytes",
            limits::REDIS_COMMAND_BYTES_MAX
        )));
    }
    Ok(())
}

/// The command of one run of a script, and the slot of its first key.
fn run_command(
    names: &Names,
    how: &str,
    script: &str,
    keys: &[String],
    args: &[String],
) -> (Option<u16>, Cmd) {
    let keys: Vec<String> = keys.iter().map(|key| names.key(key)).collect();
    let count = keys.len().to_string();
    let head = [how, script, count.as_str()];
    let words = head.into_iter().chain(keys.iter().chain(args).map(String::as_str));
    // The prelude of the script removes the prefix of the keys again (`prelude`).
    let words: Vec<&str> = words.chain([names.prefix()]).collect();
    (keys.first().map(|key| slot_of_key(key)), packed(&words))
}

fn packed(args: &[impl AsRef<[u8]>]) -> Cmd {
    let mut command = Cmd::new();
    for arg in args {
        command.arg(arg.as_ref());
    }
    command
}

/// Returns the commands that delete the keys whose names match one of the patterns.
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
