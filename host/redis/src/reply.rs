//! Converts replies of Redis to the contract's form: trees in prefix order, bounded. A tree has the form of
//! RESP2, whatever the connection speaks. Only the digits of a score may differ: RESP3 sends a number, and
//! its text here is the shortest that means the same number.

use redis::Value;

use switchboard_contract::redis::{Error, Node};
use switchboard_core::limits;

/// The commands that RESP3 answers with pairs, `[[member, score], …]`, and RESP2 with a flat list.
pub(super) const PAIRED: &[&str] = &[
    "HRANDFIELD",
    "ZDIFF",
    "ZINTER",
    "ZPOPMAX",
    "ZPOPMIN",
    "ZRANDMEMBER",
    "ZRANGE",
    "ZRANGEBYSCORE",
    "ZREVRANGE",
    "ZREVRANGEBYSCORE",
    "ZUNION",
];

/// The reply to a command in the form of RESP2. A reply of RESP2 stays as it is. [`nodes`] converts the other
/// types that only RESP3 has.
pub(super) fn in_resp2(command: &str, reply: Value) -> Value {
    let is = |name: &&str| command.eq_ignore_ascii_case(name);
    match reply {
        Value::Array(pairs) if PAIRED.iter().any(is) => {
            let flat = pairs.into_iter().flat_map(|item| match item {
                Value::Array(pair) => pair,
                single => vec![single],
            });
            Value::Array(flat.collect())
        }
        Value::Map(streams) if is(&"XREAD") => {
            Value::Array(streams.into_iter().map(|(key, entries)| Value::Array(vec![key, entries])).collect())
        }
        reply => reply,
    }
}

/// The text of a number as RESP2 has it.
fn score(number: f64) -> String {
    let is_plain = number == 0.0 || !number.is_finite() || (1e-4..1e17).contains(&number.abs());
    if is_plain {
        return number.to_string();
    }
    // With a sign and at least two digits in the exponent, as C prints it.
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// Converts one reply. A reply that is an error becomes `Err`.
pub(super) fn nodes(reply: Value) -> Result<Vec<Node>, Error> {
    match reply {
        Value::ServerError(error) => Err(Error::Failed(error.to_string())),
        reply => {
            let mut budget = ReplyBudget(limits::REDIS_ANSWER_BYTES_MAX);
            let mut nodes = Vec::new();
            budget.flatten(reply, &mut nodes)?;
            Ok(nodes)
        }
    }
}

/// Converts the replies of a pipeline. A failed command becomes a `failed` node. The bound is for all replies
/// together.
pub(super) fn replies(replies: Vec<Value>) -> Result<Vec<Vec<Node>>, Error> {
    let mut budget = ReplyBudget(limits::REDIS_ANSWER_BYTES_MAX);
    let mut flattened = Vec::with_capacity(replies.len());
    for reply in replies {
        let mut nodes = Vec::new();
        budget.flatten(reply, &mut nodes)?;
        flattened.push(nodes);
    }
    Ok(flattened)
}

/// The number of bytes that the reply may still have.
struct ReplyBudget(usize);

impl ReplyBudget {
    fn take(&mut self, bytes: usize) -> Result<(), Error> {
        let too_large = Error::TooLarge(limits::REDIS_ANSWER_BYTES_MAX as u64);
        self.0 = self.0.checked_sub(bytes + limits::CELL_BYTES).ok_or(too_large)?;
        Ok(())
    }

    /// The parser bounds the depth of the recursion.
    fn flatten(&mut self, value: Value, nodes: &mut Vec<Node>) -> Result<(), Error> {
        match value {
            Value::Nil => self.leaf(0, Node::Nil, nodes),
            Value::Int(integer) => self.leaf(0, Node::Integer(integer), nodes),
            Value::Boolean(truth) => self.leaf(0, Node::Integer(truth.into()), nodes),
            Value::Okay => self.leaf(2, Node::Text("OK".to_owned()), nodes),
            Value::Double(number) => {
                let text = score(number);
                self.leaf(text.len(), Node::Text(text), nodes)
            }
            Value::SimpleString(text) | Value::VerbatimString { text, .. } => {
                self.leaf(text.len(), Node::Text(text), nodes)
            }
            Value::BulkString(bytes) | Value::BigNumber(bytes) => {
                let node = match String::from_utf8(bytes) {
                    Ok(text) => (text.len(), Node::Text(text)),
                    Err(other) => (other.as_bytes().len(), Node::Bytes(other.into_bytes())),
                };
                self.leaf(node.0, node.1, nodes)
            }
            Value::ServerError(error) => {
                let reason = error.to_string();
                self.leaf(reason.len(), Node::Failed(reason), nodes)
            }
            Value::Array(children) | Value::Set(children) | Value::Push { data: children, .. } => {
                self.branch(children, nodes)
            }
            Value::Map(pairs) => {
                self.branch(pairs.into_iter().flat_map(|(key, value)| [key, value]).collect(), nodes)
            }
            Value::Attribute { data, .. } => self.flatten(*data, nodes),
            // The driver may add variants. No reply of RESP2 or RESP3 has one of them.
            _ => self.leaf(0, Node::Nil, nodes),
        }
    }

    fn leaf(&mut self, bytes: usize, node: Node, nodes: &mut Vec<Node>) -> Result<(), Error> {
        self.take(bytes)?;
        nodes.push(node);
        Ok(())
    }

    fn branch(&mut self, children: Vec<Value>, nodes: &mut Vec<Node>) -> Result<(), Error> {
        self.take(0)?;
        nodes.push(Node::Many(children.len() as u32));
        children.into_iter().try_for_each(|child| self.flatten(child, nodes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_written_in_prefix_order() {
        let reply = Value::Array(vec![
            Value::BulkString(b"a".to_vec()),
            Value::Array(vec![Value::Int(1), Value::Nil]),
            Value::BulkString(vec![0xff]),
        ]);
        let expected = vec![
            Node::Many(3),
            Node::Text("a".into()),
            Node::Many(2),
            Node::Integer(1),
            Node::Nil,
            Node::Bytes(vec![0xff]),
        ];
        assert_eq!(nodes(reply), Ok(expected));
    }

    #[test]
    fn a_score_is_written_as_in_resp2() {
        for (number, text) in [
            (0.0, "0"),
            (-0.5, "-0.5"),
            (1_764_528_000_000.0, "1764528000000"),
            (1e17, "1e+17"),
            (1.5e300, "1.5e+300"),
            (-2.5e-7, "-2.5e-07"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(score(number), text);
        }
    }

    #[test]
    fn one_byte_past_the_bound_is_too_large() {
        let fits = limits::REDIS_ANSWER_BYTES_MAX - limits::CELL_BYTES;
        assert!(nodes(Value::BulkString(vec![b'x'; fits])).is_ok());
        let too_large = Err(Error::TooLarge(limits::REDIS_ANSWER_BYTES_MAX as u64));
        assert_eq!(nodes(Value::BulkString(vec![b'x'; fits + 1])), too_large);
        let half = Value::BulkString(vec![b'x'; fits / 2 + 1]);
        assert!(replies(vec![half.clone()]).is_ok());
        assert!(replies(vec![half.clone(), half]).is_err());
    }
}
