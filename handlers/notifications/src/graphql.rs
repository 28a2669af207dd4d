//! Notifications by GraphQL. Each call builds the schema, which takes less time than a round trip to
//! Postgres. The rules for notifications are in `inbox`.

mod schema;

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use async_graphql::parser::types::{ExecutableDocument, Field, OperationType, Selection, SelectionSet};
use async_graphql::{Request, ServerError, Variables};
use sdk::{config, http};
use serde_json::{Map, Value, json};

use crate::graphql_bounds;
use crate::graphql_http::{self, GraphqlRequest, Media, Outcome, Refusal};
use crate::rules::{LIMIT_DEFAULT, LIMIT_MAX};

/// The depth of a document; `notifications { edges { node { … } } }` has depth three.
const DEPTH_MAX: usize = 8;
/// Introspection queries nest deeper.
const DEPTH_OF_INTROSPECTION: usize = 20;

/// Executes a request. The response reports all errors.
pub fn answer(request: &http::Request, user: &str) -> http::Response {
    let Some(media) = Media::accepted(request.header("accept")) else {
        let why = "accept application/graphql-response+json or application/json".to_owned();
        return refusal(Media::Json, &Refusal { status: 406, code: "invalid", why });
    };
    match run(request, user) {
        Ok((outcome, document)) => respond(outcome.status(media), media, &document),
        Err(why) => refusal(media, &why),
    }
}

fn run(request: &http::Request, user: &str) -> Result<(Outcome, Value), Refusal> {
    let asked = match request.method.as_str() {
        "GET" => GraphqlRequest::of_query(&request.query)?,
        _ => GraphqlRequest::of_body(request.header("content-type"), &request.body)?,
    };
    let tokens = graphql_http::extent(&asked.query).tokens;
    if tokens > graphql_bounds::TOKENS_MAX {
        let why = format!("the document has {tokens} tokens, at most {}", graphql_bounds::TOKENS_MAX);
        return Ok(rejected(&[ServerError::new(why, None)], "invalid"));
    }
    let document = match async_graphql::parser::parse_query(&asked.query) {
        Ok(document) => document,
        Err(error) => return Ok(rejected(&[ServerError::from(error)], "malformed")),
    };
    if request.method == "GET" && changes_something(&document, asked.operation.as_deref()) {
        let why = "mutations are sent by POST".to_owned();
        return Err(Refusal { status: 405, code: "malformed", why });
    }
    let introspection = config::text("introspection").is_some_and(|value| value == "true");
    if !introspection && asks_for_schema(&document) {
        let error = ServerError::new("the schema is not told here", None);
        return Ok(rejected(&[error], "forbidden"));
    }
    if let Err(why) = graphql_bounds::check(&shape(&document, &asked.variables)) {
        return Ok(rejected(&[ServerError::new(why, None)], "invalid"));
    }
    let depth = if introspection { DEPTH_OF_INTROSPECTION } else { DEPTH_MAX };
    let schema = schema::of(user, introspection, depth);
    let mut prepared =
        Request::new(asked.query).variables(Variables::from_json(Value::Object(asked.variables)));
    prepared.operation_name = asked.operation;
    prepared.set_parsed_query(document);
    let response = finish(schema.execute(prepared));

    // An error without a path occurred before any field was resolved.
    let failed_before =
        !response.errors.is_empty() && response.errors.iter().all(|error| error.path.is_empty());
    if failed_before {
        return Ok(rejected(&response.errors, "invalid"));
    }
    if response.errors.is_empty() {
        return Ok((Outcome::Executed, json!({ "data": response.data })));
    }
    // No field that can fail is nullable, so an error makes `data` null. The library would leave `data` out
    // instead.
    Ok((Outcome::Executed, json!({ "data": null, "errors": errors(&response.errors, "internal") })))
}

fn rejected(why: &[ServerError], code: &str) -> (Outcome, Value) {
    (Outcome::Rejected, json!({ "errors": errors(why, code) }))
}

/// The errors as JSON, each with a code. An error of a resolver has its own code.
fn errors(errors: &[ServerError], code: &str) -> Value {
    let coded = errors.iter().map(|error| {
        let mut value = json!(error);
        if value["extensions"]["code"].is_null() {
            value["extensions"]["code"] = code.into();
        }
        value
    });
    coded.collect()
}

fn refusal(media: Media, refusal: &Refusal) -> http::Response {
    let document = json!({ "errors": [{ "message": refusal.why, "extensions": { "code": refusal.code } }] });
    let mut response = respond(refusal.status, media, &document);
    if refusal.status == 405 {
        response.headers.push(("allow".to_owned(), "POST".to_owned()));
    }
    response
}

fn respond(status: u16, media: Media, document: &Value) -> http::Response {
    let mut response = http::Response::text(status, document.to_string());
    response.headers = vec![("content-type".to_owned(), media.name().to_owned())];
    response
}

/// Runs a future to its end. Nothing in a handler waits, so a pending future is polled again at once. The CPU
/// limit of the call ends a future that is never ready.
fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
}

fn changes_something(document: &ExecutableDocument, operation: Option<&str>) -> bool {
    document
        .operations
        .iter()
        .filter(|(name, _)| operation.is_none_or(|wanted| name.is_some_and(|name| name.as_str() == wanted)))
        .any(|(_, definition)| definition.node.ty != OperationType::Query)
}

/// Whether a document requests `__schema` anywhere. `__type` is allowed, because all types are invisible to
/// it.
fn asks_for_schema(document: &ExecutableDocument) -> bool {
    fn within(set: &SelectionSet) -> bool {
        set.items.iter().any(|item| match &item.node {
            Selection::Field(field) => {
                field.node.name.node == "__schema" || within(&field.node.selection_set.node)
            }
            Selection::InlineFragment(fragment) => within(&fragment.node.selection_set.node),
            Selection::FragmentSpread(_) => false,
        })
    }
    let operations = document.operations.iter().map(|(_, definition)| &definition.node.selection_set.node);
    let fragments = document.fragments.values().map(|fragment| &fragment.node.selection_set.node);
    operations.chain(fragments).any(within)
}

/// The structure of a parsed document, for `bounds`.
fn shape<'a>(
    document: &'a ExecutableDocument,
    variables: &Map<String, Value>,
) -> graphql_bounds::Document<'a> {
    let operations = document.operations.iter().map(|(_, operation)| {
        let defaults = operation.node.variable_definitions.iter().filter_map(|definition| {
            let default = definition.node.default_value.as_ref()?;
            Some((definition.node.name.node.to_string(), default.node.clone().into_json().ok()?))
        });
        let mut known: Map<String, Value> = defaults.collect();
        known.extend(variables.clone());
        graphql_bounds::Operation {
            is_mutation: operation.node.ty == OperationType::Mutation,
            selections: selections(&operation.node.selection_set.node, &known),
        }
    });
    graphql_bounds::Document {
        operations: operations.collect(),
        fragments: document
            .fragments
            .iter()
            .map(|(name, fragment)| (name.as_str(), selections(&fragment.node.selection_set.node, variables)))
            .collect(),
    }
}

fn selections<'a>(
    set: &'a SelectionSet,
    variables: &Map<String, Value>,
) -> Vec<graphql_bounds::Selection<'a>> {
    let shaped = set.items.iter().map(|item| match &item.node {
        Selection::Field(field) => graphql_bounds::Selection::Field {
            name: field.node.name.node.as_str(),
            rows: rows(&field.node, variables),
            selections: selections(&field.node.selection_set.node, variables),
        },
        Selection::InlineFragment(inline) => {
            graphql_bounds::Selection::Inline(selections(&inline.node.selection_set.node, variables))
        }
        Selection::FragmentSpread(spread) => {
            graphql_bounds::Selection::Spread(spread.node.fragment_name.node.as_str())
        }
    });
    shaped.collect()
}

/// The number of notifications that a list may return. An unknown variable, or a value that is not a number,
/// counts as the maximum.
fn rows(field: &Field, variables: &Map<String, Value>) -> Option<u64> {
    if field.name.node != "notifications" {
        return None;
    }
    let Some(first) = field.get_argument("first") else { return Some(LIMIT_DEFAULT) };
    let first = first.node.clone().into_const_with(|name| {
        let value = variables.get(name.as_str()).ok_or(())?;
        async_graphql::Value::from_json(value.clone()).map_err(drop)
    });
    match first.ok().and_then(|first| first.into_json().ok()) {
        Some(Value::Null) => Some(LIMIT_DEFAULT),
        Some(Value::Number(first)) => Some(first.as_u64().unwrap_or(LIMIT_MAX).min(LIMIT_MAX)),
        _ => Some(LIMIT_MAX),
    }
}
