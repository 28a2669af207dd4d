//! `fetch`: HTTP to the URLs that the manifest grants. `http::outbound` checks grants and addresses, and has
//! connections and circuit breakers. This file counts the fetches of the call, and makes a span for each.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use serde::Serialize;
use switchboard_contract::fetch::{self, Error, Request, Response};
use switchboard_core::fetch_url::FetchUrl;
use switchboard_core::manifest::FETCH_METHODS;
use switchboard_http::outbound::{self, Allowance, Conceal, Outbound, Room};
use switchboard_telemetry::spans;

use super::call::Function;
use super::{CallState, Terms};

#[derive(Serialize)]
struct SendArgs {
    request: Request,
}

#[derive(Serialize)]
struct SendAllArgs {
    requests: Vec<Request>,
}

impl fetch::Host for CallState {
    async fn send(&mut self, request: Request) -> wasmtime::Result<Result<Response, Error>> {
        let (outbound, terms, deadline) = (self.backends.outbound.as_ref(), &self.terms, self.deadline);
        let (sent, annotations) = (&mut self.fetches, self.middleware.annotations());
        let left = self.middleware.bytes_left();
        let live = |SendArgs { request }: SendArgs| {
            let room = room(terms, left, std::slice::from_ref(&request));
            Box::pin(async move {
                let described = annotations.is_some().then(|| Described::of(&request, terms));
                let result = match count(sent, terms, 1) {
                    1 => one(outbound, terms, deadline, &room, request).await,
                    _ => Err(beyond(terms)),
                };
                if let (Some(annotations), Some(described)) = (annotations, described) {
                    annotations.lock().extend(described.with(&result));
                }
                result
            })
        };
        self.middleware.call_with(Function::FetchSend, SendArgs { request }, live).await
    }

    async fn send_all(&mut self, requests: Vec<Request>) -> wasmtime::Result<Vec<Result<Response, Error>>> {
        let (outbound, terms, deadline) = (self.backends.outbound.as_ref(), &self.terms, self.deadline);
        let sent = &mut self.fetches;
        let left = self.middleware.bytes_left();
        // Each fetch has a span of its own, like one of `send`.
        let span = self.middleware.span.clone().map(|span| (span, self.middleware.span_attributes.clone()));
        let live = |SendAllArgs { mut requests }: SendAllArgs| {
            let room = room(terms, left, &requests);
            // The list may be as long as the memory of the guest permits. What is beyond the maximum of the
            // call gets neither a future nor a span.
            let refused = requests.split_off(count(sent, terms, requests.len())).len();
            Box::pin(async move {
                let mut fetches = Vec::with_capacity(requests.len());
                for request in requests {
                    let (room, span) = (&room, span.clone());
                    fetches.push(async move {
                        let begun = Instant::now();
                        let described = span.is_some().then(|| Described::of(&request, terms));
                        let result = one(outbound, terms, deadline, room, request).await;
                        if let (Some((span, mut attributes)), Some(described)) = (span, described) {
                            attributes.extend(described.with(&result));
                            span.child(Function::FetchSend.name(), spans::Kind::Client, begun, attributes);
                        }
                        result
                    });
                }
                let mut results = join_all(fetches).await;
                results.extend((0..refused).map(|_| Err(beyond(terms))));
                results
            })
        };
        self.middleware.call_with(Function::FetchSendAll, SendAllArgs { requests }, live).await
    }
}

/// Counts so many fetches of the call, as far as `limits.fetches` allows. Returns how many it allows.
fn count(sent: &mut u32, terms: &Terms, wanted: usize) -> usize {
    let left = terms.limits.fetches.saturating_sub(*sent);
    let allowed = u32::try_from(wanted).unwrap_or(u32::MAX).min(left);
    *sent += allowed;
    allowed as usize
}

/// The error of a fetch beyond `limits.fetches`.
fn beyond(terms: &Terms) -> Error {
    let most = terms.limits.fetches;
    Error::Refused(format!("this call made {most} fetches, its maximum (limits.fetches)"))
}

/// The room for the bodies of one host call. The bodies of its requests already count against what the call
/// may carry, of which `left` was left before.
fn room(terms: &Terms, left: u64, requests: &[Request]) -> Room {
    let asked: usize = requests.iter().map(|request| request.body.len()).sum();
    Room::new(terms.fetch_bodies.clone(), left.saturating_sub(asked as u64))
}

async fn one(
    outbound: Option<&Outbound>,
    terms: &Arc<Terms>,
    deadline: tokio::time::Instant,
    room: &Room,
    request: Request,
) -> Result<Response, Error> {
    let Some(outbound) = outbound else {
        outbound::check(&terms.fetch, terms.limits.fetch_bytes, request)?;
        return Err(Error::Unavailable("this sandbox has no network".to_owned()));
    };
    // A release always gets its share of the node's connections, and more only while others do not need them.
    let Some(_share) = terms.fetches.take(1) else { return Err(Error::Busy) };
    let secrets = terms.secrets.clone();
    let conceal: Conceal = Arc::new(move |text: &str| secrets.conceal_text(text).into_owned());
    let allowed = Allowance {
        handler: &terms.handler,
        rules: &terms.fetch,
        concurrency: terms.limits.fetch_concurrency,
        bytes_max: terms.limits.fetch_bytes,
        room,
        conceal: &conceal,
        deadline,
    };
    outbound.send(&allowed, request).await
}

/// The attributes of the span of a fetch. They have no path, no query and no header.
struct Described(Vec<(&'static str, String)>);

impl Described {
    fn of(request: &Request, terms: &Terms) -> Self {
        let method = FETCH_METHODS.iter().find(|method| **method == request.method);
        let mut attributes = vec![("http.method", (*method.unwrap_or(&"other")).to_owned())];
        if let Ok(url) = FetchUrl::parse(&request.url) {
            // A host can have a secret in its name.
            let host = terms.secrets.conceal_text(url.host_text()).into_owned();
            attributes.extend([("server.address", host), ("server.port", url.port().to_string())]);
        }
        Self(attributes)
    }

    fn with(mut self, result: &Result<Response, Error>) -> Vec<(&'static str, String)> {
        self.0.push(match result {
            Ok(response) => ("http.status", response.status.to_string()),
            Err(error) => ("error.type", name_of(error).to_owned()),
        });
        self.0
    }
}

fn name_of(error: &Error) -> &'static str {
    match error {
        Error::Refused(_) => "refused",
        Error::Busy => "busy",
        Error::Unavailable(_) => "unavailable",
        Error::UnknownOutcome(_) => "unknown-outcome",
        Error::TooLarge(_) => "too-large",
    }
}
