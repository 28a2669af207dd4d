//! The connection to one server, as all calls share it. It takes commands only while `keeper` has found the server to be a
//! writable primary that holds the generation of keys that this node uses. Every batch of commands ends with a look at that
//! generation: a server that was emptied, restored or replaced a moment ago answers `unavailable`, and nothing that was
//! written to it counts as written.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ConnectionInfo, Pipeline, RedisError, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use super::fault::{self, Fault};
use super::packed;
use crate::contract::redis::Error;
use crate::limits;

/// What a link is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// A writable primary.
    Writable,
    /// It takes commands, but its memory is full and most writes fail.
    Full(String),
    /// Connected to a primary that refuses writes: only the bus uses it.
    Refuses(String),
    /// Not connected to a primary.
    Away(String),
}

impl Health {
    pub(super) fn takes_commands(&self) -> bool {
        matches!(self, Self::Writable | Self::Full(_))
    }

    /// Why it is not a writable primary.
    pub(super) fn writable(&self) -> Result<(), String> {
        match self {
            Self::Writable => Ok(()),
            Self::Full(why) | Self::Refuses(why) | Self::Away(why) => Err(why.clone()),
        }
    }
}

/// Shared with the task that keeps it.
pub(super) struct Link {
    live: ArcSwapOption<Live>,
    pub(super) health: watch::Sender<Health>,
    /// The server that was connected to last.
    pub(super) server: ArcSwapOption<ConnectionInfo>,
    /// The run id of the primary that is connected, for the connection that hears the bus.
    pub(super) primary: watch::Sender<Option<Arc<str>>>,
    /// A command found the connection dead, or the server changed.
    pub(super) doubted: Notify,
    /// A script did not end in time.
    pub(super) overdue: Notify,
}

/// A connection, and what its server has confirmed.
pub(super) struct Live {
    pub(super) connection: MultiplexedConnection,
    /// None: it takes no commands.
    pub(super) confirmed: Option<Confirmed>,
}

#[derive(Clone)]
pub(super) struct Confirmed {
    pub(super) generation: i64,
    pub(super) guard: Option<Guard>,
}

/// The key that says which generation a server holds, and what it must say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Guard {
    pub(super) key: String,
    pub(super) text: String,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            live: ArcSwapOption::empty(),
            health: watch::Sender::new(Health::Away("the node has not connected to Redis yet".to_owned())),
            server: ArcSwapOption::empty(),
            primary: watch::Sender::new(None),
            doubted: Notify::new(),
            overdue: Notify::new(),
        }
    }
}

/// Commands for one server, under the generation whose keys they name.
pub(super) struct Batch {
    pub(super) pipeline: Pipeline,
    pub(super) count: usize,
    pub(super) generation: i64,
    /// One of them runs a script.
    pub(super) has_script: bool,
}

impl Link {
    pub(super) fn is_up(&self) -> bool {
        self.health.borrow().takes_commands()
    }

    /// Replaces what is known of the server. Logs only what is new.
    pub(super) fn set(&self, live: Option<Live>, health: Health) {
        self.live.store(live.map(Arc::new));
        let before = self.health.send_replace(health.clone());
        if before == health {
            return;
        }
        match &health {
            Health::Writable => tracing::info!("Redis is connected and writable"),
            Health::Full(why) | Health::Refuses(why) => tracing::warn!("Redis refuses writes: {why}"),
            Health::Away(why) if before.takes_commands() => {
                tracing::warn!(
                    "Redis is not usable: {why}; caches, limits, presence and the bus wait for it"
                );
            }
            Health::Away(why) => tracing::debug!("Redis is not usable: {why}"),
        }
    }

    /// A reply for each command, or the error that stopped all of them. What the server refuses for a reason that passes is
    /// `unavailable`; any other error is a reply.
    pub(super) async fn send(&self, mut batch: Batch, deadline: Instant) -> Result<Vec<Value>, Error> {
        let live = self.live.load_full().ok_or(Error::Unavailable)?;
        let confirmed = live.confirmed.as_ref().ok_or(Error::Unavailable)?;
        if confirmed.generation != batch.generation {
            // One of the two is about to follow the other.
            return Err(Error::Unavailable);
        }
        let guard = confirmed.guard.as_ref();
        if let Some(guard) = guard {
            batch.pipeline.add_command(packed(&["GET", &guard.key]));
            batch.count += 1;
        }
        let mut connection = live.connection.clone();
        let sent = connection.send_packed_commands(&batch.pipeline, 0, batch.count);
        let mut replies = self.answer(deadline, batch.has_script, sent).await?;
        if let Some(guard) = guard
            && !matches!(replies.pop(), Some(Value::BulkString(text)) if text == guard.text.as_bytes())
        {
            self.doubted.notify_one();
            return Err(Error::Unavailable);
        }
        Ok(replies)
    }

    /// Messages of the bus. A primary that refuses writes still hands them on.
    pub(super) async fn publish(
        &self,
        pipeline: &Pipeline,
        count: usize,
        deadline: Instant,
    ) -> Result<Vec<Value>, Error> {
        let mut connection = self.live.load().as_ref().ok_or(Error::Unavailable)?.connection.clone();
        self.answer(deadline, false, connection.send_packed_commands(pipeline, 0, count)).await
    }

    async fn answer(
        &self,
        deadline: Instant,
        has_script: bool,
        sent: impl Future<Output = Result<Vec<Value>, RedisError>>,
    ) -> Result<Vec<Value>, Error> {
        // Before the call's own end: a caller that hears of it in time can go on without.
        let answered_by = Instant::now() + Duration::from_millis(limits::REDIS_ANSWER_MS_MAX);
        match timeout_at(deadline.min(answered_by), sent).await {
            Err(_) => {
                if has_script && answered_by <= deadline {
                    self.overdue.notify_one();
                }
                Err(Error::Deadline)
            }
            Ok(Ok(replies)) => {
                let refused = replies.iter().any(|reply| {
                    matches!(reply, Value::ServerError(error)
                        if Fault::of(error) != Fault::Moved && Fault::of(error).is_unavailable())
                });
                if refused {
                    self.doubted.notify_one();
                    return Err(Error::Unavailable);
                }
                Ok(replies)
            }
            Ok(Err(error)) => match error.code() {
                Some(code) if !Fault::of_code(code).is_unavailable() => Err(Error::Failed(error.to_string())),
                _ => {
                    self.doubted.notify_one();
                    Err(Error::Unavailable)
                }
            },
        }
    }
}

/// What stopped a connection, without the URL, which may hold a password.
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
