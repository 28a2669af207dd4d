//! Operators: who has a token, what the token allows, and the audit log. A token is shown once, when it is
//! created.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::json;
use tracing::{error, info, warn};

use super::attempts::Attempts;
use super::fields::text;
use super::roles::{self, Role};
use super::{Admin, AdminRequest};
use switchboard_contract::types::Problem;
use switchboard_core::ids::{Digest, RequestId};
use switchboard_core::limits;
use switchboard_http::answers::{self, Answer};
use switchboard_postgres as postgres;
use switchboard_postgres::operators::Begun;
use switchboard_protocol::wire::problem::Code;
use switchboard_releases::repository::{FOUND_BY, GUARDED_BY};
use switchboard_runtime::Load;

/// A prefix by which a token is recognised, for instance in a file where it should not be.
const PREFIX: &str = "sbadm_";
/// The name of the operator who uses `admin_token`.
const FIRST: &str = "admin";
/// Names of the host itself in the history: for files that a node deploys at its start, and for canaries that
/// it withdraws. No operator may have them.
const RESERVED: [&str; 2] = [FOUND_BY, GUARDED_BY];

/// The operator of a request.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    pub name: String,
    pub role: Role,
}

/// The object of an action, if its path does not name it. For the audit log.
#[derive(Clone, Default)]
pub(super) struct Detail(Arc<Mutex<Option<String>>>);

impl Detail {
    /// Sets the object. The last value counts, because at first less may be known.
    pub(super) fn set(&self, what: impl Into<String>) {
        *self.0.lock() = Some(what.into());
    }

    fn get(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

/// An action to be run and recorded.
pub(super) struct AuditedAction {
    pub by: Operator,
    pub method: Method,
    pub path: String,
    pub request_id: RequestId,
    pub detail: Detail,
}

impl<L: Load> Admin<L> {
    /// Like [`Admin::admit`]. A wrong token is counted for its address, and its answer is delayed.
    pub(super) async fn admit_after(
        &self,
        attempts: &Attempts,
        remote: SocketAddr,
        headers: &HeaderMap,
    ) -> Result<Operator, Problem> {
        if !headers.contains_key(AUTHORIZATION) {
            return self.admit(headers).await;
        }
        let attempt = attempts.may_try(remote.ip())?;
        let outcome = self.admit(headers).await;
        if outcome.as_ref().is_err_and(|problem| problem.status == StatusCode::UNAUTHORIZED.as_u16()) {
            attempt.was_wrong().await;
        }
        outcome
    }

    async fn admit(&self, headers: &HeaderMap) -> Result<Operator, Problem> {
        let given = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
            .map(str::trim)
            .ok_or_else(|| {
                Code::Unauthorized.problem("this request needs `Authorization: Bearer` with an admin token")
            })?;
        // Also works while Postgres is not reachable.
        if self.token.as_ref().is_some_and(|token| is_same(given, token)) {
            return Ok(Operator { name: FIRST.to_owned(), role: Role::Admin });
        }
        let unknown = || {
            Code::Unauthorized.problem(if self.token.is_some() {
                "the token is not an admin token of this fleet"
            } else {
                "the token is not an admin token of this fleet; SWITCHBOARD_ADMIN_TOKEN sets the first one"
            })
        };
        if !given.starts_with(PREFIX) {
            return Err(unknown());
        }
        let found = in_time(self.operators.find(Digest::of(given.as_bytes()))).await;
        let (name, role) = found.map_err(unavailable)?.ok_or_else(unknown)?;
        let role = Role::parse(&role).ok_or_else(unknown)?;
        Ok(Operator { name, role })
    }

    /// Runs an action if the role allows it. An action that changes something is recorded before it runs, and
    /// its outcome afterwards, also when the client has disconnected. An action that cannot be recorded does
    /// not run.
    pub(super) async fn act(
        self: &Arc<Self>,
        action: AuditedAction,
        perform: impl Future<Output = Result<Answer, Problem>> + Send + 'static,
    ) -> Result<Answer, Problem> {
        let needed = roles::needed(&action.method, &action.path);
        if roles::is_read(&action.method) {
            return if action.by.role < needed { action.forbidden(needed) } else { perform.await };
        }
        // In its own task: otherwise a client that disconnects would stop the action halfway, and its record
        // with it.
        let admin = self.clone();
        let acting = tokio::spawn(async move { admin.run_recorded(action, needed, perform).await });
        acting.await.unwrap_or_else(|error| {
            error!(%error, "an action of an operator panicked; its outcome is unknown");
            Err(Code::Internal.problem("the action failed inside the host; its outcome is unknown"))
        })
    }

    async fn run_recorded(
        &self,
        action: AuditedAction,
        needed: Role,
        perform: impl Future<Output = Result<Answer, Problem>>,
    ) -> Result<Answer, Problem> {
        let AuditedAction { by, method, path, request_id, detail } = &action;
        let name: String = format!("{method} {path}").chars().take(limits::AUDIT_ACTION_CHARS_MAX).collect();
        let begun = Begun { who: &by.name, role: by.role.as_str(), action: &name, request_id };
        let entry = in_time(self.operators.begin(&begun)).await.map_err(unavailable)?;
        if entry % limits::AUDIT_FORGETS_EVERY == 0
            && let Err(error) = in_time(self.operators.forget(limits::AUDIT_KEPT)).await
        {
            warn!(%error, "old entries of the audit log could not be deleted yet");
        }
        let outcome = if by.role < needed { action.forbidden(needed) } else { perform.await };
        let (status, outcome_name) = match &outcome {
            Ok(answer) if answer.status() < StatusCode::BAD_REQUEST => (answer.status().as_u16(), "done"),
            Ok(answer) => (answer.status().as_u16(), "refused"),
            Err(problem) => (problem.status, problem.code.as_str()),
        };
        let detail = detail.get();
        let ended = self.operators.end(entry, status, outcome_name, detail.as_deref());
        if let Err(error) = in_time(ended).await {
            // The action ran, and its beginning is recorded.
            error!(%error, %request_id, by = by.name, action = name, detail, status, "the outcome of an action could not be recorded");
        }
        outcome
    }

    // ---- endpoints ----

    pub(super) async fn tokens(&self, request: &AdminRequest) -> Result<Answer, Problem> {
        let tokens = in_time(self.operators.list()).await.map_err(unavailable)?;
        Ok(request.json(&json!({ "tokens": tokens })))
    }

    pub(super) async fn make_token(&self, request: AdminRequest) -> Result<Answer, Problem> {
        let (id, by, detail) = (request.id.clone(), request.by.name.clone(), request.detail.clone());
        let fields = request.fields().await?;
        let name = text(&fields, "name")?.unwrap_or_default();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let fits = (1..=limits::OPERATOR_NAME_CHARS_MAX).contains(&name.len())
            && name.chars().all(is_plain)
            && name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !fits {
            let rule = "`name` must have 1 to 64 letters, digits, dots, dashes and underscores";
            return Err(Code::Invalid.problem(rule).field("name"));
        }
        let role = text(&fields, "role")?
            .and_then(|role| Role::parse(&role))
            .ok_or_else(|| Code::Invalid.problem("`role` must be read, deploy or admin").field("role"))?;
        detail.set(format!("{name} {role}"));
        let token: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
        let token = format!("{PREFIX}{token}");
        let digest = Digest::of(token.as_bytes());
        if name == FIRST || RESERVED.contains(&name.as_str()) {
            let taken = format!("{name} is reserved for the host");
            return Err(Code::Conflict.problem(taken).field("name"));
        }
        let is_new =
            in_time(self.operators.add(&name, role.as_str(), digest, &by)).await.map_err(unavailable)?;
        if !is_new {
            return Err(Code::Conflict.problem(format!("{name} already has a token")).field("name"));
        }
        info!(request_id = %id, by, name, %role, "created an admin token");
        Ok(answers::json(201, &json!({ "name": name, "role": role.as_str(), "token": token }), &id))
    }

    pub(super) async fn revoke_token(&self, name: &str, request: &AdminRequest) -> Result<Answer, Problem> {
        if !in_time(self.operators.remove(name)).await.map_err(unavailable)? {
            return Err(Code::NotFound.problem("no operator of this name has a token"));
        }
        info!(request_id = %request.id, by = request.by.name, name, "revoked an admin token");
        Ok(request.json(&json!({ "name": name })))
    }

    pub(super) async fn audit(&self, request: &AdminRequest) -> Result<Answer, Problem> {
        let number =
            |name: &'static str| {
                request.parameter(name).map(str::parse::<i64>).transpose().map_err(|_| {
                    Code::Invalid.problem(format!("`{name}` must be a whole number")).field(name)
                })
            };
        let limit = number("limit")?.unwrap_or(limits::AUDIT_LISTED_MAX);
        if !(1..=limits::AUDIT_LISTED_MAX).contains(&limit) {
            let rule = format!("`limit` must be 1 to {}", limits::AUDIT_LISTED_MAX);
            return Err(Code::Invalid.problem(rule).field("limit"));
        }
        let mut entries =
            in_time(self.operators.entries(number("before")?, limit + 1)).await.map_err(unavailable)?;
        let has_more = entries.len() as i64 > limit;
        entries.truncate(limit as usize);
        let next_before = entries.last().filter(|_| has_more).map(|entry| entry.id);
        Ok(request.json(&json!({ "audit": entries, "next_before": next_before })))
    }
}

impl AuditedAction {
    fn forbidden(&self, needed: Role) -> Result<Answer, Problem> {
        let Operator { name, role } = &self.by;
        let detail = format!("the token of {name} has the role {role}, but this needs the role {needed}");
        Err(Code::Forbidden.problem(detail))
    }
}

/// A bound, because there are few connections for operators and a Postgres that hangs must not hold them.
async fn in_time<T>(
    statement: impl Future<Output = Result<T, postgres::Error>>,
) -> Result<T, postgres::Error> {
    postgres::in_time(limits::FOLLOW_WAIT, statement).await
}

/// Compares in constant time: the duration shows neither where the texts differ nor their lengths.
fn is_same(given: &str, token: &str) -> bool {
    let (given, token) = (Digest::of(given.as_bytes()), Digest::of(token.as_bytes()));
    let differences = given.bytes().iter().zip(token.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(differences) == 0
}

fn unavailable(error: postgres::Error) -> Problem {
    super::failed(&error, "cannot read or write operators in Postgres")
}
