//! A validator for the part of JSON Schema that the documents of the wire use.

use regex_lite::Regex;
use serde_json::{Map, Value};
use uuid::Uuid;

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
        "additionalProperties" => {
            let named = rules.get("properties").and_then(Value::as_object);
            let mut others = value
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(name, _)| named.is_none_or(|named| !named.contains_key(name.as_str())));
            others.all(|(_, value)| accepts(rule, value))
        }
        "description" | "default" => true,
        // Skipping an unknown keyword would also skip its prohibitions.
        other => panic!("`{other}` is not read here: {rules:?}"),
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

/// Exact for whole numbers, because a float cannot represent the bound of a seq. Floats compare as larger
/// than all of them.
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
        Some("date-time") => regex(&r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$".into()).is_match(text),
        other => panic!("a format {other:?}"),
    }
}

/// The schema without its alternative `null`.
pub fn core(schema: &Value) -> &Value {
    let alternatives = ["anyOf", "oneOf"].iter().find_map(|word| schema.get(word)?.as_array());
    let found = alternatives.and_then(|all| all.iter().find(|one| one["type"] != "null"));
    found.map_or(schema, core)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_accepts_only_values_that_it_describes() {
        let schema = json!({"type": "object", "required": ["a"], "properties": {
            "a": {"type": ["string", "null"], "minLength": 2, "maxLength": 3, "pattern": "^[^\\u0000]*$"},
            "b": {"type": "integer", "minimum": 0, "maximum": i64::MAX},
            "c": {"anyOf": [{"type": "array", "maxItems": 1, "items": {"enum": ["x"]}}, {"type": "null"}]},
            "d": {"type": "string", "format": "uuid"},
            "e": {"type": ["string", "null"], "format": "date-time"},
            "f": {"type": "object", "additionalProperties": {"type": "integer"}, "properties": {"a": {"type": "string"}}},
        }});
        for good in [
            json!({"a": "đđ", "other": 1}),
            json!({"a": null, "b": i64::MAX, "c": null}),
            json!({"a": "abc", "e": "2026-11-20T12:00:00.000Z", "f": {"a": "x", "b": 1}}),
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
            json!({"a": "ab", "e": "2026-11-20 12:00:00Z"}),
            json!({"a": "ab", "f": {"b": "x"}}),
            json!({"a": "ab", "d": "0199aaaa00007000800000000000000000000"}),
        ] {
            assert!(!accepts(&schema, &bad), "{bad}");
        }
    }
}
