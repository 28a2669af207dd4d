//! Run Redis commands. `wit/redis.wit`. Redis only holds copies. When it is unavailable, a handler continues
//! without it or asks the client to retry.

use crate::bindings::platform::switchboard::host::redis;
pub use redis::{Error, Node, ScriptRun};

/// A reply of Redis, as a tree.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Nil,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
    Many(Vec<Reply>),
    Failed(String),
}

impl Reply {
    fn of(nodes: Vec<Node>) -> Self {
        fn next(nodes: &mut impl Iterator<Item = Node>) -> Reply {
            match nodes.next() {
                None | Some(Node::Nil) => Reply::Nil,
                Some(Node::Integer(number)) => Reply::Integer(number),
                Some(Node::Text(text)) => Reply::Text(text),
                Some(Node::Bytes(bytes)) => Reply::Bytes(bytes),
                Some(Node::Failed(why)) => Reply::Failed(why),
                Some(Node::Many(count)) => Reply::Many((0..count).map(|_| next(nodes)).collect()),
            }
        }
        next(&mut nodes.into_iter())
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The reply as a number. Redis returns numbers as integers or as texts.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    pub fn items(&self) -> &[Reply] {
        match self {
            Self::Many(items) => items,
            _ => &[],
        }
    }

    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.items().iter().filter_map(Reply::text)
    }
}

/// Runs one command.
pub fn command(args: &[&str]) -> Result<Reply, Error> {
    redis::command(&owned(args)).map(Reply::of)
}

/// Runs a Lua script of the release, by its name in the manifest. All its keys must have the same hash tag.
pub fn script(name: &str, keys: &[&str], args: &[&str]) -> Result<Reply, Error> {
    redis::script(name, &owned(keys), &owned(args)).map(Reply::of)
}

/// Runs a script once for each element of `runs`, in one round trip. Returns one reply for each run, in
/// order: a run that failed is a `Reply::Failed`, and the others still run. All keys of one run must have the
/// same hash tag. Many runs are sent in several parts.
pub fn scripts(name: &str, runs: &[ScriptRun]) -> Result<Vec<Reply>, Error> {
    let mut replies = Vec::with_capacity(runs.len());
    for runs in runs.chunks(SCRIPT_RUNS_MAX) {
        replies.extend(redis::scripts(name, runs)?.into_iter().map(Reply::of));
    }
    Ok(replies)
}

/// The host refuses more than 1024 runs or 1 MiB.
const SCRIPT_RUNS_MAX: usize = 200;

/// Commands that the host sends in one round trip.
#[derive(Default)]
pub struct Pipeline {
    commands: Vec<Vec<String>>,
}

impl Pipeline {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, args: &[&str]) -> &mut Self {
        self.commands.push(owned(args));
        self
    }

    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The commands that [`Self::run`] will send.
    pub fn commands(&self) -> &[Vec<String>] {
        &self.commands
    }

    /// Runs the commands and returns one reply per command, in order. The pipeline is not atomic: a command
    /// that failed is a `Reply::Failed`, and the others still run. A pipeline beyond the host's bounds is
    /// sent in several parts.
    pub fn run(&self) -> Result<Vec<Reply>, Error> {
        let mut replies = Vec::with_capacity(self.commands.len());
        let mut rest = &self.commands[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest));
            replies.extend(redis::pipeline(now)?.into_iter().map(Reply::of));
            rest = later;
        }
        Ok(replies)
    }
}

/// The host refuses pipelines beyond 1024 commands or 1 MiB.
const PIPELINE_COMMANDS_MAX: usize = 1000;
const PIPELINE_BYTES_MAX: usize = 1000 * 1024;

/// The number of commands from the front that fit into one pipeline; at least one.
fn fitting(commands: &[Vec<String>]) -> usize {
    let mut bytes = 0;
    let fits = commands.iter().take(PIPELINE_COMMANDS_MAX).take_while(|command| {
        bytes += command.iter().map(String::len).sum::<usize>();
        bytes <= PIPELINE_BYTES_MAX
    });
    fits.count().max(1)
}

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

/// A text for the log, for callers that continue without Redis.
pub fn describe(error: &Error) -> String {
    match error {
        Error::Refused(why) => format!("refused: {why}"),
        Error::Failed(why) => format!("failed: {why}"),
        Error::Unavailable => "unavailable".to_owned(),
        Error::Deadline => "deadline".to_owned(),
        Error::TooLarge(bytes) => format!("over {bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_beyond_the_bounds_is_split() {
        let mut pipeline = Pipeline::new();
        for _ in 0..1500 {
            pipeline.push(&["GET", "k"]);
        }
        assert_eq!(fitting(pipeline.commands()), 1000);
        let large = "x".repeat(600 * 1024);
        let mut pipeline = Pipeline::new();
        pipeline.push(&["SET", "a", &large]).push(&["SET", "b", &large]);
        assert_eq!(fitting(pipeline.commands()), 1);
    }

    #[test]
    fn nodes_in_prefix_order_become_a_tree() {
        let nodes = vec![
            Node::Many(3),
            Node::Text("a".into()),
            Node::Many(2),
            Node::Integer(1),
            Node::Nil,
            Node::Text("7".into()),
        ];
        let reply = Reply::of(nodes);
        assert_eq!(reply.items()[1], Reply::Many(vec![Reply::Integer(1), Reply::Nil]));
        assert_eq!(reply.items()[2].integer(), Some(7));
        assert_eq!(reply.texts().collect::<Vec<_>>(), ["a", "7"]);
    }
}
