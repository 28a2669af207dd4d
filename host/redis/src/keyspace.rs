//! The names of this fleet in Redis. Every key is `sb:{fleet}:{generation}:` followed by the name that a
//! handler uses; every channel begins with `sb:{fleet}`. So fleets that share a Redis do not see each other's
//! keys or messages. Raising the generation makes all data in Redis unreadable at once, without a scan of the
//! keys.
//!
//! A prefix has no braces, so the hash tag of a name stays the hash tag of its key.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;

use redis::Value;
use tokio::sync::watch;

use super::keys;
use switchboard_contract::redis::Error;

/// The generation of the keys of the whole fleet, as the fleet keeps it. An error says why the answer is not
/// known.
pub trait Generations: Send + Sync {
    fn read(&self) -> GenerationFuture<'_>;

    /// The generation as the node's poll last read it, without a query. `None`: it was not read.
    fn last_polled(&self) -> Option<i64>;

    /// Raises the generation above `known`, unless another node has raised it since `expected` was read.
    /// Returns the generation afterwards.
    fn raise(&self, expected: i64, known: i64) -> GenerationFuture<'_>;
}

pub type GenerationFuture<'a> = Pin<Box<dyn Future<Output = Result<i64, crate::Error>> + Send + 'a>>;

#[derive(Clone)]
pub struct Keyspace(Arc<Inner>);

struct Inner {
    /// The prefix of channels, and the beginning of every key. None: keys are used without a prefix.
    namespace: Option<String>,
    /// Where the generation of the whole fleet is stored. `None`: it is always 0.
    generations: Option<Arc<dyn Generations>>,
    /// The keys of the generation that this node uses.
    names: watch::Sender<Arc<Names>>,
}

/// The names of keys in one generation: they begin with its prefix.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) generation: i64,
    prefix: String,
}

impl Keyspace {
    /// The keyspace of the fleet of this name. `generation` is the fleet's generation when it was read.
    pub fn of(fleet: &str, generation: i64, generations: impl Generations + 'static) -> Self {
        let namespace = namespace(fleet);
        let names = watch::Sender::new(Arc::new(Names::of(&namespace, generation)));
        Self(Arc::new(Inner { namespace: Some(namespace), generations: Some(Arc::new(generations)), names }))
    }

    /// A keyspace without a prefix, for a Redis that belongs to one user. Nothing protects against a server
    /// that lost its data.
    pub fn bare() -> Self {
        let names = Names { generation: 0, prefix: String::new() };
        let names = watch::Sender::new(Arc::new(names));
        Self(Arc::new(Inner { namespace: None, generations: None, names }))
    }

    /// The beginning of every key and channel of the fleet.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.0.namespace.as_deref()
    }

    pub(super) fn names(&self) -> Arc<Names> {
        self.0.names.borrow().clone()
    }

    /// Notifies when the node begins to use another generation.
    pub(super) fn changes(&self) -> watch::Receiver<Arc<Names>> {
        self.0.names.subscribe()
    }

    /// Makes this node use the generation from now on. A link takes commands for it only after its server has
    /// confirmed it.
    pub(super) fn adopt(&self, generation: i64) {
        let Some(namespace) = self.namespace() else { return };
        self.0.names.send_if_modified(|names| {
            let is_new = names.generation != generation;
            if is_new {
                *names = Arc::new(Names::of(namespace, generation));
            }
            is_new
        });
    }

    /// Reads the generation of the fleet. The error says why it is not known.
    pub(super) async fn read_generation(&self) -> Result<i64, crate::Error> {
        match &self.0.generations {
            Some(generations) => generations.read().await,
            None => Ok(0),
        }
    }

    /// The generation of the fleet as it was last polled, without a query.
    pub(super) fn last_polled(&self) -> Option<i64> {
        self.0.generations.as_ref()?.last_polled()
    }

    /// Raises the generation above `known`, unless another node has raised it since `expected` was read.
    /// Returns the current generation.
    pub(super) async fn raise(&self, expected: i64, known: i64) -> Result<i64, crate::Error> {
        match &self.0.generations {
            Some(generations) => generations.raise(expected, known).await,
            None => Ok(0),
        }
    }
}

/// The beginning of every channel of a fleet.
pub fn namespace(fleet: &str) -> String {
    format!("sb:{fleet}")
}

impl Names {
    fn of(namespace: &str, generation: i64) -> Self {
        Self { generation, prefix: format!("{namespace}:{generation}:") }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key in Redis for a handler's name of it.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Puts the prefix before each key of a command of a handler. A command is `refused` if the table in
    /// [`keys`] does not know which of its words are keys.
    pub(super) fn with_prefix<'a>(&self, args: &'a [String]) -> Result<Vec<Cow<'a, str>>, Error> {
        let mut words: Vec<Cow<'a, str>> = args.iter().map(|word| Cow::Borrowed(word.as_str())).collect();
        if !self.prefix.is_empty() {
            let keys = keys::of(args).map_err(|refused| Error::Refused(refused.to_string()))?;
            keys.positions().for_each(|at| words[at] = Cow::Owned(self.key(&args[at])));
        }
        Ok(words)
    }

    /// Removes the prefix from the keys in an answer, which has the form of RESP2. A few commands answer with
    /// keys.
    pub(super) fn without_prefix(&self, command: &str, mut reply: Value) -> Value {
        if self.prefix.is_empty() {
            return reply;
        }
        let strip = |value: &mut Value| {
            if let Value::BulkString(key) = value
                && key.starts_with(self.prefix.as_bytes())
            {
                key.drain(..self.prefix.len());
            }
        };
        match (keys::Answer::of(command), &mut reply) {
            (keys::Answer::KeyFirst, Value::Array(items)) => items.iter_mut().take(1).for_each(strip),
            (keys::Answer::KeyOfEach, Value::Array(items)) => items.iter_mut().for_each(|item| {
                if let Value::Array(pair) = item {
                    pair.iter_mut().take(1).for_each(strip);
                }
            }),
            _ => {}
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::super::cluster::slot_of_key;
    use super::*;

    fn words(command: &str) -> Vec<String> {
        command.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn every_key_gets_the_prefix_and_nothing_else_does() {
        let names = Names::of("sb:f", 3);
        for (command, expected) in [
            ("GET a", "GET sb:f:3:a"),
            ("MSET a a b b", "MSET sb:f:3:a a sb:f:3:b b"),
            ("SMOVE a b a", "SMOVE sb:f:3:a sb:f:3:b a"),
            ("ZUNION 2 a b WEIGHTS 1 2", "ZUNION 2 sb:f:3:a sb:f:3:b WEIGHTS 1 2"),
            ("XREAD COUNT 1 STREAMS a b 0 0", "XREAD COUNT 1 STREAMS sb:f:3:a sb:f:3:b 0 0"),
            ("TIME", "TIME"),
        ] {
            assert_eq!(names.with_prefix(&words(command)).unwrap().join(" "), expected);
        }
        assert!(matches!(names.with_prefix(&words("FLUSHALL")), Err(Error::Refused(_))));
        assert_eq!(slot_of_key(&names.key("{p:05}:due")), slot_of_key("{p:05}:leases:ana"));
    }

    #[test]
    fn an_answer_has_the_names_that_were_asked_for() {
        let names = Names::of("sb:f", 3);
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let popped = |key: &str| Value::Array(vec![text(key), Value::Array(vec![text("sb:f:3:value")])]);
        assert_eq!(names.without_prefix("zmpop", popped("sb:f:3:z")), popped("z"));
        let read = |key: &str| Value::Array(vec![Value::Array(vec![text(key), Value::Array(vec![])])]);
        assert_eq!(names.without_prefix("XREAD", read("sb:f:3:s")), read("s"));
        // A value that looks like a key stays unchanged.
        assert_eq!(
            names.without_prefix("LRANGE", Value::Array(vec![text("sb:f:3:l")])),
            Value::Array(vec![text("sb:f:3:l")])
        );
        assert_eq!(names.without_prefix("XREAD", Value::Nil), Value::Nil);
    }
}
