//! Bad input, made from the description: the test sends every field of every endpoint in `docs/openapi.yaml`
//! missing, empty, one beyond its bounds, of another type, hostile, and as an object of another user. It
//! covers the described endpoints; `openapi.rs` checks that all are described.

mod document;
mod frames;
mod judge;
mod requests;
mod sampler;
mod scans;
mod variants;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use document::{Operation, Place};
use futures_util::StreamExt;
use hyper::header::{DATE, HeaderMap};
use requests::{Case, Draft, Expected, Request};
use serde_json::Value;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::rest::{Answer, Rest};
use world::{World, stored, token};

/// Number of concurrent requests.
const AT_ONCE: usize = 12;
/// Number of failures shown; one fault often appears in many fields.
const COMPLAINTS_SHOWN: usize = 40;

#[track_caller]
fn expect_none(complaints: &[String]) {
    let shown = complaints.iter().take(COMPLAINTS_SHOWN).cloned().collect::<Vec<_>>().join("\n");
    assert!(complaints.is_empty(), "{} complaints:\n{shown}", complaints.len());
}

/// Sends all of these as this person. Returns the errors of the answers.
async fn complaints(rest: &Rest, cases: &[Case<'_>]) -> Vec<String> {
    let tries = cases.iter().map(|case| async move { case.complaint(&case.request.send(rest).await) });
    futures_util::stream::iter(tries)
        .buffer_unordered(AT_ONCE)
        .filter_map(async |found| found)
        .collect()
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_violate_the_description_are_refused_and_write_nothing() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let world = World::make(host, "here").await;
        let operations = document::operations();
        let (mut found, mut walked) = (Vec::new(), BTreeMap::new());
        let mut before = stored(host).await;
        for operation in &operations {
            let mut cases = requests::cases(operation, &world);
            cases.retain(|case| case.expected != Expected::Anything);
            for case in &cases {
                *walked.entry((operation.id.clone(), case.field.clone())).or_insert(0) += 1;
            }
            let rest = host.rest_with(token(operation, &world.owner));
            found.extend(complaints(&rest, &cases).await);
            found.extend(without_a_token(host, operation, &world).await);
            let after = stored(host).await;
            for (before, after) in before.iter().zip(&after).filter(|(before, after)| before != after) {
                found.push(format!("{}: {before:?} was written to: {after:?}", operation.id));
            }
            before = after;
        }
        println!("{} requests for {} fields", walked.values().sum::<usize>(), walked.len());
        expect_none(&found);
        let missing: Vec<_> =
            described_fields().into_iter().filter(|field| !walked.contains_key(field)).collect();
        assert!(missing.is_empty(), "described and not tried: {missing:?}");
    })
    .await;
}

/// A request without a token, or with a bad one, gets the same answer everywhere.
async fn without_a_token(host: &Host, operation: &Operation, world: &World) -> Vec<String> {
    let (draft, _) = Draft::good(operation, world, true).swap_remove(0);
    let expected = if operation.needs_token { Expected::Status(401) } else { Expected::Anything };
    let mut found = Vec::new();
    for token in [None, Some("x.y.z".to_owned()), Some(format!("{}x", token(operation, &world.owner)))] {
        if token.is_some() && !operation.needs_token {
            continue;
        }
        let field = "(the token)".to_owned();
        let (request, expected) = (draft.request(), expected.clone());
        let case = Case { operation, field, what: format!("{token:?}"), request, expected, is_routed: true };
        found.extend(case.complaint(&case.request.send(&host.rest_with(token)).await));
    }
    found
}

/// Operation and field, counted independently of the requests: parameters and `properties` of the parsed
/// document.
fn described_fields() -> BTreeSet<(String, String)> {
    fn of(schema: &Value, under: &str, into: &mut BTreeSet<String>) {
        for word in ["oneOf", "anyOf"] {
            schema[word].as_array().into_iter().flatten().for_each(|one| of(one, under, into));
        }
        if schema.get("items").is_some() {
            into.insert(format!("{under}[0]"));
            of(&schema["items"], &format!("{under}[0]"), into);
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let name = if under.is_empty() { name.clone() } else { format!("{under}.{name}") };
            of(inner, &name, into);
            into.insert(name);
        }
    }
    let mut fields = BTreeSet::new();
    for operation in document::operations() {
        let mut names: BTreeSet<_> = operation.parameters.iter().map(|one| one.name.clone()).collect();
        operation.body.iter().for_each(|body| of(body, "", &mut names));
        fields.extend(names.into_iter().map(|name| (operation.id.clone(), name)));
    }
    fields
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn things_of_others_look_exactly_like_missing_ones() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let (here, there) = (World::make(host, "here").await, World::make(host, "there").await);
        let (mut found, mut pairs) = (Vec::new(), 0);
        for operation in &document::operations() {
            // Auditors and services may see everything; for everyone else their endpoints are closed, whether
            // the object exists or not.
            let rest = host.rest(&here.owner);
            for (draft, body) in Draft::good(operation, &here, false) {
                for field in requests::names(operation) {
                    for name in there.names() {
                        let neighbour = neighbour(name);
                        let ask = |name: &str| draft.naming(&field, &body, name);
                        let (Some(theirs), Some(nobodys)) = (ask(name), ask(&neighbour)) else { continue };
                        pairs += 1;
                        let (theirs, nobodys) =
                            (seen(&rest, theirs, name).await, seen(&rest, nobodys, &neighbour).await);
                        if theirs != nobodys {
                            let what = format!("{} `{}` as {name}", operation.id, field.name());
                            found.push(format!("{what}: {theirs:?} but {nobodys:?}"));
                        }
                    }
                }
            }
        }
        println!("{pairs} pairs");
        expect_none(&found);
        assert!(pairs > 150, "{pairs}");
    })
    .await;
}

/// Objects that do not exist, and their neighbours in every order.
fn neighbour(name: &str) -> String {
    let mut name = name.to_owned();
    let last = if name.pop() == Some('0') { '1' } else { '0' };
    name.push(last);
    name
}

/// The information in an answer. It may repeat the request; for a creation it is only that it happened.
async fn seen(rest: &Rest, request: Request, name: &str) -> (u16, Vec<(String, String)>, String) {
    let shows = request.method == hyper::Method::GET;
    let answer = request.under("compared").send(rest).await.expect("an answer");
    let Answer { status, headers, body, .. } = answer;
    if status < 300 && !shows {
        return (status, Vec::new(), String::new());
    }
    (status, compared(&headers), String::from_utf8_lossy(&body).replace(name, "(the name)"))
}

fn compared(headers: &HeaderMap) -> Vec<(String, String)> {
    let compared = headers.iter().filter(|(name, _)| *name != DATE);
    let mut compared: Vec<_> =
        compared.map(|(name, value)| (name.to_string(), format!("{value:?}"))).collect();
    compared.sort();
    compared
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_the_description_allows_cause_no_server_error() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let operations = document::operations();
        let host = &*host;
        let each = operations.iter().map(|operation| all_that_is_allowed(host, operation));
        let found: Vec<_> = futures_util::stream::iter(each).buffer_unordered(3).collect().await;
        let tried: usize = found.iter().map(|(tried, _)| tried).sum();
        println!("{tried} requests");
        expect_none(&found.into_iter().flat_map(|(_, found)| found).collect::<Vec<_>>());
        assert!(tried > 1000, "{tried}");
    })
    .await;
}

/// With objects of its own: a valid request succeeds, strange ones do no harm, and their data can be read.
async fn all_that_is_allowed(host: &Host, operation: &Operation) -> (usize, Vec<String>) {
    let world = World::make(host, &operation.id.to_lowercase()).await;
    let mut found: Vec<_> = succeeds(host, operation, &world).await.into_iter().collect();
    let rest = host.rest_with(token(operation, &world.owner));
    let mut cases = requests::cases(operation, &world);
    cases.retain(|case| case.expected == Expected::Anything);
    found.extend(complaints(&rest, &cases).await);
    if operation.body.is_some() {
        for reading in document::operations().iter().filter(|one| one.method == hyper::Method::GET) {
            let (draft, _) = Draft::good(reading, &world, true).swap_remove(0);
            let (field, what) = ("(all)".to_owned(), format!("it is after {}", operation.id));
            let (request, expected) = (draft.request(), Expected::Anything);
            let case = Case { operation: reading, field, what, request, expected, is_routed: true };
            let rest = host.rest_with(token(reading, &world.owner));
            found.extend(case.complaint(&case.request.send(&rest).await));
        }
    }
    (cases.len(), found)
}

/// Otherwise the refusals of spoiled requests would prove nothing. Sends every possible field, as a user who
/// may.
async fn succeeds(host: &Host, operation: &Operation, world: &World) -> Option<String> {
    let mut answers = Vec::new();
    for least in [false, true] {
        for user in [&world.owner, &world.member] {
            let rest = host.rest_with(token(operation, user));
            answers.clear();
            for (draft, _) in Draft::good(operation, world, least) {
                answers.push(draft.request().send(&rest).await.expect("an answer"));
            }
            if answers.iter().all(|answer| answer.status < 300) {
                return None;
            }
        }
    }
    let shown: Vec<_> = answers.iter().map(ToString::to_string).collect();
    Some(format!("{}: no good request is known: {}", operation.id, shown.join(" ")))
}

/// The tests above use this judge; it must find each kind of error.
#[test]
fn a_wrong_answer_is_reported() {
    let operations = document::operations();
    let operation = operations.iter().find(|operation| operation.id == "createClass").expect("createClass");
    let judge = |expected: Expected, status: u16, problem: Value| {
        let request = Request {
            method: operation.method.clone(),
            path: String::new(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        let (field, what) = ("code".to_owned(), String::new());
        let case = Case { operation, field, what, request, expected, is_routed: true };
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/problem+json".parse().expect("a header"));
        headers.insert("x-request-id", "r".parse().expect("a header"));
        case.judge(status, &headers, problem.to_string().as_bytes())
    };
    let problem = |status: u16, code: &str, field: &str| {
        serde_json::json!({"type": "t", "title": "t", "detail": "d", "code": code, "status": status, "field": field,
            "request_id": "r"})
    };
    let named = || Expected::Named("code".into());
    assert_eq!(judge(named(), 422, problem(422, "invalid", "code")), Ok(()));
    assert_eq!(judge(Expected::Anything, 409, problem(409, "conflict", "code")), Ok(()));
    for (expected, status, problem) in [
        (Expected::Anything, 500, problem(500, "internal", "")),
        (Expected::Anything, 404, problem(404, "not_found", "")),
        (Expected::Anything, 422, serde_json::json!({})),
        (Expected::Anything, 422, problem(422, "conflict", "code")),
        (Expected::Anything, 422, problem(400, "invalid", "code")),
        (named(), 201, serde_json::json!({})),
        (named(), 409, problem(409, "conflict", "code")),
        (named(), 422, problem(422, "invalid", "name")),
        (named(), 422, problem(422, "invalid", "codec")),
        (Expected::Status(413), 422, problem(422, "invalid", "code")),
    ] {
        assert!(judge(expected.clone(), status, problem.clone()).is_err(), "{expected:?} {status} {problem}");
    }
}

#[test]
fn every_endpoint_is_walked() {
    let described = crate::openapi::described();
    let walked = document::operations();
    assert_eq!(walked.len(), described.len());
    for operation in &walked {
        let path = operation.path.strip_prefix("/api/v1").unwrap_or(&operation.path);
        assert!(described.contains(&format!("{} {path}", operation.method)), "{path}");
        let names = operation.path.matches('{').count();
        let described = operation.parameters.iter().filter(|one| one.place == Place::Path).count();
        assert_eq!(names, described, "{path}: what stands in it is described");
    }
}
