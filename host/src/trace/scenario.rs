//! How a test makes its call happen again: the head of its trace. A test is one file; written by hand up to its input, the
//! rest is recorded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Difference, Place};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// What this test protects, in a sentence.
    pub about: String,
    /// Files of SQL beside the trace, run by the owner of a new database, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sql: Vec<String>,
    /// Commands to a new Redis.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redis: Vec<Vec<String>>,
    /// Over the manifest's `[config]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// When it happens, RFC 3339; 2026-11-20T12:00:00Z unless given. The clock advances a millisecond a look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
    /// What goes wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inject: Vec<Injection>,
    /// Functions whose answers the services make up anew each time (what is left of a time to live), and `outcome` where it
    /// tells of one: they are not compared with what real services say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volatile: Vec<String>,
}

impl Scenario {
    /// Whether the services, not the handler, make up what differs here.
    pub fn is_volatile(&self, difference: &Difference) -> bool {
        let name = match &difference.place {
            Place::Call(_, function) if difference.path.starts_with("=> ") => function.as_str(),
            Place::Call(..) => return false,
            Place::Outcome => "outcome",
        };
        self.volatile.iter().any(|volatile| volatile == name)
    }
}

/// One host call that does not go as it should.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Injection {
    /// `postgres.query`.
    pub call: String,
    /// The how-manieth of that function in this call.
    #[serde(default = "Injection::first", skip_serializing_if = "Injection::is_first")]
    pub nth: u32,
    /// Instead of asking the world: as a trace writes it, for instance `{"Err": "Busy"}`. Without it the call never comes
    /// back, and ends at its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
    /// The world does it, and the answer is lost all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

impl Injection {
    fn first() -> u32 {
        1
    }

    fn is_first(nth: &u32) -> bool {
        *nth == 1
    }
}
