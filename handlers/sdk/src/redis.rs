//! Redis. `wit/redis.wit`. Nothing in it is the truth: whoever asks goes on without, or answers "try again".

use crate::bindings::platform::switchboard::host::redis;
pub use redis::{Error, Node};

/// An answer, as a tree.
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

    /// Redis writes numbers in both ways.
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

pub fn command(args: &[&str]) -> Result<Reply, Error> {
    redis::command(&owned(args)).map(Reply::of)
}

/// A script of the release, by its name in the manifest. Its keys share a hash tag.
pub fn script(name: &str, keys: &[&str], args: &[&str]) -> Result<Reply, Error> {
    redis::script(name, &owned(keys), &owned(args)).map(Reply::of)
}

/// Commands for one round trip.
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

    /// What is going to be run.
    pub fn commands(&self) -> &[Vec<String>] {
        &self.commands
    }

    /// One reply for each command, in order. Not atomic; a command that failed is a `Reply::Failed`. What is over the
    /// host's bounds for one pipeline goes in several.
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

/// How many commands from the front fit one pipeline: at least one.
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

/// For the log, where the caller goes on without Redis.
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
    fn a_long_pipeline_is_cut_at_the_bounds() {
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
    fn a_prefix_order_list_becomes_a_tree() {
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
