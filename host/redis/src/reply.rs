//! Converts replies of Redis to the contract's form: trees in prefix order, bounded.

use redis::Value;

use switchboard_contract::redis::{Error, Node};
use switchboard_core::limits;

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
            Value::Double(number) => self.leaf(8, Node::Text(number.to_string()), nodes),
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
            // The driver may add variants. A reply of RESP2 has none of them.
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
