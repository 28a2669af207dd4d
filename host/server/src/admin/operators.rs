//! Operators: whose token this is, what they may, and the record of what they did. A token is shown once, when it is made.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::api::text;
use super::attempts::Attempts;
use super::roles::{self, Role};
use super::{Admin, Asked};
use crate::contract::types::Problem;
use crate::ids::Digest;
use crate::limits;
use crate::postgres::operators;
use crate::releases::Load;
use crate::releases::repository::{FOUND_BY, GUARDED_BY};
use crate::wire::http::{self, Answer};
use crate::wire::problem::Code;

/// How a token can be told from other secrets, in a file where it does not belong.
const PREFIX: &str = "sbadm_";
/// Name of whom `admin_token` is.
const FIRST: &str = "admin";
/// The host's own, as the history names it: what a node deploys at its start, canaries that it takes back. Nobody may be
/// taken for it.
const HOSTS: [&str; 2] = [FOUND_BY, GUARDED_BY];

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    pub name: String,
    pub role: Role,
}

/// What an action was done on, where its path does not say: for the audit.
#[derive(Clone, Default)]
pub(super) struct Detail(Arc<Mutex<Option<String>>>);

impl Detail {
    /// The last word counts: what is known at first may be less.
    pub(super) fn say(&self, what: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(what.into());
    }

    fn said(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is about to be done.
pub(super) struct Act {
    pub by: Operator,
    pub method: Method,
    pub path: String,
    pub request_id: String,
    pub detail: Detail,
}

impl<L: Load> Admin<L> {
    /// As [`Admin::admit`]; a wrong token is counted for its address, and its answer held back.
    pub(super) async fn admit_after(
        &self,
        attempts: &Attempts,
        remote: SocketAddr,
        headers: &HeaderMap,
    ) -> Result<Operator, Problem> {
        if !headers.contains_key(AUTHORIZATION) {
            return self.admit(headers).await;
        }
        attempts.may_try(remote.ip())?;
        let outcome = self.admit(headers).await;
        if outcome.as_ref().is_err_and(|problem| problem.status == StatusCode::UNAUTHORIZED.as_u16()) {
            attempts.wrong(remote.ip()).await;
        }
        outcome
    }

    async fn admit(&self, headers: &HeaderMap) -> Result<Operator, Problem> {
        let given = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
            .map(str::trim)
            .ok_or_else(|| {
                Code::Unauthorized.problem("this needs `Authorization: Bearer` with an admin token")
            })?;
        // Works while Postgres is away.
        if self.token.as_ref().is_some_and(|token| same(given, token)) {
            return Ok(Operator { name: FIRST.to_owned(), role: Role::Admin });
        }
        let unknown = || {
            Code::Unauthorized.problem(if self.token.is_some() {
                "this is no admin token of this fleet"
            } else {
                "this is no admin token of this fleet; SWITCHBOARD_ADMIN_TOKEN gives the first"
            })
        };
        if !given.starts_with(PREFIX) {
            return Err(unknown());
        }
        let found = in_time(operators::find(&self.postgres, Digest::of(given.as_bytes()))).await;
        let (name, role) = found.map_err(unavailable)?.ok_or_else(unknown)?;
        let role = Role::parse(&role).ok_or_else(unknown)?;
        Ok(Operator { name, role })
    }

    /// Does it, where the role allows it. What changes something is on record before, with its outcome after, also where
    /// the asker does not wait for it; what cannot be recorded is not done.
    pub(super) async fn act(
        self: &Arc<Self>,
        act: Act,
        perform: impl Future<Output = Result<Answer, Problem>> + Send + 'static,
    ) -> Result<Answer, Problem> {
        let needed = roles::needed(&act.method, &act.path);
        if roles::is_read(&act.method) {
            return if act.by.role < needed { act.forbidden(needed) } else { perform.await };
        }
        // In a task of its own: whoever hangs up would else end it halfway, and its entry with it.
        let admin = self.clone();
        let acting = tokio::spawn(async move { admin.on_record(act, needed, perform).await });
        acting.await.unwrap_or_else(|error| {
            error!(%error, "an operator's wish broke off");
            Err(Code::Internal.problem("this broke off; what became of it is not known"))
        })
    }

    async fn on_record(
        &self,
        act: Act,
        needed: Role,
        perform: impl Future<Output = Result<Answer, Problem>>,
    ) -> Result<Answer, Problem> {
        let Act { by, method, path, request_id, detail } = &act;
        let action: String =
            format!("{method} {path}").chars().take(limits::AUDIT_ACTION_CHARS_MAX).collect();
        let begun = operators::Begun { who: &by.name, role: by.role.as_str(), action: &action, request_id };
        let entry = in_time(operators::begin(&self.postgres, &begun)).await.map_err(unavailable)?;
        if entry % limits::AUDIT_FORGETS_EVERY == 0
            && let Err(error) = in_time(operators::forget(&self.postgres, limits::AUDIT_DAYS)).await
        {
            warn!(%error, "old entries of the audit stay for now");
        }
        let outcome = if by.role < needed { act.forbidden(needed) } else { perform.await };
        let (status, said) = match &outcome {
            Ok(answer) if answer.status() < StatusCode::BAD_REQUEST => (answer.status().as_u16(), "done"),
            Ok(answer) => (answer.status().as_u16(), "refused"),
            Err(problem) => (problem.status, problem.code.as_str()),
        };
        let detail = detail.said();
        let ended = operators::end(&self.postgres, entry, status, said, detail.as_deref());
        if let Err(error) = in_time(ended).await {
            // It was done, and its beginning is on record.
            error!(%error, request.id = request_id, by = by.name, action, detail, status, "an outcome is not on record");
        }
        outcome
    }

    // ---- endpoints ---------------------------------------------------------------------------------------------------

    pub(super) async fn tokens(&self, asked: &Asked) -> Result<Answer, Problem> {
        let tokens = in_time(operators::list(&self.postgres)).await.map_err(unavailable)?;
        Ok(asked.json(&json!({ "tokens": tokens })))
    }

    pub(super) async fn make_token(&self, asked: Asked) -> Result<Answer, Problem> {
        let (id, by, detail) = (asked.id.clone(), asked.by.name.clone(), asked.detail.clone());
        let fields = asked.fields().await?;
        let name = text(&fields, "name")?.unwrap_or_default();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let fits = (1..=limits::OPERATOR_NAME_CHARS_MAX).contains(&name.len())
            && name.chars().all(is_plain)
            && name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !fits {
            let rule = "`name` has 1 to 64 letters, digits, dots, dashes and underscores";
            return Err(Code::Invalid.problem(rule).field("name"));
        }
        let role = text(&fields, "role")?
            .and_then(|role| Role::parse(&role))
            .ok_or_else(|| Code::Invalid.problem("`role` is read, deploy or admin").field("role"))?;
        detail.say(format!("{name} {role}"));
        let token: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
        let token = format!("{PREFIX}{token}");
        let digest = Digest::of(token.as_bytes());
        if name == FIRST || HOSTS.contains(&name.as_str()) {
            let taken = format!("{name} is a name of the host's own");
            return Err(Code::Conflict.problem(taken).field("name"));
        }
        let is_new = in_time(operators::add(&self.postgres, &name, role.as_str(), digest, &by))
            .await
            .map_err(unavailable)?;
        if !is_new {
            return Err(Code::Conflict.problem(format!("{name} has a token already")).field("name"));
        }
        info!(request.id = %id, by, name, %role, "an admin token was made");
        Ok(http::json(201, &json!({ "name": name, "role": role.as_str(), "token": token }), &id))
    }

    pub(super) async fn revoke_token(&self, name: &str, asked: &Asked) -> Result<Answer, Problem> {
        if !in_time(operators::remove(&self.postgres, name)).await.map_err(unavailable)? {
            return Err(Code::NotFound.problem("nobody of that name has a token"));
        }
        info!(request.id = %asked.id, by = asked.by.name, name, "an admin token was revoked");
        Ok(asked.json(&json!({ "name": name })))
    }

    pub(super) async fn audit(&self, asked: &Asked) -> Result<Answer, Problem> {
        let number = |name: &'static str| {
            asked
                .parameter(name)
                .map(str::parse::<i64>)
                .transpose()
                .map_err(|_| Code::Invalid.problem(format!("`{name}` is a whole number")).field(name))
        };
        let limit = number("limit")?.unwrap_or(limits::AUDIT_LISTED_MAX);
        if !(1..=limits::AUDIT_LISTED_MAX).contains(&limit) {
            let rule = format!("`limit` is 1 to {}", limits::AUDIT_LISTED_MAX);
            return Err(Code::Invalid.problem(rule).field("limit"));
        }
        let mut entries = in_time(operators::entries(&self.postgres, number("before")?, limit + 1))
            .await
            .map_err(unavailable)?;
        let has_more = entries.len() as i64 > limit;
        entries.truncate(limit as usize);
        let next_before = entries.last().filter(|_| has_more).map(|entry| entry.id);
        Ok(asked.json(&json!({ "audit": entries, "next_before": next_before })))
    }
}

impl Act {
    fn forbidden(&self, needed: Role) -> Result<Answer, Problem> {
        let Operator { name, role } = &self.by;
        let detail = format!("the token of {name} may {role}; this needs the role {needed}");
        Err(Code::Forbidden.problem(detail))
    }
}

/// Connections of operators are few: a Postgres that hangs must not hold them.
async fn in_time<T>(asked: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    timeout(limits::FOLLOW_WAITS, asked).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// In a time that tells nothing about where they differ, nor about their lengths.
fn same(given: &str, token: &str) -> bool {
    let (given, token) = (Digest::of(given.as_bytes()), Digest::of(token.as_bytes()));
    let differences = given.bytes().iter().zip(token.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(differences) == 0
}

fn unavailable(error: sqlx::Error) -> Problem {
    warn!(%error, "Postgres could not be asked about operators");
    Code::Unavailable.problem("Postgres did not answer").retry_after_ms(1000)
}
