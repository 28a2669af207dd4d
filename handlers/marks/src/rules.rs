//! Reads marks and requests for receipts. Pure: no host calls, so plain `cargo test` runs it.

use chat::marks;
use std::collections::BTreeMap;

use chat::membership::{self, ConversationName};
use sdk::json::{self, Object};
use sdk::{Id, Problem};
use serde_json::Value;

/// The receipts of one page. Most conversations have only one page.
pub(crate) const RECEIPTS_MAX: u64 = 1000;

/// A request for the receipts of a message: its seq, the last user of the previous page, and the size of the
/// page.
#[derive(Debug, PartialEq)]
pub(crate) struct ReceiptsRequest {
    pub seq: u64,
    pub after: Option<String>,
    pub limit: u64,
}

/// The required field `up_to_seq`. A seq above the head counts as the head.
pub(crate) fn up_to_seq(body: &mut Object) -> Result<u64, Problem> {
    json::required("up_to_seq", body.number("up_to_seq")?)
}

/// The payload of `delivered`: the seq up to which messages were delivered, by conversation.
#[derive(Debug, PartialEq)]
pub(crate) struct Positions(BTreeMap<ConversationName, u64>);

impl Positions {
    /// Reads the payload. As in `subscribe`, a position is a seq or `{seq, change}`. A position with an
    /// invalid name is ignored, like one in a conversation that does not exist.
    pub(crate) fn parse(mut payload: Object) -> Result<Self, Problem> {
        let given = json::required("positions", payload.map("positions", marks::POSITIONS_MAX)?)?;
        let mut positions = BTreeMap::new();
        for (name, value) in given {
            let field = format!("positions.{name}");
            let rule = || Problem::invalid(&field, "is neither a seq nor {seq, change}");
            let seq = match value {
                Value::Number(number) => number.as_u64(),
                Value::Object(_) => Object::of(value, &field)?.number("seq")?,
                _ => None,
            };
            let seq = seq.filter(|seq| i64::try_from(*seq).is_ok()).ok_or_else(rule)?;
            if let Some(name) = ConversationName::parse(&name) {
                let known: &mut u64 = positions.entry(name).or_default();
                *known = seq.max(*known);
            }
        }
        Ok(Self(positions))
    }

    /// Resolves the names of conversations, as this user sees them.
    pub(crate) fn resolve(&self, user: &str) -> Result<BTreeMap<Id, u64>, Problem> {
        let ids = membership::find_all(self.0.keys(), user)?;
        let mut positions = BTreeMap::new();
        for (name, seq) in &self.0 {
            if let Some(id) = ids.get(name) {
                // A conversation can be named twice, by its id and its slug.
                let known: &mut u64 = positions.entry(*id).or_default();
                *known = (*seq).max(*known);
            }
        }
        Ok(positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CONVERSATION: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";

    fn object(value: Value) -> Object {
        Object::parse(value.to_string().as_bytes()).unwrap()
    }

    fn refusal<T: std::fmt::Debug>(result: Result<T, Problem>) -> (u16, String) {
        let problem = result.unwrap_err();
        (problem.status, problem.field.unwrap_or_default())
    }

    #[test]
    fn a_read_mark_is_a_seq() {
        for good in [0, 7, i64::MAX] {
            assert_eq!(up_to_seq(&mut object(json!({ "up_to_seq": good }))), Ok(good as u64));
        }
        for bad in
            [json!({}), json!({ "up_to_seq": -1 }), json!({ "up_to_seq": "7" }), json!({ "up_to_seq": 1.5 })]
        {
            assert_eq!(refusal(up_to_seq(&mut object(bad))), (422, "up_to_seq".into()));
        }
    }

    #[test]
    fn positions_are_seqs_by_conversation() {
        let parse = |positions: Value| Positions::parse(object(json!({ "positions": positions })));
        let conversation = ConversationName::parse(CONVERSATION).unwrap();
        assert_eq!(parse(json!({ CONVERSATION: 7 })), Ok(Positions([(conversation.clone(), 7)].into())));
        assert_eq!(
            parse(json!({ CONVERSATION: { "seq": 7, "change": 2 } })),
            Ok(Positions([(conversation.clone(), 7)].into()))
        );
        // The same id in upper and in lower case.
        let twice = json!({ CONVERSATION: 9, (CONVERSATION.to_uppercase()): 4 });
        assert_eq!(parse(twice), Ok(Positions([(conversation, 9)].into())));
        assert_eq!(parse(json!({ "no name": 7 })), Ok(Positions(BTreeMap::new())));
        for bad in [json!("7"), json!(-1), json!(1.5), json!(null), json!([]), json!({}), json!(u64::MAX)] {
            assert_eq!(
                refusal(parse(json!({ CONVERSATION: bad }))),
                (422, format!("positions.{CONVERSATION}"))
            );
        }
        let many: serde_json::Map<_, _> =
            (0..=marks::POSITIONS_MAX).map(|n| (n.to_string(), json!(1))).collect();
        for bad in [json!(null), json!([1]), Value::Object(many)] {
            assert_eq!(refusal(parse(bad)), (422, "positions".into()));
        }
    }
}
