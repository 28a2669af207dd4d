//! Requests made from the description: valid ones, and variants with one mistake each.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use switchboard_tests::rest::{Answer, Rest};
use switchboard_tests::schema::{accepts, core};

use super::document::{Operation, Parameter, Place};
use super::sampler::{Sampler, shapes};
use super::variants::{self, Given};
use super::world::{World, fresh};

/// Number of attempts of one request while the host is busy.
const TRIES_MAX: usize = 3;
/// Maximum size of a body; a larger one is refused whatever its content.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Parameters are in the head of a request, which has at most 32 KiB.
const HEAD_TEXT_BYTES_MAX: usize = 26 * 1024;

/// A complete request.
#[derive(Clone)]
pub(super) struct Request {
    pub method: Method,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// The required answer. A fault of the server is never allowed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expected {
    /// The description allows it: it may succeed or be refused.
    Anything,
    /// 422 that names this field.
    Named(String),
    /// A value that cannot be a name names nothing: 404, or 400 if it is not even text.
    NotThere,
    Status(u16),
}

/// One attempt: a field of an operation with some value.
pub(super) struct Case<'a> {
    pub operation: &'a Operation,
    pub field: String,
    pub what: String,
    pub request: Request,
    pub expected: Expected,
    /// Whether the path still belongs to this operation.
    pub is_routed: bool,
}

impl Request {
    /// Retries like a client when the answer asks for it. On a machine that stalls for the deadline of a
    /// call, such an answer is right; a server that is busy every time is at fault.
    pub(super) async fn send(&self, rest: &Rest) -> Result<Answer, String> {
        let headers: Vec<_> =
            self.headers.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let mut tries = 0;
        loop {
            let answer = rest.try_send(self.method.clone(), &self.path, &headers, self.body.clone()).await?;
            let wait = answer.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
            tries += 1;
            match wait {
                Some(seconds) if answer.status == 503 && tries < TRIES_MAX => {
                    println!("{answer}");
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                }
                _ => return Ok(answer),
            }
        }
    }

    /// The same request with an id of its own, so that two responses can be compared byte by byte.
    pub(super) fn under(mut self, request_id: &str) -> Self {
        self.headers.push(("x-request-id".into(), request_id.into()));
        self
    }
}

/// A valid request of an operation, for variants with mistakes.
#[derive(Clone)]
pub(super) struct Draft<'a> {
    operation: &'a Operation,
    /// The escaped parameters of the request.
    parameters: BTreeMap<&'a str, String>,
    body: Option<String>,
    content_type: &'static str,
}

impl<'a> Draft<'a> {
    /// One body for each allowed shape. With `least`, it has only the required fields.
    pub(super) fn good(operation: &'a Operation, world: &World, least: bool) -> Vec<(Self, Value)> {
        let sample = |place, name: &str, schema: &Value| {
            let known = |name: &str| world.known(operation, place, name);
            Sampler { known: &known, fresh: &fresh, least }.value(name, schema)
        };
        let required = operation.parameters.iter().filter(|parameter| parameter.required);
        let parameter = |one: &'a Parameter| {
            (one.name.as_str(), escaped(&bare(&sample(one.place, &one.name, &one.schema))))
        };
        let draft = Self {
            operation,
            parameters: required.map(parameter).collect(),
            body: None,
            content_type: "application/json",
        };
        let Some(schema) = &operation.body else { return vec![(draft, Value::Null)] };
        let bodies = shapes(schema).into_iter().map(|shape| sample(Place::Body, "", shape));
        bodies.map(|body| (Self { body: Some(body.to_string()), ..draft.clone() }, body)).collect()
    }

    pub(super) fn request(&self) -> Request {
        let (mut path, mut query, mut headers) = (self.operation.path.clone(), Vec::new(), Vec::new());
        for parameter in &self.operation.parameters {
            let Some(text) = self.parameters.get(parameter.name.as_str()) else { continue };
            match parameter.place {
                Place::Path => path = path.replace(&format!("{{{}}}", parameter.name), text),
                Place::Query => query.push(format!("{}={text}", parameter.name)),
                _ => headers.push((parameter.name.clone(), text.clone())),
            }
        }
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        if self.body.is_some() {
            headers.push(("content-type".into(), self.content_type.into()));
        }
        let body = self.body.clone().unwrap_or_default().into_bytes();
        Request { method: self.operation.method.clone(), path, headers, body }
    }

    fn case(&self, field: &str, what: impl Into<String>, expected: Expected) -> Case<'a> {
        let (field, what) = (field.to_owned(), what.into());
        Case { operation: self.operation, field, what, request: self.request(), expected, is_routed: true }
    }

    fn with(&self, parameter: &'a str, text: String) -> Self {
        let mut draft = self.clone();
        draft.parameters.insert(parameter, text);
        draft
    }

    fn with_body(&self, body: String) -> Self {
        Self { body: Some(body), ..self.clone() }
    }

    /// Another name for this field; none if the field does not hold such names.
    pub(super) fn naming(&self, field: &'a Name, body: &Value, name: &str) -> Option<Request> {
        let draft = match field {
            Name::Parameter(parameter) => {
                let fits = accepts(&parameter.schema, &typed(&parameter.schema, name));
                fits.then(|| self.with(&parameter.name, escaped(name)))
            }
            Name::OfBody(field) => {
                let fits = accepts(&field.schema, &Value::from(name));
                fits.then(|| {
                    let (_, text) = variants::given(body, &field.pointer, &Given::Json(name.into()));
                    self.with_body(text)
                })
            }
        };
        draft.map(|draft| draft.request())
    }
}

/// A field that names an object which may belong to another user.
pub(super) enum Name {
    Parameter(Parameter),
    OfBody(variants::Field),
}

/// Every field of the operation with every variant.
pub(super) fn cases<'a>(operation: &'a Operation, world: &World) -> Vec<Case<'a>> {
    let mut cases = Vec::new();
    // Parameters with the smallest body, so that there is no other mistake.
    let least = Draft::good(operation, world, true).swap_remove(0).0;
    for parameter in &operation.parameters {
        let known = |name: &str| world.known(operation, parameter.place, name);
        let sampler = Sampler { known: &known, fresh: &fresh, least: false };
        let good = sampler.value(&parameter.name, &parameter.schema);
        of_parameter(&least, parameter, &good, &mut cases);
    }
    for (draft, body) in Draft::good(operation, world, false) {
        let Some(schema) = &operation.body else { continue };
        for shape in shapes(schema).into_iter().filter(|shape| accepts(shape, &body)) {
            of_body(&draft, schema, shape, &body, &mut cases);
        }
        of_whole_body(&draft, &body, &mut cases);
    }
    cases
}

fn of_parameter<'a>(draft: &Draft<'a>, parameter: &'a Parameter, good: &Value, cases: &mut Vec<Case<'a>>) {
    let name = parameter.name.as_str();
    let refused = || match parameter.place {
        Place::Path => Expected::NotThere,
        _ => Expected::Named(name.to_owned()),
    };
    if parameter.required && parameter.place == Place::Query {
        let mut missing = draft.clone();
        missing.parameters.remove(name);
        cases.push(missing.case(name, "missing", refused()));
    }
    for (what, text) in variants::of_parameter(&parameter.schema, good) {
        let fits = accepts(&parameter.schema, &typed(&parameter.schema, &text));
        let expected = if fits { Expected::Anything } else { refused() };
        // Longer values break another rule than that of the field.
        if escaped(&text).len() > HEAD_TEXT_BYTES_MAX {
            continue;
        }
        if parameter.place == Place::Header {
            // A header cannot contain other values.
            if text.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) && text.trim() == text
            {
                cases.push(draft.with(name, text).case(name, what, expected));
            }
            continue;
        }
        let mut case = draft.with(name, escaped(&text)).case(name, what, expected);
        case.is_routed = !(text.is_empty() && parameter.place == Place::Path);
        cases.push(case);
    }
    if parameter.place != Place::Header {
        for escape in ["%", "%4", "%zz", "a%ff%fe"] {
            let what = format!("the escape {escape}");
            cases.push(draft.with(name, escape.to_owned()).case(name, what, Expected::Status(400)));
        }
    }
    if parameter.place == Place::Path {
        for dots in [".", "..", "%2e%2e", "..;"] {
            let mut case = draft.with(name, dots.to_owned()).case(name, dots, Expected::NotThere);
            case.is_routed = false;
            cases.push(case);
        }
    }
}

fn of_body<'a>(draft: &Draft<'a>, schema: &Value, shape: &Value, body: &Value, cases: &mut Vec<Case<'a>>) {
    for field in variants::fields(shape) {
        let good = body.pointer(&field.pointer).unwrap_or_else(|| panic!("no {} in {body}", field.name));
        for (what, given) in variants::of_body(&field.schema, good) {
            let (spoiled, text) = variants::given(body, &field.pointer, &given);
            let is_null = matches!(&given, Given::Json(Value::Null));
            // `null` counts as absent.
            let absent = || variants::given(body, &field.pointer, &Given::Missing).0;
            let fits = accepts(schema, &spoiled) || (is_null && accepts(schema, &absent()));
            let expected = match given {
                _ if text.len() > BODY_BYTES_MAX => Expected::Status(413),
                Given::Raw(_) => Expected::Status(400),
                _ if fits => Expected::Anything,
                _ => Expected::Named(field.name.clone()),
            };
            cases.push(draft.with_body(text).case(&field.name, what, expected));
        }
    }
}

fn of_whole_body<'a>(draft: &Draft<'a>, body: &Value, cases: &mut Vec<Case<'a>>) {
    for (what, bytes) in variants::no_object(&body.to_string()) {
        let mut case = draft.case("(the body)", what, Expected::Status(400));
        case.request.body = bytes;
        cases.push(case);
    }
    let large = draft.with_body(variants::too_large(body));
    cases.push(large.case("(the body)", "too large", Expected::Status(413)));
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/json-not", ""] {
        let other = Draft { content_type, ..draft.clone() };
        cases.push(other.case("(the body)", format!("as {content_type:?}"), Expected::Status(415)));
    }
}

/// Fields that name an object: ids, cursors, and fields with such names.
pub(super) fn names(operation: &Operation) -> Vec<Name> {
    let is_name = |name: &str, schema: &Value| {
        name.ends_with("_id") || name == "cursor" || core(schema)["format"] == "uuid"
    };
    let parameters = operation.parameters.iter().filter(|one| is_name(&one.name, &one.schema));
    let copy = |one: &Parameter| Parameter {
        name: one.name.clone(),
        place: one.place,
        required: one.required,
        schema: one.schema.clone(),
    };
    let of_body = operation.body.iter().flat_map(shapes).flat_map(variants::fields);
    let of_body = of_body.filter(|field| is_name(&field.name, &field.schema));
    parameters.map(|one| Name::Parameter(copy(one))).chain(of_body.map(Name::OfBody)).collect()
}

impl Name {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Parameter(parameter) => &parameter.name,
            Self::OfBody(field) => &field.name,
        }
    }
}

/// The value of a text in a path, a query or a header.
fn typed(schema: &Value, text: &str) -> Value {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if core(schema)["type"] == "integer" && is_number {
        return serde_json::from_str(text).unwrap_or_else(|_| text.into());
    }
    text.into()
}

/// A value encoded for a path.
fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Escapes every character with a meaning.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
