//! Reads JSON from clients, field by field. Every error names the field and the rule. Unknown fields are
//! ignored, and `null` counts as absent. A text that contains NUL is refused, because Postgres cannot store
//! it.

use serde_json::{Map, Value};

use crate::{Id, Problem, text};

/// The deepest nesting of free-form JSON (metadata, settings). It keeps a recursive reader from overflowing
/// its stack.
pub const DEPTH_MAX: usize = 32;

/// A JSON object. Each read removes one field from it.
#[derive(Debug)]
pub struct Object {
    fields: Map<String, Value>,
    /// The path of this object in the body, for errors: empty, or for example `attachments[2].`.
    path: String,
}

impl Object {
    pub fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Self { fields, path: String::new() }),
            Ok(_) => Err(Problem::malformed("the body is not a JSON object")),
            Err(error) => Err(Problem::malformed(format!("the body is not JSON: {error}"))),
        }
    }

    /// The same as [`Self::parse`], but no bytes count as an empty object.
    pub fn parse_or_empty(bytes: &[u8]) -> Result<Self, Problem> {
        if bytes.is_empty() {
            Ok(Self { fields: Map::new(), path: String::new() })
        } else {
            Self::parse(bytes)
        }
    }

    /// A nested object; `path` is its place in the body, for errors.
    pub fn of(value: Value, path: &str) -> Result<Self, Problem> {
        match value {
            Value::Object(fields) => Ok(Self { fields, path: format!("{path}.") }),
            _ => Err(Problem::invalid(path, "is not an object")),
        }
    }

    fn take(&mut self, field: &str) -> Option<Value> {
        self.fields.remove(field).filter(|value| !value.is_null())
    }

    /// The full path of a field, for errors.
    pub fn name(&self, field: &str) -> String {
        format!("{}{field}", self.path)
    }

    /// Whether the object has the field, possibly as `null`.
    pub fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    /// Whether the field is `null`. Some fields distinguish `null` from absent.
    pub fn is_null(&self, field: &str) -> bool {
        self.fields.get(field).is_some_and(Value::is_null)
    }

    pub fn text(&mut self, field: &str) -> Result<Option<String>, Problem> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) if text.contains('\0') => {
                Err(Problem::invalid(self.name(field), "contains NUL"))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Problem::invalid(self.name(field), "is not a text")),
        }
    }

    pub fn integer(&mut self, field: &str) -> Result<Option<i64>, Problem> {
        match self.take(field) {
            None => Ok(None),
            Some(value) => match whole(&value) {
                Some(number) => Ok(Some(number)),
                None => Err(Problem::invalid(self.name(field), "is not a whole number of 64 bits")),
            },
        }
    }

    /// A whole number, zero or more: a seq, a position, a limit.
    pub fn number(&mut self, field: &str) -> Result<Option<u64>, Problem> {
        match self.integer(field)? {
            None => Ok(None),
            Some(number) => match u64::try_from(number) {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(Problem::invalid(self.name(field), "is negative")),
            },
        }
    }

    pub fn boolean(&mut self, field: &str) -> Result<Option<bool>, Problem> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(Problem::invalid(self.name(field), "is not true or false")),
        }
    }

    pub fn id(&mut self, field: &str) -> Result<Option<Id>, Problem> {
        match self.text(field)? {
            None => Ok(None),
            Some(raw) => {
                Id::parse(&raw).map(Some).ok_or_else(|| Problem::invalid(self.name(field), "is not a UUID"))
            }
        }
    }

    pub fn user_id(&mut self, field: &str) -> Result<Option<String>, Problem> {
        match self.text(field)? {
            Some(raw) if !text::is_user_id(&raw) => Err(Problem::invalid(self.name(field), USER_ID_RULE)),
            other => Ok(other),
        }
    }

    pub fn array(&mut self, field: &str, most: usize) -> Result<Option<Vec<Value>>, Problem> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Array(items)) if items.len() > most => {
                Err(Problem::invalid(self.name(field), format!("has more than {most} entries")))
            }
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) => Err(Problem::invalid(self.name(field), "is not an array")),
        }
    }

    pub fn texts(&mut self, field: &str, most: usize) -> Result<Option<Vec<String>>, Problem> {
        let Some(items) = self.array(field, most)? else { return Ok(None) };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) if !text.contains('\0') => texts.push(text),
                _ => {
                    let name = format!("{}[{index}]", self.name(field));
                    return Err(Problem::invalid(name, "is not a text without NUL"));
                }
            }
        }
        Ok(Some(texts))
    }

    pub fn ids(&mut self, field: &str, most: usize) -> Result<Option<Vec<Id>>, Problem> {
        let Some(texts) = self.texts(field, most)? else { return Ok(None) };
        let parse = |(index, raw): (usize, &String)| {
            Id::parse(raw)
                .ok_or_else(|| Problem::invalid(format!("{}[{index}]", self.name(field)), "is not a UUID"))
        };
        texts.iter().enumerate().map(parse).collect::<Result<_, _>>().map(Some)
    }

    pub fn user_ids(&mut self, field: &str, most: usize) -> Result<Option<Vec<String>>, Problem> {
        let Some(texts) = self.texts(field, most)? else { return Ok(None) };
        for (index, raw) in texts.iter().enumerate() {
            if !text::is_user_id(raw) {
                return Err(Problem::invalid(format!("{}[{index}]", self.name(field)), USER_ID_RULE));
            }
        }
        Ok(Some(texts))
    }

    /// The fields of a nested object whose keys the client chooses.
    pub fn map(&mut self, field: &str, most: usize) -> Result<Option<Map<String, Value>>, Problem> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Object(fields)) if fields.len() > most => {
                Err(Problem::invalid(self.name(field), format!("has more than {most} entries")))
            }
            Some(Value::Object(fields)) => Ok(Some(fields)),
            Some(_) => Err(Problem::invalid(self.name(field), "is not an object")),
        }
    }

    /// A free-form object, as compact JSON of at most `bytes_max` bytes.
    pub fn free(&mut self, field: &str, bytes_max: usize) -> Result<Option<String>, Problem> {
        match self.take(field) {
            None => Ok(None),
            Some(value @ Value::Object(_)) => {
                storable(&value, &self.name(field))?;
                let compact = value.to_string();
                if compact.len() > bytes_max {
                    let rule = format!("is over {bytes_max} bytes as compact JSON");
                    return Err(Problem::invalid(self.name(field), rule));
                }
                Ok(Some(compact))
            }
            Some(_) => Err(Problem::invalid(self.name(field), "is not an object")),
        }
    }

    /// The page size, `limit`. A value out of range is refused, not clamped.
    pub fn limit(&mut self, default: u64, most: u64) -> Result<u64, Problem> {
        match self.number("limit")? {
            None => Ok(default),
            Some(limit) if (1..=most).contains(&limit) => Ok(limit),
            Some(_) => Err(Problem::invalid("limit", format!("is not between 1 and {most}"))),
        }
    }
}

/// The value as a whole number; `7` and `7.0` are the same number.
fn whole(value: &Value) -> Option<i64> {
    /// From 2^53 on, several whole numbers share one float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let float = || value.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < EXACT);
    value.as_i64().or_else(|| float().map(|float| float as i64))
}

const USER_ID_RULE: &str =
    "is not a user id: 1 to 64 characters, no control characters, not `me`, `.` or `..`";

/// The value of a field that must be present.
pub fn required<T>(field: &str, value: Option<T>) -> Result<T, Problem> {
    value.ok_or_else(|| Problem::invalid(field, "is required"))
}

/// Checks that Postgres can store a value: no text or key contains NUL, and it is not nested deeper than
/// [`DEPTH_MAX`].
pub fn storable(value: &Value, path: &str) -> Result<(), Problem> {
    fn check(value: &Value, depth: usize) -> Result<(), &'static str> {
        if depth > DEPTH_MAX {
            return Err("is nested too deeply");
        }
        match value {
            Value::String(text) if text.contains('\0') => Err("contains NUL"),
            Value::Array(items) => items.iter().try_for_each(|item| check(item, depth + 1)),
            Value::Object(fields) => fields.iter().try_for_each(|(key, item)| {
                if key.contains('\0') { Err("contains NUL") } else { check(item, depth + 1) }
            }),
            _ => Ok(()),
        }
    }
    check(value, 1).map_err(|rule| Problem::invalid(path, rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T: std::fmt::Debug>(json: &str, read: fn(&mut Object) -> Result<T, Problem>) -> String {
        let problem = Object::parse(json.as_bytes()).and_then(|mut object| read(&mut object)).unwrap_err();
        format!("{} {}", problem.status, problem.detail)
    }

    #[test]
    fn a_body_that_is_no_object_is_malformed() {
        for bad in ["", "{", "[]", "3", "{\"a\":1e999}", "\u{feff}{}"] {
            assert!(refusal(bad, |_| Ok(())).starts_with("400 "), "{bad}");
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        assert!(refusal(&deep, |_| Ok(())).starts_with("400 "));
        assert_eq!(Object::parse(b"{\"a\":\"\xff\"}").unwrap_err().status, 400);
    }

    #[test]
    fn an_error_names_the_field_and_the_rule() {
        assert_eq!(refusal(r#"{"a":1}"#, |o| o.text("a")), "422 a: is not a text");
        assert_eq!(refusal(r#"{"a":"x\u0000"}"#, |o| o.text("a")), "422 a: contains NUL");
        assert_eq!(refusal(r#"{"a":1.5}"#, |o| o.integer("a")), "422 a: is not a whole number of 64 bits");
        assert_eq!(
            refusal(r#"{"a":18446744073709551616}"#, |o| o.number("a")),
            "422 a: is not a whole number of 64 bits"
        );
        assert_eq!(refusal(r#"{"a":-1}"#, |o| o.number("a")), "422 a: is negative");
        assert_eq!(refusal(r#"{"a":"x"}"#, |o| o.id("a")), "422 a: is not a UUID");
        assert_eq!(refusal(r#"{"a":[1,2,3]}"#, |o| o.array("a", 2)), "422 a: has more than 2 entries");
        assert_eq!(refusal(r#"{"a":["x",2]}"#, |o| o.texts("a", 2)), "422 a[1]: is not a text without NUL");
        assert_eq!(refusal(r#"{"limit":0}"#, |o| o.limit(50, 100)), "422 limit: is not between 1 and 100");
        assert_eq!(
            refusal("{}", |o| {
                let a = o.text("a")?;
                required("a", a)
            }),
            "422 a: is required"
        );
    }

    #[test]
    fn a_whole_number_may_be_written_as_a_fraction() {
        let mut object = Object::parse(br#"{"a":7.0,"b":-1e3,"c":9007199254740992.0}"#).unwrap();
        assert_eq!((object.integer("a").unwrap(), object.integer("b").unwrap()), (Some(7), Some(-1000)));
        assert!(object.integer("c").is_err());
    }

    #[test]
    fn null_and_unknown_fields_count_as_absent() {
        let mut object = Object::parse(br#"{"a":null,"other":{"x":[]}}"#).unwrap();
        assert_eq!(object.text("a").unwrap(), None);
        assert_eq!(object.integer("b").unwrap(), None);
    }

    #[test]
    fn free_objects_are_measured_as_compact_json() {
        let mut object = Object::parse(br#"{"m": { "k" :  "v" } }"#).unwrap();
        assert_eq!(object.free("m", 9).unwrap().unwrap(), r#"{"k":"v"}"#);
        assert_eq!(
            refusal(r#"{"m":{"k":"v"}}"#, |o| o.free("m", 8)),
            "422 m: is over 8 bytes as compact JSON"
        );
        assert_eq!(refusal(r#"{"m":{"k":["\u0000"]}}"#, |o| o.free("m", 99)), "422 m: contains NUL");
        let deep = format!("{{\"m\":{{\"k\":{}1{}}}}}", "[".repeat(40), "]".repeat(40));
        assert_eq!(refusal(&deep, |o| o.free("m", 999)), "422 m: is nested too deeply");
    }
}
