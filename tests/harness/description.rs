//! The descriptions of the wire: `docs/openapi.yaml`, `docs/asyncapi.yaml`. Every frame that a client of a
//! test receives is checked against the second.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::schema::accepts;

/// Maximum depth of a schema; a deeper one refers to itself.
const DEPTH_MAX: usize = 40;

pub fn openapi() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| parsed(include_str!("../../docs/openapi.yaml")));
    &DOCUMENT
}

pub fn asyncapi() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| parsed(include_str!("../../docs/asyncapi.yaml")));
    &DOCUMENT
}

fn parsed(text: &str) -> Value {
    serde_yaml_ng::from_str(text).expect("a description is YAML")
}

/// The description of a frame.
pub struct Message {
    pub name: String,
    pub aliases: Vec<String>,
    /// The schema of the whole frame.
    pub schema: Value,
}

/// The frames that the host receives, with their replies, and the frames that it pushes.
pub fn operations() -> Vec<(Vec<Message>, Vec<Message>)> {
    let document = asyncapi();
    let messages = |list: &Value| -> Vec<Message> {
        let list = list.as_array().into_iter().flatten();
        list.map(|message| Message::read(&whole(document, message))).collect()
    };
    let of = |operation: &Value| match operation["action"].as_str() {
        Some("receive") => (messages(&operation["messages"]), messages(&operation["reply"]["messages"])),
        Some("send") => (Vec::new(), messages(&operation["messages"])),
        other => panic!("an action {other:?}"),
    };
    document["operations"].as_object().expect("operations").values().map(of).collect()
}

impl Message {
    fn read(message: &Value) -> Self {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let aliases = message["x-aliases"].as_array().into_iter().flatten().map(text).collect();
        Self { name: text(&message["name"]), aliases, schema: message["payload"].clone() }
    }
}

/// The error of a frame of the host. Frames of other types belong to their publisher.
pub fn complaint(frame: &Value) -> Option<String> {
    static SCHEMAS: LazyLock<BTreeMap<String, Vec<Value>>> = LazyLock::new(|| {
        let mut schemas = BTreeMap::<_, Vec<_>>::new();
        for message in operations().into_iter().flat_map(|(_, messages)| messages) {
            schemas.entry(message.name).or_default().push(message.schema);
        }
        schemas
    });
    let schemas = SCHEMAS.get(frame["type"].as_str()?)?;
    let fits = schemas.iter().any(|schema| accepts(schema, frame));
    (!fits).then(|| format!("docs/asyncapi.yaml describes it otherwise: {frame}"))
}

/// All bindings of a kind (`http`, `frame`) in the product's manifests.
pub fn bindings(kind: &str) -> Vec<toml::Value> {
    let handlers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../handlers");
    let mut bindings = Vec::new();
    for handler in std::fs::read_dir(handlers).expect("the handlers").flatten() {
        let Ok(manifest) = std::fs::read_to_string(handler.path().join("handler.toml")) else { continue };
        let manifest: toml::Table = manifest.parse().expect("a manifest");
        let bound = manifest.get("on").and_then(|on| on.get(kind)).and_then(toml::Value::as_array);
        bindings.extend(bound.into_iter().flatten().cloned());
    }
    bindings
}

/// A schema with its references and `allOf` resolved.
pub fn whole(document: &Value, value: &Value) -> Value {
    resolved(document, value, 0)
}

fn resolved(document: &Value, value: &Value, depth: usize) -> Value {
    assert!(depth < DEPTH_MAX, "a schema that refers to itself: {value}");
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let (file, pointer) = reference.split_once('#').unwrap_or((reference, ""));
                let document = if file == "openapi.yaml" { openapi() } else { document };
                let target = document.pointer(pointer);
                let target = target.unwrap_or_else(|| panic!("{reference} leads nowhere"));
                return resolved(document, target, depth + 1);
            }
            let each =
                fields.iter().map(|(name, value)| (name.clone(), resolved(document, value, depth + 1)));
            together(each.collect())
        }
        Value::Array(items) => items.iter().map(|item| resolved(document, item, depth + 1)).collect(),
        other => other.clone(),
    }
}

/// Merges the objects of `allOf` into one with all fields.
fn together(mut schema: Map<String, Value>) -> Value {
    let Some(Value::Array(parts)) = schema.remove("allOf") else { return Value::Object(schema) };
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for part in parts {
        properties.extend(part["properties"].as_object().expect("properties of a part").clone());
        required.extend(part["required"].as_array().cloned().unwrap_or_default());
    }
    schema.insert("type".into(), "object".into());
    schema.insert("properties".into(), properties.into());
    schema.insert("required".into(), required.into());
    Value::Object(schema)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_frame_that_violates_the_description_is_reported() {
        let typing = |payload: Value| complaint(&json!({"type": "typing.start", "payload": payload}));
        let conversation_id = "0199aaaa-0000-7000-8000-000000000000";
        assert_eq!(typing(json!({"conversation_id": conversation_id, "user_id": "ana"})), None);
        assert!(typing(json!({"conversation_id": conversation_id})).is_some());
        assert!(typing(json!({"conversation_id": 7, "user_id": "ana"})).is_some());
        assert!(complaint(&json!({"type": "pong"})).is_some());
        // Any of the alternatives is enough.
        let read = |payload: Value| complaint(&json!({"type": "notification.read", "payload": payload}));
        assert_eq!(read(json!({"id": conversation_id, "deleted": true, "unread": 0})), None);
        assert!(read(json!({"id": conversation_id, "unread": 0})).is_some());
        assert_eq!(complaint(&json!({"type": "score", "payload": 7})), None);
    }
}
