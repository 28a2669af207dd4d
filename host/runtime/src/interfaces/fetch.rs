//! `fetch`: HTTP to the URLs that the manifest grants. `http::outbound` checks grants and addresses, and has
//! connections and circuit breakers. This file counts the fetches of the call, and makes a span for each.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use serde::Serialize;
use switchboard_contract::fetch::{self, Error, Request, Response};
use switchboard_core::fetch_url::FetchUrl;
use switchboard_core::manifest::FETCH_METHODS;
use switchboard_http::outbound::{self, Allowance, Outbound};
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
        let live = |SendArgs { request }| {
            Box::pin(async move {
                let described = annotations.is_some().then(|| Described::of(&request, terms));
                let result = match count(sent, terms) {
                    Ok(()) => one(outbound, terms, deadline, request).await,
                    Err(error) => Err(error),
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
        // Each fetch has a span of its own, like one of `send`.
        let span = self.middleware.span.clone().map(|span| (span, self.middleware.span_attributes.clone()));
        let live = |SendAllArgs { requests }| {
            let fetches: Vec<_> = requests
                .into_iter()
                .map(|request| {
                    let (counted, span) = (count(sent, terms), span.clone());
                    async move {
                        let begun = Instant::now();
                        let described = span.is_some().then(|| Described::of(&request, terms));
                        let result = match counted {
                            Ok(()) => one(outbound, terms, deadline, request).await,
                            Err(error) => Err(error),
                        };
                        if let (Some((span, mut attributes)), Some(described)) = (span, described) {
                            attributes.extend(described.with(&result));
                            span.child(Function::FetchSend.name(), spans::Kind::Client, begun, attributes);
                        }
                        result
                    }
                })
                .collect();
            Box::pin(join_all(fetches))
        };
        self.middleware.call_with(Function::FetchSendAll, SendAllArgs { requests }, live).await
    }
}

/// Counts one fetch of the call.
fn count(sent: &mut u32, terms: &Terms) -> Result<(), Error> {
    let most = terms.limits.fetches;
    if *sent >= most {
        return Err(Error::Refused(format!("this call made {most} fetches, its maximum (limits.fetches)")));
    }
    *sent += 1;
    Ok(())
}

async fn one(
    outbound: Option<&Outbound>,
    terms: &Arc<Terms>,
    deadline: tokio::time::Instant,
    request: Request,
) -> Result<Response, Error> {
    let Some(outbound) = outbound else {
        outbound::check(&terms.fetch, terms.limits.fetch_bytes, request)?;
        return Err(Error::Unavailable("this sandbox has no network".to_owned()));
    };
    // A release always gets its share of the node's connections, and more only while others do not need them.
    let Some(_share) = terms.fetches.take(1) else { return Err(Error::Busy) };
    let conceal = |text: &str| terms.secrets.conceal_text(text).into_owned();
    let allowed = Allowance {
        handler: &terms.handler,
        rules: &terms.fetch,
        concurrency: terms.limits.fetch_concurrency,
        bytes_max: terms.limits.fetch_bytes,
        deadline,
        conceal: &conceal,
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
