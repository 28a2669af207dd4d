//! JSON Schema as far as requests are described with it: what a schema accepts, and a value that it does.

use regex_lite::Regex;
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// A whole number that has no small bound is taken from its lower end.
const SMALL: i64 = 1_000_000;

pub fn accepts(schema: &Value, value: &Value) -> bool {
    let Some(rules) = schema.as_object() else { panic!("no schema: {schema}") };
    rules.iter().all(|(word, rule)| keeps(word, rule, value, rules))
}

fn keeps(word: &str, rule: &Value, value: &Value, rules: &Map<String, Value>) -> bool {
    let alternatives =
        || rule.as_array().expect("alternatives").iter().filter(move |one| accepts(one, value));
    let size = |size: Option<usize>, fits: fn(usize, usize) -> bool| {
        size.is_none_or(|size| fits(size, rule.as_u64().expect("a size") as usize))
    };
    let chars = || value.as_str().map(|text| text.chars().count());
    let items = || value.as_array().map(Vec::len);
    match word {
        "type" => match rule {
            Value::Array(types) => types.iter().any(|one| is(one, value)),
            one => is(one, value),
        },
        "enum" => rule.as_array().expect("words").contains(value),
        "const" => rule == value,
        "oneOf" => alternatives().count() == 1,
        "anyOf" => alternatives().next().is_some(),
        "minLength" => size(chars(), |size, least| size >= least),
        "maxLength" => size(chars(), |size, most| size <= most),
        "minItems" => size(items(), |size, least| size >= least),
        "maxItems" => size(items(), |size, most| size <= most),
        "pattern" => value.as_str().is_none_or(|text| regex(rule).is_match(text)),
        "format" => value.as_str().is_none_or(|text| has_format(rule, text)),
        "minimum" => number(value).is_none_or(|value| Some(value) >= number(rule)),
        "maximum" => number(value).is_none_or(|value| Some(value) <= number(rule)),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| accepts(rule, item))),
        "required" => value.as_object().is_none_or(|fields| {
            rule.as_array().expect("names").iter().all(|name| fields.contains_key(name.as_str().unwrap()))
        }),
        "properties" => {
            let of = |name: &String| value.get(name);
            let mut named = rule.as_object().expect("properties").iter();
            named.all(|(name, schema)| of(name).is_none_or(|value| accepts(schema, value)))
        }
        "description" | "default" => true,
        // Passed over, what it forbids would be passed over too.
        other => panic!("docs/openapi.yaml uses `{other}`, which is not read here: {rules:?}"),
    }
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().expect("a type") {
        "string" => value.is_string(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|x| x.fract() == 0.0),
        other => panic!("a type `{other}`"),
    }
}

/// Exact for whole numbers: the bound of a seq has no neighbours among floats. Floats are beyond all of them.
fn number(value: &Value) -> Option<i128> {
    let whole = || value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    value.is_number().then(|| whole().or_else(|| value.as_f64().map(|x| x as i128))).flatten()
}

fn regex(pattern: &Value) -> Regex {
    let pattern = pattern.as_str().expect("a pattern");
    Regex::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"))
}

fn has_format(format: &Value, text: &str) -> bool {
    match format.as_str() {
        Some("uuid") => text.len() == 36 && Uuid::try_parse(text).is_ok(),
        other => panic!("a format {other:?}"),
    }
}

/// What is described where `null` is possible too.
pub fn core(schema: &Value) -> &Value {
    let alternatives = ["anyOf", "oneOf"].iter().find_map(|word| schema.get(word)?.as_array());
    let found = alternatives.and_then(|all| all.iter().find(|one| one["type"] != "null"));
    found.map_or(schema, core)
}

/// Ways to be this, one each.
pub fn shapes(schema: &Value) -> Vec<&Value> {
    schema.get("oneOf").and_then(Value::as_array).map_or(vec![schema], |all| all.iter().collect())
}

/// Makes values that a schema accepts.
pub struct Sampler<'a> {
    /// What is known to exist under a name.
    pub known: &'a dyn Fn(&str) -> Option<Value>,
    /// A number that was not used before, for what must be unique.
    pub fresh: &'a dyn Fn() -> u64,
    /// Only what is required.
    pub least: bool,
}

impl Sampler<'_> {
    pub fn value(&self, name: &str, schema: &Value) -> Value {
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
            Uuid::from_u128(0x0199_aaaa_0000_7000_8000_0000_0000_0000 + u128::from(n)).to_string(),
        ];
        let fits = ways.into_iter().map(Value::from).find(|text| accepts(schema, text));
        fits.unwrap_or_else(|| panic!("no text is known that is {schema}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_described_is_told_from_what_is_not() {
        let schema = json!({"type": "object", "required": ["a"], "properties": {
            "a": {"type": ["string", "null"], "minLength": 2, "maxLength": 3, "pattern": "^[^\\u0000]*$"},
            "b": {"type": "integer", "minimum": 0, "maximum": i64::MAX},
            "c": {"anyOf": [{"type": "array", "maxItems": 1, "items": {"enum": ["x"]}}, {"type": "null"}]},
            "d": {"type": "string", "format": "uuid"},
        }});
        for good in [
            json!({"a": "đđ", "other": 1}),
            json!({"a": null, "b": i64::MAX, "c": null}),
            json!({"a": "abc", "b": 7.0, "c": ["x"], "d": "0199aaaa-0000-7000-8000-000000000000"}),
        ] {
            assert!(accepts(&schema, &good), "{good}");
        }
        for bad in [
            json!([]),
            json!({}),
            json!({"a": "đ"}),
            json!({"a": "abcd"}),
            json!({"a": "a\0"}),
            json!({"a": 7}),
            json!({"a": "ab", "b": -1}),
            json!({"a": "ab", "b": 1.5}),
            json!({"a": "ab", "b": i64::MAX as u64 + 1}),
            json!({"a": "ab", "b": 1e300}),
            json!({"a": "ab", "b": null}),
            json!({"a": "ab", "c": ["x", "x"]}),
            json!({"a": "ab", "c": ["y"]}),
            json!({"a": "ab", "d": "0199aaaa00007000800000000000000000000"}),
        ] {
            assert!(!accepts(&schema, &bad), "{bad}");
        }
    }
}
