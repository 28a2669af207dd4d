//! Redis: one connection for the commands of all handlers, which comes back by itself, and one for what the bus hears
//! (`pubsub`). Nothing in Redis is the truth, so while it is away everything is answered `unavailable` at once.
//!
//! Which keys a handler may touch is checked by `interfaces` with [`keys`].

mod cluster;
mod guard;
pub mod keys;
mod place;
pub mod pubsub;
mod reply;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionInfo, Pipeline, RedisError};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::{self, Config};
use crate::contract::redis::{Error, Node};
use crate::limits;
use crate::manifest::Pattern;
use cluster::{Cluster, slot_of_command, slot_of_key};
use place::Place;

const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(limits::REDIS_BACKOFF_MS_MAX);
const SILENCE_MAX: Duration = Duration::from_millis(limits::REDIS_SILENCE_MS_MAX);
/// Between two looks at an idle connection.
const PULSE: Duration = Duration::from_millis(500);

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
    /// Then every command goes by it, and the link above only says whether it is up.
    cluster: Option<Cluster>,
    keeper: JoinHandle<()>,
}

/// The connection as it is now, shared with the task that keeps it.
#[derive(Default)]
struct Link {
    connection: ArcSwapOption<MultiplexedConnection>,
    is_up: watch::Sender<bool>,
    /// A command found the connection dead.
    broken: Notify,
}

impl Redis {
    /// Only a setting can be wrong here: a Redis that is away is tried again and again.
    pub fn connect(config: &Config) -> Result<Self, config::Error> {
        let url = config.redis_url()?;
        let place = Place::parse(url).map_err(|reason| config::Error::Invalid {
            source: "redis_url".to_owned(),
            // The text of a URL that does not parse may hold a password.
            reason: format!("not a Redis URL ({reason})"),
        })?;
        let link = Arc::new(Link::default());
        let (cluster, keeper) = match &place {
            Place::Among(seeds) => {
                let (cluster, keeper) = Cluster::start(seeds.clone(), link.clone());
                (Some(cluster), keeper)
            }
            place => (None, tokio::spawn(keep(link.clone(), place.clone()))),
        };
        Ok(Self(Arc::new(Inner { link, place, cluster, keeper })))
    }

    pub fn is_up(&self) -> bool {
        match &self.0.cluster {
            Some(_) => *self.0.link.is_up.borrow(),
            None => self.0.link.connection.load().is_some(),
        }
    }

    /// Resolves when it is up; for whoever starts.
    pub async fn up(&self) {
        // The sender lives in the same link.
        let _ = self.0.link.is_up.subscribe().wait_for(|up| *up).await;
    }

    pub async fn command(&self, args: &[String], deadline: Instant) -> Result<Vec<Node>, Error> {
        check(&[args])?;
        reply::nodes(self.send(slot_of_command(args), packed(args), deadline).await?)
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
        let commands = commands.iter().map(|args| (slot_of_command(args), packed(args)));
        reply::replies(self.send_all(commands.collect(), deadline).await?)
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
        let count = keys.len().to_string();
        let say = |how, what| {
            let head = [how, what, count.as_str()];
            let words: Vec<&str> =
                head.into_iter().chain(keys.iter().chain(args).map(String::as_str)).collect();
            packed(&words)
        };
        let slot = keys.first().map(|key| slot_of_key(key));
        match self.send(slot, say("EVALSHA", &script.sha1), deadline).await {
            Ok(redis::Value::ServerError(error)) if error.code() == "NOSCRIPT" => {}
            Ok(reply) => return reply::nodes(reply),
            Err(Error::Failed(reason)) if reason.contains("NOSCRIPT") => {}
            Err(error) => return Err(error),
        }
        reply::nodes(self.send(slot, say("EVAL", &script.text), deadline).await?)
    }

    /// What Redis says to a script that is not Lua. It is compiled, not run. None where it compiles, and where nobody can
    /// say: Redis is away, or does not let this user load scripts.
    pub async fn complaint(&self, script: &Script, deadline: Instant) -> Option<String> {
        let load = packed(&["SCRIPT", "LOAD", &script.text]);
        match self.send(None, load, deadline).await.and_then(reply::nodes) {
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
                (None, packed(&[b"PUBLISH", channel, payload]))
            };
            for reply in self.send_all(messages.iter().map(publish).collect(), deadline).await? {
                if let redis::Value::ServerError(error) = reply {
                    return Err(Error::Failed(error.to_string()));
                }
            }
        }
        Ok(())
    }

    /// Where the bus listens.
    pub fn subscriber(&self) -> (pubsub::Subscriber, pubsub::Heard) {
        pubsub::listen(self.0.place.clone())
    }

    async fn send(&self, slot: Option<u16>, command: Cmd, deadline: Instant) -> Result<redis::Value, Error> {
        let Some(cluster) = &self.0.cluster else {
            return self.0.link.send(&command, deadline).await;
        };
        match cluster.run(&[(slot, command)], deadline).await?.pop() {
            Some(redis::Value::ServerError(error)) if is_away(error.code()) => Err(Error::Unavailable),
            Some(reply) => Ok(reply),
            None => Err(Error::Unavailable),
        }
    }

    async fn send_all(
        &self,
        commands: Vec<(Option<u16>, Cmd)>,
        deadline: Instant,
    ) -> Result<Vec<redis::Value>, Error> {
        if let Some(cluster) = &self.0.cluster {
            return cluster.run(&commands, deadline).await;
        }
        let mut pipeline = Pipeline::with_capacity(commands.len());
        let count = commands.len();
        for (_, command) in commands {
            pipeline.add_command(command);
        }
        self.0.link.send_all(&pipeline, count, deadline).await
    }
}

impl Link {
    async fn send(&self, command: &Cmd, deadline: Instant) -> Result<redis::Value, Error> {
        let mut connection = self.connection()?;
        self.answer(deadline, connection.send_packed_command(command)).await
    }

    async fn send_all(
        &self,
        pipeline: &Pipeline,
        count: usize,
        deadline: Instant,
    ) -> Result<Vec<redis::Value>, Error> {
        let mut connection = self.connection()?;
        self.answer(deadline, connection.send_packed_commands(pipeline, 0, count)).await
    }

    fn connection(&self) -> Result<MultiplexedConnection, Error> {
        self.connection.load().as_deref().cloned().ok_or(Error::Unavailable)
    }

    async fn answer<T>(
        &self,
        deadline: Instant,
        sent: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Error> {
        // Before the call's own end: a caller that hears of it in time can go on without.
        let deadline = deadline.min(Instant::now() + Duration::from_millis(limits::REDIS_ANSWER_MS_MAX));
        match timeout_at(deadline, sent).await {
            Err(_) => Err(Error::Deadline),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) if error.code().is_some_and(|code| !is_away(code)) => {
                Err(Error::Failed(error.to_string()))
            }
            Ok(Err(_)) => {
                self.broken.notify_one();
                Err(Error::Unavailable)
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

fn check(commands: &[impl AsRef<[String]>]) -> Result<(), Error> {
    if commands.iter().any(|args| args.as_ref().is_empty()) {
        return Err(Error::Refused("a command without a name".to_owned()));
    }
    check_size(commands)
}

fn check_size(words: &[impl AsRef<[String]>]) -> Result<(), Error> {
    let bytes: usize = words.iter().flat_map(|words| words.as_ref()).map(String::len).sum();
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

/// Redis answers, but not for now; the same as if it were away.
fn is_away(code: &str) -> bool {
    matches!(code, "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "READONLY" | "BUSY")
}

/// Connects, watches, and connects again, for as long as anyone holds the `Redis`.
async fn keep(link: Arc<Link>, place: Place) {
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(SILENCE_MAX))
        // Each call has its own deadline.
        .set_response_timeout(None)
        .set_pipeline_buffer_size(limits::REDIS_QUEUE_MAX);
    let mut backoff = BACKOFF_MIN;
    loop {
        match connect(&place, &settings).await {
            Ok((info, connection)) => {
                tracing::info!("Redis is there");
                backoff = BACKOFF_MIN;
                link.connection.store(Some(Arc::new(connection.clone())));
                link.is_up.send_replace(true);
                until_dead(&link, &place, &info, connection).await;
                link.connection.store(None);
                link.is_up.send_replace(false);
                tracing::warn!("Redis is away: caches, limits and the bus are without it until it is back");
            }
            Err(why) => tracing::debug!("no connection to Redis: {why}"),
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn connect(
    place: &Place,
    settings: &AsyncConnectionConfig,
) -> Result<(ConnectionInfo, MultiplexedConnection), String> {
    let info = place.find().await?;
    let client = Client::open(info.clone()).map_err(|error| error.category().to_owned())?;
    let connection = client.get_multiplexed_async_connection_with_config(settings).await;
    Ok((info, connection.map_err(|error| error.category().to_owned())?))
}

/// Until the connection is dead: a command found it so, it does not answer, or the primary is elsewhere.
async fn until_dead(
    link: &Link,
    place: &Place,
    info: &ConnectionInfo,
    mut connection: MultiplexedConnection,
) {
    let ping = redis::cmd("PING");
    loop {
        let _ = timeout(PULSE, link.broken.notified()).await;
        match timeout(SILENCE_MAX, connection.send_packed_command(&ping)).await {
            // An error with a code is an answer: loading, or a replica without its primary.
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.code().is_some() => {}
            Ok(Err(_)) | Err(_) => return,
        }
        if place.has_moved_from(info).await {
            tracing::warn!("the primary of Redis is another server now");
            return;
        }
    }
}
