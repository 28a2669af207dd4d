//! The operators' listener: health, metrics, releases, parked events, disconnects. It has its own address and its own
//! tokens; what a client's token may do ends at the gateway. It decides nothing about releases: that is `releases`.

mod api;
mod console;
mod disconnect;
mod events;
pub mod gauges;
mod handler;
mod operators;
mod readiness;
mod revoke;
mod roles;
mod route;

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use sqlx::PgPool;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::contract::http::Response;
use crate::contract::types::Problem;
use crate::fanout::Hub;
use crate::limits;
use crate::releases::{Load, Rollout};
use crate::revocations::Revocations;
use crate::runtime::Runtime;
use crate::shutdown::Guard;
use crate::telemetry::Metrics;
use crate::triggers::{HttpIn, Triggers};
use crate::wire::http::{self, Answer};
use crate::wire::percent;
use crate::wire::problem::Code;

pub use api::SIGNATURE;
use operators::{Act, Detail, Operator};
pub use readiness::Readiness;
use route::{Endpoint, Found};

pub struct Admin<L: Load = Arc<Runtime>> {
    /// Of the first admin, who makes the others.
    pub token: Option<String>,
    pub rollout: Arc<Rollout<L>>,
    /// Where the outbox is.
    pub postgres: PgPool,
    pub hub: Hub,
    /// What the application offers to operators.
    pub handlers: Arc<dyn Handlers>,
    pub revocations: Revocations,
    pub metrics: Metrics,
    pub readiness: Readiness,
    /// `limits::DEPLOYS_AT_ONCE`: each holds a whole file.
    pub deploys: Semaphore,
}

/// The routes that handlers bind under `/admin/v1/`.
pub trait Handlers: Send + Sync {
    fn ask(&self, request: HttpIn) -> BoxFuture<'_, Result<Response, Problem>>;
}

impl Handlers for Triggers {
    fn ask(&self, request: HttpIn) -> BoxFuture<'_, Result<Response, Problem>> {
        Box::pin(self.operator(request))
    }
}

/// A request whose path, method and asker are known.
struct Asked {
    id: String,
    by: Operator,
    method: String,
    path: String,
    detail: Detail,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Incoming,
}

/// Until `guard` says so, after the drain; then what is being answered is answered.
pub async fn serve<L: Load>(listener: TcpListener, admin: Arc<Admin<L>>, mut guard: Guard) {
    let mut connections = JoinSet::new();
    loop {
        // At the bound the next one waits in the kernel's queue.
        while connections.len() >= limits::ADMIN_CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = guard.begun() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(converse(stream, admin.clone(), guard.clone()));
            }
            Err(error) => {
                // Out of descriptors, most likely: there is nothing to do but to let others end first.
                warn!(%error, "the admin listener cannot accept");
                sleep(limits::ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn converse<L: Load>(stream: TcpStream, admin: Arc<Admin<L>>, mut guard: Guard) {
    let service = service_fn(move |request| {
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(admin.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::ADMIN_HEADERS_WAIT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = guard.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "an operator's connection ended early");
    }
}

impl<L: Load> Admin<L> {
    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Answer {
        let id = http::request_id(request.headers());
        let (parts, body) = request.into_parts();
        let endpoint = match route::find(&parts.method, parts.uri.path()) {
            Found::Endpoint(endpoint) => endpoint,
            Found::MethodNotAllowed { allow } => {
                let detail = format!("{} is not for this path", parts.method);
                let mut answer =
                    http::problem(&Problem { status: 405, ..Code::Malformed.problem(detail) }, &id);
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
                return answer;
            }
            Found::Nothing => return http::problem(&Code::NotFound.problem("there is nothing here"), &id),
        };
        match endpoint {
            Endpoint::Healthz => return http::answer(200, "text/plain; charset=utf-8", "alive\n", &id),
            Endpoint::Console(part) => return console::answer(part, &id),
            Endpoint::Readyz => {
                let report = self.readiness.report().await;
                return http::json(if report.ready { 200 } else { 503 }, &report, &id);
            }
            Endpoint::Metrics => {
                return http::answer(
                    200,
                    "text/plain; version=0.0.4; charset=utf-8",
                    self.metrics.render() + &self.rollout.meters(),
                    &id,
                );
            }
            _ => {}
        }
        let asked = match (self.admit(&parts.headers).await, query_of(&parts.uri)) {
            (Ok(by), Ok(query)) => {
                let (method, path) = (parts.method.to_string(), parts.uri.path().to_owned());
                let (id, detail) = (id.clone(), Detail::default());
                Ok(Asked { id, by, detail, method, path, query, headers: parts.headers, body })
            }
            (Err(problem), _) | (_, Err(problem)) => Err(problem),
        };
        let outcome = match asked {
            Ok(asked) => {
                let act = Act {
                    by: asked.by.clone(),
                    method: parts.method.clone(),
                    path: asked.path.clone(),
                    request_id: id.clone(),
                    detail: asked.detail.clone(),
                };
                info!(request.id = %id, by = %act.by.name, method = %act.method, path = act.path, "an operator asks");
                let admin = self.clone();
                // A slow sender holds one of few connections.
                let perform = async move {
                    timeout(limits::ADMIN_ANSWER_WAITS, admin.perform(endpoint, asked)).await.unwrap_or_else(
                        |_| {
                            Err(Code::Unavailable
                                .problem("this took too long; what became of it is not known"))
                        },
                    )
                };
                self.act(act, perform).await
            }
            Err(problem) => Err(problem),
        };
        outcome.unwrap_or_else(|problem| {
            let mut answer = http::problem(&problem, &id);
            if problem.status == 401 {
                answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            answer
        })
    }
}

fn query_of(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    percent::decode_query(uri.query().unwrap_or_default())
        .ok_or_else(|| Code::Malformed.problem("the query is not percent-encoded UTF-8"))
}

#[cfg(test)]
mod tests;
