//! `docs/openapi.yaml` as data: its operations, every reference resolved and every `allOf` put together.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::{Map, Value};

pub const TEXT: &str = include_str!("../../../docs/openapi.yaml");
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
/// Schemas of requests are finite; a deeper one refers to itself.
const DEPTH_MAX: usize = 40;

pub struct Operation {
    pub id: String,
    pub method: Method,
    /// With its prefix, like `/api/v1/conversations/{conversation_id}`.
    pub path: String,
    pub needs_token: bool,
    pub parameters: Vec<Parameter>,
    /// The schema of a JSON body.
    pub body: Option<Value>,
    /// Which statuses are told of.
    pub statuses: BTreeSet<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Path,
    Query,
    Header,
    Body,
}

pub struct Parameter {
    pub name: String,
    pub place: Place,
    pub required: bool,
    pub schema: Value,
}

pub fn operations() -> Vec<Operation> {
    let document: Value = serde_yaml_ng::from_str(TEXT).expect("docs/openapi.yaml is YAML");
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in METHODS {
            if item.get(method).is_some() {
                operations.push(Operation::read(&document, path, item, method));
            }
        }
    }
    operations
}

impl Operation {
    fn read(document: &Value, path: &str, item: &Value, method: &str) -> Self {
        let operation = &item[method];
        let parameters = [item, operation].into_iter().filter_map(|place| place["parameters"].as_array());
        let servers = item.get("servers").unwrap_or(&document["servers"]);
        let prefix = servers[0]["url"].as_str().expect("the address of a server").trim_end_matches('/');
        let body = operation.pointer("/requestBody/content/application~1json/schema");
        let statuses = operation["responses"].as_object().expect("responses");
        Self {
            id: text(&operation["operationId"]),
            method: method.to_uppercase().parse().expect("a method"),
            path: format!("{prefix}{path}"),
            needs_token: operation.get("security").is_none_or(|ways| *ways != Value::Array(Vec::new())),
            parameters: parameters
                .flatten()
                .map(|parameter| Parameter::read(&whole(document, parameter, 0)))
                .collect(),
            body: body.map(|schema| whole(document, schema, 0)),
            statuses: statuses.keys().map(|status| status.parse().expect("a status")).collect(),
        }
    }
}

impl Parameter {
    fn read(parameter: &Value) -> Self {
        let place = match parameter["in"].as_str() {
            Some("path") => Place::Path,
            Some("query") => Place::Query,
            Some("header") => Place::Header,
            _ => panic!("a parameter in another place: {parameter}"),
        };
        Self {
            name: text(&parameter["name"]),
            place,
            required: parameter["required"] == true,
            schema: parameter["schema"].clone(),
        }
    }
}

/// The same without references and without `allOf`.
fn whole(document: &Value, value: &Value, depth: usize) -> Value {
    assert!(depth < DEPTH_MAX, "a schema that refers to itself: {value}");
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let target = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
                let target = target.unwrap_or_else(|| panic!("{reference} leads nowhere"));
                return whole(document, target, depth + 1);
            }
            let each = fields.iter().map(|(name, value)| (name.clone(), whole(document, value, depth + 1)));
            together(each.collect())
        }
        Value::Array(items) => items.iter().map(|item| whole(document, item, depth + 1)).collect(),
        other => other.clone(),
    }
}

/// What `allOf` lists are objects: one with the fields of all.
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

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text instead of {value}")).to_owned()
}
