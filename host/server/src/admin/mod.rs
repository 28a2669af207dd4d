//! The listener for operators: health, metrics, releases, parked events, disconnects. It has its own address
//! and its own tokens; a client's token is not valid here. It decides nothing about releases: `releases`
//! does.

mod api;
mod attempts;
mod console;
mod disconnect;
mod events;
mod fields;
pub mod gauges;
mod handler;
mod hosts;
mod operators;
mod readiness;
mod revoke;
mod roles;
mod route;
mod secrets;
mod settings;
mod tail;
mod timers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Request, Uri};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::calls::OperatorCalls;
use crate::revocations::Revocations;
use switchboard_contract::types::Problem;
use switchboard_core::config::Config;
use switchboard_core::ids::RequestId;
use switchboard_core::limits;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_core::{Blame, Blamed};
use switchboard_fanout::Hub;
use switchboard_http::answers::{self, Answer};
use switchboard_http::http_server::{self, Slots, Stream, Transport};
use switchboard_postgres::operators::Operators;
use switchboard_postgres::outbox::Outbox;
use switchboard_postgres::timers::Timers;
use switchboard_protocol::wire::percent;
use switchboard_protocol::wire::problem::Code;
use switchboard_redis::Redis;
use switchboard_releases::Rollout;
use switchboard_runtime::{Load, Runtime};
use switchboard_telemetry::Metrics;

pub use api::SIGNATURE;
use attempts::Attempts;
use hosts::Hosts;
use operators::{AuditedAction, Detail, Operator};
pub use readiness::Readiness;
use route::{Endpoint, Found};

pub struct Admin<L: Load = Arc<Runtime>> {
    /// The token of the first admin, who creates the others.
    pub token: Option<String>,
    pub rollout: Arc<Rollout<L>>,
    pub operators: Operators,
    pub outbox: Outbox,
    pub timers: Timers,
    pub hub: Hub,
    pub redis: Redis,
    /// The routes of the application for operators.
    pub calls: Arc<dyn OperatorCalls>,
    pub revocations: Revocations,
    pub metrics: Metrics,
    pub readiness: Readiness,
    /// At most `limits::DEPLOY_REQUESTS_MAX`, because each deploy holds a whole file in memory.
    pub deploys: Semaphore,
}

/// A request whose path, method and operator are known.
struct AdminRequest {
    id: RequestId,
    by: Operator,
    method: String,
    path: String,
    detail: Detail,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Incoming,
}

/// Settings of the admin listener.
pub struct Settings {
    hosts: Hosts,
    keep_alive: Duration,
    stall: Duration,
}

impl Settings {
    pub fn of(config: &Config) -> Self {
        Self {
            hosts: Hosts::new(&config.admin_hosts, config.admin_listen.ip()),
            keep_alive: Duration::from_millis(config.keep_alive_ms),
            stall: Duration::from_millis(config.stall_ms),
        }
    }
}

/// The state of the listener, apart from the admin API itself.
struct AdminListener<L: Load> {
    admin: Arc<Admin<L>>,
    hosts: Hosts,
    attempts: Attempts,
    /// At most `limits::ADMIN_REQUESTS_MAX`. Health checks need no permit.
    requests: Semaphore,
}

/// Serves operators until `guard` begins, which is after the drain. Requests in progress are answered.
pub async fn serve<L: Load>(
    listener: TcpListener,
    admin: Arc<Admin<L>>,
    settings: Settings,
    guard: ShutdownGuard,
) {
    let Settings { hosts, keep_alive, stall } = settings;
    let requests = Semaphore::new(limits::ADMIN_REQUESTS_MAX);
    let listener_state = Arc::new(AdminListener { admin, hosts, attempts: Attempts::default(), requests });
    let slots = Slots::new(limits::ADMIN_CONNECTIONS_MAX, 0);
    let serve_connection = move |stream, remote: SocketAddr, slot, guard| {
        let listener_state = listener_state.clone();
        let answer = move |request, id| {
            let listener_state = listener_state.clone();
            async move { listener_state.answer(request, id, remote).await }
        };
        http_server::serve_connection(
            Stream::new(Transport::Tcp(stream), stall),
            slot,
            keep_alive,
            guard,
            answer,
        )
    };
    http_server::accept(listener, slots, guard, serve_connection).await;
}

impl<L: Load> AdminListener<L> {
    async fn answer(&self, request: Request<Incoming>, id: RequestId, remote: SocketAddr) -> Answer {
        if let Err(problem) = self.hosts.check(request.headers()) {
            return answers::problem(&problem, &id);
        }
        let is_health = matches!(request.uri().path(), "/healthz" | "/readyz");
        let _permit = match self.requests.try_acquire() {
            Ok(permit) => Some(permit),
            Err(_) if is_health => None,
            Err(_) => {
                let detail = "the node already answers its maximum number of admin requests";
                return answers::problem(
                    &Code::Unavailable.problem(detail).retry_after(limits::RETRY_AFTER),
                    &id,
                );
            }
        };
        self.admin.answer(request, &id, &self.attempts, remote).await
    }
}

impl<L: Load> Admin<L> {
    async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        id: &RequestId,
        attempts: &Attempts,
        remote: SocketAddr,
    ) -> Answer {
        let (parts, body) = request.into_parts();
        let endpoint = match route::find(&parts.method, parts.uri.path()) {
            Found::Endpoint(endpoint) => endpoint,
            Found::MethodNotAllowed { allow } => {
                let detail = format!("this path does not have the method {}", parts.method);
                let mut answer =
                    answers::problem(&Problem { status: 405, ..Code::Malformed.problem(detail) }, id);
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
                return answer;
            }
            Found::Nothing => {
                return answers::problem(&Code::NotFound.problem("this path does not exist"), id);
            }
        };
        match endpoint {
            Endpoint::Healthz => return answers::answer(200, "text/plain; charset=utf-8", "alive\n", id),
            Endpoint::Console(part) => return console::answer(part, id),
            Endpoint::Readyz => {
                let report = self.readiness.report().await;
                return answers::json(if report.ready { 200 } else { 503 }, &report, id);
            }
            Endpoint::Metrics => {
                return answers::answer(
                    200,
                    "text/plain; version=0.0.4; charset=utf-8",
                    self.metrics.render() + &self.rollout.meters(),
                    id,
                );
            }
            _ => {}
        }
        let request = match (self.admit_after(attempts, remote, &parts.headers).await, query_of(&parts.uri)) {
            (Ok(by), Ok(query)) => {
                let (method, path) = (parts.method.to_string(), parts.uri.path().to_owned());
                let (id, detail) = (id.clone(), Detail::default());
                Ok(AdminRequest { id, by, detail, method, path, query, headers: parts.headers, body })
            }
            (Err(problem), _) | (_, Err(problem)) => Err(problem),
        };
        let outcome = match request {
            Ok(request) => {
                let action = AuditedAction {
                    by: request.by.clone(),
                    method: parts.method.clone(),
                    path: request.path.clone(),
                    request_id: id.clone(),
                    detail: request.detail.clone(),
                };
                // A watching operator asks all the time; the begin of the watch is logged.
                if endpoint != Endpoint::Tail {
                    info!(request_id = %id, by = %action.by.name, method = %action.method, path = action.path, "request of an operator");
                }
                let admin = self.clone();
                // A slow client holds one of few connections.
                let perform = async move {
                    timeout(limits::ADMIN_ANSWER_WAIT, admin.perform(endpoint, request))
                        .await
                        .unwrap_or_else(|_| {
                            Err(Code::Unavailable.problem("the action took too long; its outcome is unknown"))
                        })
                };
                self.act(action, perform).await
            }
            Err(problem) => Err(problem),
        };
        outcome.unwrap_or_else(|problem| {
            let mut answer = answers::problem(&problem, id);
            if problem.status == 401 {
                answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            answer
        })
    }
}

/// Logs an action of an operator that failed, once, and returns the problem for the operator.
fn failed(error: &impl Blamed, what: &str) -> Problem {
    warn!(%error, blame = %error.blame(), "{what}");
    problem_of(error)
}

/// The problem for an error that the operator did not cause. The log has its text.
fn problem_of(error: &impl Blamed) -> Problem {
    match error.blame() {
        // A statement of this build that the server refuses. Another attempt would fail too.
        Blame::Host => Code::Internal.problem("Postgres refused a statement of the host"),
        _ => Code::Unavailable.problem("Postgres did not answer").retry_after(limits::RETRY_AFTER),
    }
}

fn query_of(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    percent::decode_query(uri.query().unwrap_or_default())
        .ok_or_else(|| Code::Malformed.problem("the query is not percent-encoded UTF-8"))
}

#[cfg(test)]
mod tests;
