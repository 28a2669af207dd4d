//! The connection to one server, shared by all calls. It takes commands only while `monitor` has found the
//! server to be a writable primary that holds the generation of keys that this node uses. Every batch of
//! commands ends with a check of that generation: the server has reported no change of its guard
//! (`tracking`), or the batch reads the guard. So when a server was emptied, restored or replaced a moment
//! ago, the batch fails with `unavailable`, and its writes do not count.

use std::future::Future;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ConnectionInfo, Pipeline, RedisError, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use super::fault::{self, Fault};
use super::packed;
use super::tracking::TrackedGuard;
use switchboard_contract::redis::Error;
use switchboard_core::limits;

/// The state of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// A writable primary.
    Writable,
    /// The server takes commands, but its memory is full and most writes fail.
    Full(String),
    /// Connected to a primary that refuses writes. Only the bus uses it.
    Refuses(String),
    /// Not connected to a primary.
    Away(String),
}

impl Health {
    pub(super) fn takes_commands(&self) -> bool {
        matches!(self, Self::Writable | Self::Full(_))
    }

    /// Ok when the server is a writable primary; otherwise the reason why not.
    pub(super) fn writable(&self) -> Result<(), String> {
        match self {
            Self::Writable => Ok(()),
            Self::Full(why) | Self::Refuses(why) | Self::Away(why) => Err(why.clone()),
        }
    }
}

/// The state of one connection, shared by the calls and the link's background task.
pub(super) struct Link {
    live: ArcSwapOption<Live>,
    pub(super) health: watch::Sender<Health>,
    /// The server of the last connection.
    pub(super) server: ArcSwapOption<ConnectionInfo>,
    /// The run id of the connected primary, for the connection that receives the messages of the bus.
    pub(super) primary: watch::Sender<Option<Arc<str>>>,
    /// A command found the connection dead, or the server changed. The monitor then checks the server.
    pub(super) check_requested: Notify,
    /// A script did not end in time. The task in `kill` then ends it.
    pub(super) script_overdue: Notify,
}

/// An open connection, and what its server has confirmed.
pub(super) struct Live {
    pub(super) connection: MultiplexedConnection,
    /// None: the connection takes no commands.
    pub(super) confirmed: Option<Confirmed>,
}

#[derive(Clone)]
pub(super) struct Confirmed {
    pub(super) generation: i64,
    pub(super) guard: Option<RedisGuard>,
    /// None: the server does not report changes of this guard.
    pub(super) tracked: Option<TrackedGuard>,
}

impl Confirmed {
    /// True while the server would have reported a change of the guard, and has not.
    fn is_unchanged(&self) -> bool {
        self.tracked.as_ref().is_some_and(TrackedGuard::is_unchanged)
    }
}

/// The key that names the generation that a server holds, and the expected value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RedisGuard {
    pub(super) key: String,
    pub(super) text: String,
}

impl RedisGuard {
    fn get(&self) -> Cmd {
        packed(&["GET", &self.key])
    }

    /// Whether the reply of [`Self::get`] is the expected value.
    fn is(&self, reply: Option<Value>) -> bool {
        matches!(reply, Some(Value::BulkString(text)) if text == self.text.as_bytes())
    }
}

impl Default for Link {
    fn default() -> Self {
        Self {
            live: ArcSwapOption::empty(),
            health: watch::Sender::new(Health::Away("the node has not connected to Redis yet".to_owned())),
            server: ArcSwapOption::empty(),
            primary: watch::Sender::new(None),
            check_requested: Notify::new(),
            script_overdue: Notify::new(),
        }
    }
}

/// How long a call waits for the answers of a server.
struct AnswerWait {
    ends: Instant,
    /// It is not cut by the call's own deadline, which is usually later.
    is_whole: bool,
}

impl AnswerWait {
    fn until(deadline: Instant) -> Self {
        let whole = Instant::now() + limits::REDIS_ANSWER_WAIT;
        Self { ends: deadline.min(whole), is_whole: whole <= deadline }
    }
}

/// Commands for one server, with keys of one generation.
pub(super) struct Batch {
    pub(super) pipeline: Pipeline,
    pub(super) count: usize,
    pub(super) generation: i64,
    /// True when one of the commands runs a script.
    pub(super) has_script: bool,
}

impl Link {
    pub(super) fn is_up(&self) -> bool {
        self.health.borrow().takes_commands()
    }

    /// Replaces the state of the server. Logs only changes.
    pub(super) fn set(&self, live: Option<Live>, health: Health) {
        self.live.store(live.map(Arc::new));
        let before = self.health.send_replace(health.clone());
        if before == health {
            return;
        }
        match &health {
            Health::Writable => tracing::info!("Redis is connected and writable"),
            Health::Full(why) | Health::Refuses(why) => {
                tracing::warn!("Redis refuses writes, so most commands fail: {why}")
            }
            Health::Away(why) if before.takes_commands() => {
                tracing::warn!(
                    "Redis is not usable, so caches, limits, presence and the bus stop until it is back: {why}"
                );
            }
            Health::Away(why) => tracing::debug!("Redis is not usable: {why}"),
        }
    }

    /// Sends a batch. Returns a reply for each command, or the error that stopped all of them. When the
    /// server refuses for a reason that passes, the error is `unavailable`; any other error is a reply.
    pub(super) async fn send(&self, mut batch: Batch, deadline: Instant) -> Result<Vec<Value>, Error> {
        let live = self.live.load_full().ok_or(Error::Unavailable)?;
        let confirmed = live.confirmed.as_ref().ok_or(Error::Unavailable)?;
        if confirmed.generation != batch.generation {
            // The link or the keyspace is about to follow the other.
            return Err(Error::Unavailable);
        }
        let guard = confirmed.guard.as_ref();
        let asked = guard.filter(|_| !confirmed.is_unchanged());
        if let Some(guard) = asked {
            batch.pipeline.add_command(guard.get());
            batch.count += 1;
        }
        let mut connection = live.connection.clone();
        // One wait for the commands and the guard, so that the call can go on without Redis.
        let wait = AnswerWait::until(deadline);
        let sent = connection.send_packed_commands(&batch.pipeline, 0, batch.count);
        let mut replies = self.answer(&wait, batch.has_script, sent).await?;
        let Some(guard) = guard else { return Ok(replies) };
        let is_confirmed = if asked.is_some() {
            guard.is(replies.pop())
        } else if confirmed.is_unchanged() {
            true
        } else {
            // The report may concern another database, or memory that the server lacks. Only the guard tells.
            let mut get = Pipeline::new();
            get.add_command(guard.get());
            let asked = connection.send_packed_commands(&get, 0, 1);
            guard.is(self.answer(&wait, false, asked).await?.pop())
        };
        if !is_confirmed {
            self.check_requested.notify_one();
            return Err(Error::Unavailable);
        }
        Ok(replies)
    }

    /// Publishes messages of the bus. A primary that refuses writes still forwards them.
    pub(super) async fn publish(
        &self,
        pipeline: &Pipeline,
        count: usize,
        deadline: Instant,
    ) -> Result<Vec<Value>, Error> {
        let mut connection = self.live.load().as_ref().ok_or(Error::Unavailable)?.connection.clone();
        let sent = connection.send_packed_commands(pipeline, 0, count);
        self.answer(&AnswerWait::until(deadline), false, sent).await
    }

    /// The connection, and whether its server reports changes of the guard.
    #[cfg(test)]
    pub(super) fn tracked(&self) -> Option<(MultiplexedConnection, bool)> {
        let live = self.live.load_full()?;
        Some((live.connection.clone(), live.confirmed.as_ref()?.is_unchanged()))
    }

    async fn answer(
        &self,
        wait: &AnswerWait,
        has_script: bool,
        sent: impl Future<Output = Result<Vec<Value>, RedisError>>,
    ) -> Result<Vec<Value>, Error> {
        match timeout_at(wait.ends, sent).await {
            Err(_) => {
                if has_script && wait.is_whole {
                    self.script_overdue.notify_one();
                }
                Err(Error::Deadline)
            }
            Ok(Ok(replies)) => {
                let refused = replies.iter().any(|reply| {
                    matches!(reply, Value::ServerError(error)
                        if Fault::of(error) != Fault::Moved && Fault::of(error).is_unavailable())
                });
                if refused {
                    self.check_requested.notify_one();
                    return Err(Error::Unavailable);
                }
                Ok(replies)
            }
            Ok(Err(error)) => match error.code() {
                Some(code) if !Fault::of_code(code).is_unavailable() => Err(Error::Failed(error.to_string())),
                _ => {
                    self.check_requested.notify_one();
                    Err(Error::Unavailable)
                }
            },
        }
    }
}

/// The reason why a connection failed, without the URL, which may hold a password.
pub(super) fn reason(error: &RedisError) -> String {
    match error.code() {
        Some(code) => fault::explained(code),
        None => error.category().to_owned(),
    }
}

pub(super) fn batch(commands: impl IntoIterator<Item = Cmd>, generation: i64, has_script: bool) -> Batch {
    let mut pipeline = Pipeline::new();
    let mut count = 0;
    for command in commands {
        pipeline.add_command(command);
        count += 1;
    }
    Batch { pipeline, count, generation, has_script }
}
