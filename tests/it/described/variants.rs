//! Invalid variants of a field: missing, empty, one beyond each bound, of another type, hostile.

use serde_json::{Map, Value, json};
use switchboard_tests::schema::core;

/// One variant of a field of a body.
pub(super) enum Given {
    Missing,
    Json(Value),
    /// Replaces the value by this text, which need not be JSON.
    Raw(String),
}

/// The name of a field in errors: `attachments[0].url`.
pub(super) struct Field {
    pub name: String,
    /// The JSON pointer of the field.
    pub pointer: String,
    pub schema: Value,
}

/// Every field of an object, also of objects and lists in it.
pub(super) fn fields(schema: &Value) -> Vec<Field> {
    let mut fields = Vec::new();
    collect(core(schema), "", "", &mut fields);
    fields
}

fn collect(schema: &Value, name: &str, pointer: &str, into: &mut Vec<Field>) {
    let dot = if name.is_empty() { "" } else { "." };
    for (field, of) in schema["properties"].as_object().into_iter().flatten() {
        let (name, pointer) = (format!("{name}{dot}{field}"), format!("{pointer}/{field}"));
        into.push(Field { name: name.clone(), pointer: pointer.clone(), schema: of.clone() });
        let of = core(of);
        collect(of, &name, &pointer, into);
        if let Some(items) = of.get("items") {
            let (name, pointer) = (format!("{name}[0]"), format!("{pointer}/0"));
            into.push(Field { name: name.clone(), pointer: pointer.clone(), schema: items.clone() });
            collect(core(items), &name, &pointer, into);
        }
    }
}

/// The body with this variant of one field, as text, because `Raw` makes it invalid JSON.
pub(super) fn given(body: &Value, pointer: &str, given: &Given) -> (Value, String) {
    const PLACE: &str = "@@raw@@";
    let mut body = body.clone();
    let value = match given {
        Given::Missing => None,
        Given::Json(value) => Some(value.clone()),
        Given::Raw(_) => Some(json!(PLACE)),
    };
    put(&mut body, pointer, value);
    let mut text = body.to_string();
    if let Given::Raw(raw) = given {
        text = text.replace(&json!(PLACE).to_string(), raw);
    }
    (body, text)
}

fn put(body: &mut Value, pointer: &str, value: Option<Value>) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    match (body.pointer_mut(parent), value) {
        (Some(Value::Object(fields)), Some(value)) => drop(fields.insert(name.to_owned(), value)),
        (Some(Value::Object(fields)), None) => drop(fields.remove(name)),
        (Some(Value::Array(items)), Some(value)) => items[0] = value,
        (Some(Value::Array(items)), None) => items.clear(),
        _ => panic!("{pointer} leads nowhere"),
    }
}

/// Variants of a field of a body, instead of `good`.
pub(super) fn of_body(schema: &Value, good: &Value) -> Vec<(String, Given)> {
    let mut ways = vec![("missing".to_owned(), Given::Missing)];
    let json = |(what, value): (String, Value)| (what, Given::Json(value));
    ways.extend(types().into_iter().map(json));
    ways.extend(bounds(schema, good).into_iter().map(json));
    ways.extend(hostile().into_iter().map(|(what, text)| json((what.to_owned(), text.into()))));
    for (what, raw) in [
        ("half a surrogate pair", r#""\ud800""#.to_owned()),
        ("nested 10,000 deep", "[".repeat(10_000) + &"]".repeat(10_000)),
        ("objects 1,000 deep", r#"{"a":"#.repeat(1_000) + "1" + &"}".repeat(1_000)),
        ("no JSON number", "1e999".to_owned()),
    ] {
        ways.push((what.to_owned(), Given::Raw(raw)));
    }
    ways
}

/// Variants of a parameter, instead of `good`.
pub(super) fn of_parameter(schema: &Value, good: &Value) -> Vec<(String, String)> {
    let bare = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let words = ["", "-1", "7", "1.5", "1e3", "0x10", "NaN", "null", "true", "[]", "{}", "no-such-word"];
    let mut ways: Vec<_> = words.map(|word| (format!("{word:?}"), word.to_owned())).into();
    ways.extend(bounds(schema, good).into_iter().map(|(what, value)| (what, bare(&value))));
    ways.extend(hostile().into_iter().map(|(what, text)| (what.to_owned(), text)));
    ways
}

/// Values of every type, and the limits of numbers.
fn types() -> Vec<(String, Value)> {
    let deep = (0..40).fold(json!(1), |inner, _| json!({ "a": inner }));
    let values = [
        json!(null),
        json!(true),
        json!(7),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("7"),
        json!("no-such-word"),
        json!([]),
        json!([[]]),
        json!([null]),
        json!(["x", 7]),
        json!({}),
        json!({"x": 1}),
        json!({"a\u{0}": 1}),
        json!({"a": ["\u{0}"]}),
    ];
    let mut named: Vec<_> = values.into_iter().map(|value| (value.to_string(), value)).collect();
    named.push(("objects 40 deep".into(), deep));
    named.push(("an object of 9 KiB".into(), json!({ "a": "x".repeat(9 * 1024) })));
    named
}

/// One beyond each described bound.
fn bounds(schema: &Value, good: &Value) -> Vec<(String, Value)> {
    let schema = core(schema);
    let mut past = Vec::new();
    let size = |word: &str| schema[word].as_u64().map(|size| size as usize);
    if let Some(good) = good.as_str() {
        if let Some(most) = size("maxLength") {
            let more = (most + 1).saturating_sub(good.chars().count());
            past.push((format!("{} characters", most + 1), json!(good.to_owned() + &"x".repeat(more))));
        }
        if let Some(least) = size("minLength").filter(|least| *least > 0) {
            let fewer: String = good.chars().take(least - 1).collect();
            past.push((format!("{} characters", least - 1), json!(fewer)));
        }
    }
    if let Some(most) = schema["maximum"].as_u64() {
        past.push(("past the maximum".into(), json!(most + 1)));
    }
    if let Some(least) = schema["minimum"].as_i64() {
        past.push(("below the minimum".into(), json!(least - 1)));
    }
    if let (Some(most), Some(one)) = (size("maxItems"), good.get(0)) {
        let each = |n| one.as_str().map_or_else(|| one.clone(), |text| json!(format!("{text}-{n}")));
        past.push((format!("{} items", most + 1), (0..=most).map(each).collect()));
    }
    if size("minItems").is_some_and(|least| least > 0) {
        past.push(("no items".into(), json!([])));
    }
    if let Some(word) = schema["enum"][0].as_str() {
        past.push(("a word in capitals".into(), json!(format!("{}X", word.to_uppercase()))));
    }
    past
}

/// Texts that some software misinterprets.
fn hostile() -> Vec<(&'static str, String)> {
    vec![
        ("NUL", "\u{0}".into()),
        ("NUL in a text", "a\u{0}b".into()),
        ("control characters", "a\u{1}\u{7f}\u{9b}b".into()),
        ("a line end", "a\r\nx-injected: 1\r\n\r\n".into()),
        ("only spaces", "  \t ".into()),
        ("SQL", "'; drop table app.users; --".into()),
        ("SQL in a number", "1 or 1=1".into()),
        ("a pattern of LIKE", "%_\\%".into()),
        ("a script", "\"><script>alert(1)</script>".into()),
        ("a scheme", "javascript:alert(1)".into()),
        ("a path", "../../../etc/passwd".into()),
        ("an escaped path", "..%2f..%2fetc%2fpasswd".into()),
        ("a key of Redis", "x\r\nFLUSHALL\r\n*".into()),
        ("a format", "%s%n{0}${jndi:ldap://x}{{7*7}}".into()),
        ("beyond the first plane", "👩\u{200d}👩\u{200d}👧 \u{10ffff}\u{1d11e}".into()),
        ("written from right to left", "\u{202e}gnp.exe\u{2066}".into()),
        ("marks upon marks", "a".to_owned() + &"\u{301}\u{323}".repeat(40)),
        ("no character", "\u{feff}\u{ffff}\u{fffd}".into()),
        ("an id of nothing", "00000000-0000-0000-0000-000000000000".into()),
        ("an id of everything", "ffffffff-ffff-ffff-ffff-ffffffffffff".into()),
        ("an id without dashes", "0199aaaa000070008000000000000000".into()),
        ("24 KiB", "x".repeat(24 * 1024)),
        ("64 KiB", "x".repeat(64 * 1024)),
    ]
}

/// Bodies that are not a JSON object; `good` is a valid one.
pub(super) fn no_object(good: &str) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("nothing", Vec::new()),
        ("cut short", good.as_bytes()[..good.len() - 1].to_vec()),
        ("twice", good.repeat(2).into_bytes()),
        ("invalid UTF-8", [b"{\"x\":\"\xff\",".as_slice(), &good.as_bytes()[1..]].concat()),
        ("with a byte order mark", format!("\u{feff}{good}").into_bytes()),
        ("a list", format!("[{good}]").into_bytes()),
        ("a text", json!(good).to_string().into_bytes()),
        ("null", b"null".to_vec()),
        ("never ending", b"{\"x\":".repeat(8_000)),
    ]
}

/// The same object, made larger than the maximum by a field that no handler reads.
pub(super) fn too_large(good: &Value) -> String {
    let mut fields: Map<String, Value> = good.as_object().cloned().unwrap_or_default();
    fields.insert("unknown".into(), json!("x".repeat(64 * 1024)));
    json!(fields).to_string()
}
