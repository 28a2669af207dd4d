//! Values that a schema accepts.

use serde_json::{Value, json};
use switchboard_tests::schema::{accepts, core};
use uuid::Uuid;

/// A whole number without a small upper bound is taken from its lower end.
const SMALL: i64 = 1_000_000;

/// One value for each alternative.
pub(super) fn shapes(schema: &Value) -> Vec<&Value> {
    schema.get("oneOf").and_then(Value::as_array).map_or(vec![schema], |all| all.iter().collect())
}

/// Makes values that a schema accepts.
pub(super) struct Sampler<'a> {
    /// The existing value for a name.
    pub known: &'a dyn Fn(&str) -> Option<Value>,
    /// A number that was not used before, for unique values.
    pub fresh: &'a dyn Fn() -> u64,
    /// Only required fields.
    pub least: bool,
}

impl Sampler<'_> {
    pub(super) fn value(&self, name: &str, schema: &Value) -> Value {
        let made = (self.known)(name)
            .filter(|value| accepts(schema, value))
            .unwrap_or_else(|| self.made(name, core(schema)));
        assert!(accepts(schema, &made), "no value for `{name}`: {made} is not {schema}");
        made
    }

    fn made(&self, name: &str, schema: &Value) -> Value {
        if let Some(only) = schema.get("const") {
            return only.clone();
        }
        if let Some(words) = schema["enum"].as_array() {
            return words.iter().rfind(|word| !word.is_null()).expect("a word").clone();
        }
        let number = |word: &str| schema[word].as_i64();
        match schema["type"].as_str().or_else(|| schema["type"][0].as_str()).expect("a type") {
            "string" => self.text(schema),
            "boolean" => json!(false),
            "integer" => json!(
                number("maximum").filter(|most| *most <= SMALL).or(number("minimum")).unwrap_or_default()
            ),
            "array" => (0..schema["minItems"].as_u64().unwrap_or(1))
                .map(|_| self.value(name, &schema["items"]))
                .collect(),
            "object" => self.object(schema),
            other => panic!("a type `{other}`"),
        }
    }

    fn object(&self, schema: &Value) -> Value {
        let is_required =
            |name: &str| schema["required"].as_array().is_some_and(|all| all.contains(&json!(name)));
        let fields = schema["properties"].as_object().into_iter().flatten();
        let wanted = fields.filter(|(name, _)| !self.least || is_required(name));
        wanted.map(|(name, schema)| (name.clone(), self.value(name, schema))).collect()
    }

    fn text(&self, schema: &Value) -> Value {
        let n = (self.fresh)();
        let ways = [
            format!("x-{n}"),
            format!("https://x.test/{n}"),
            format!("x{n}@x.test"),
            format!("user:x-{n}"),
            // A cursor of users.
            format!("p{:x}", 0x7800 + n % 10 + u64::from(b'0')),
            Uuid::from_u128(0x0199_aaaa_0000_7000_8000_0000_0000_0000 + u128::from(n)).to_string(),
        ];
        let fits = ways.into_iter().map(Value::from).find(|text| accepts(schema, text));
        fits.unwrap_or_else(|| panic!("no text is known that is {schema}"))
    }
}
