//! `docs/openapi.yaml` as data: its operations, with every reference resolved and every `allOf` merged.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::Value;
use switchboard_tests::description::{self, whole};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

pub(super) struct Operation {
    pub id: String,
    pub method: Method,
    /// The path with its prefix, like `/api/v1/conversations/{conversation_id}`.
    pub path: String,
    pub needs_token: bool,
    pub parameters: Vec<Parameter>,
    /// The schema of a JSON body.
    pub body: Option<Value>,
    /// The described statuses.
    pub statuses: BTreeSet<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header,
    Body,
}

pub(super) struct Parameter {
    pub name: String,
    pub place: Place,
    pub required: bool,
    pub schema: Value,
}

pub(super) fn operations() -> Vec<Operation> {
    let document = description::openapi();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in METHODS {
            if item.get(method).is_some() {
                operations.push(Operation::read(document, path, item, method));
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
                .map(|parameter| Parameter::read(&whole(document, parameter)))
                .collect(),
            body: body.map(|schema| whole(document, schema)),
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

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text instead of {value}")).to_owned()
}
