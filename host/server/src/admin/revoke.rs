//! `POST /revocations`: revokes tokens on every node, until they would have expired.

use serde_json::{Map, Value, json};
use tracing::{info, warn};

use super::fields::text;
use super::{Admin, AdminRequest};
use crate::revocations::{Revocation, RevocationError, Revoked};
use switchboard_contract::types::Problem;
use switchboard_core::ids::UserId;
use switchboard_core::limits;
use switchboard_core::timestamp;
use switchboard_http::answers::{self, Answer};
use switchboard_protocol::wire::problem::Code;
use switchboard_runtime::Load;

impl<L: Load> Admin<L> {
    /// Answers when this node applies the revocation. The other nodes follow within a second.
    pub(super) async fn revoke(&self, request: AdminRequest) -> Result<Answer, Problem> {
        let (id, by) = (request.id.clone(), request.by.name.clone());
        let detail = request.detail.clone();
        let revocation = revocation(&request.fields().await?, timestamp::now_ms())?;
        detail.set(match &revocation.revoked {
            Revoked::Token(jti) => format!("token {jti}"),
            Revoked::User { user_id, before_ms } => {
                format!("tokens of {user_id} issued before {}", timestamp::rfc3339(*before_ms))
            }
        });
        self.revocations.add(&revocation, &by).await.map_err(refused)?;
        info!(request_id = %id, by, revoked = ?revocation.revoked, "revoked tokens");
        let forgotten_at = timestamp::rfc3339(revocation.forget_ms);
        let revoked = match revocation.revoked {
            Revoked::Token(jti) => json!({ "jti": jti, "forgotten_at": forgotten_at }),
            Revoked::User { user_id, before_ms } => json!({
                "user_id": user_id, "before": timestamp::rfc3339(before_ms), "forgotten_at": forgotten_at,
            }),
        };
        Ok(answers::json(201, &json!({ "revocation": revoked }), &id))
    }
}

/// Parses the request: one token by its `jti`, or the tokens of a user that were issued before a time (by
/// default now). The request may say when the last of them expires; otherwise the longest possible validity
/// is assumed.
fn revocation(fields: &Map<String, Value>, now_ms: u64) -> Result<Revocation, Problem> {
    let before_ms = time(fields, "before")?;
    if before_ms.is_some_and(|before_ms| before_ms > now_ms + limits::REVOKED_AHEAD_MAX.as_millis() as u64) {
        // Every token that the user gets until then would be refused, and a revocation cannot be undone.
        return Err(invalid("before", "must be at most an hour in the future"));
    }
    let revoked = match (text(fields, "jti")?, text(fields, "user_id")?) {
        (Some(jti), None) => {
            let fits = (1..=limits::SESSION_ID_CHARS_MAX).contains(&jti.chars().count());
            if !fits || jti.contains('\0') {
                return Err(invalid("jti", "must be the `jti` of a token"));
            }
            Revoked::Token(jti)
        }
        (None, Some(user)) => {
            let user = UserId::parse(&user)
                .ok_or_else(|| invalid("user_id", "must be a user's id of 1 to 64 characters"))?;
            Revoked::User { user_id: user.as_str().to_owned(), before_ms: before_ms.unwrap_or(now_ms) }
        }
        (None, None) => return Err(invalid("jti", "or `user_id` must say which tokens")),
        (Some(_), Some(_)) => return Err(invalid("jti", "and `user_id` must not both be given")),
    };
    let issued_until = match revoked {
        Revoked::Token(_) => now_ms,
        Revoked::User { before_ms, .. } => before_ms.max(now_ms),
    };
    let forget_ms = match time(fields, "expires_at")? {
        Some(expires_ms) => expires_ms + limits::REVOCATION_MARGIN.as_millis() as u64,
        None => issued_until + limits::REVOCATION_KEPT.as_millis() as u64,
    };
    Ok(Revocation { revoked, forget_ms: forget_ms.min(timestamp::LAST_MS) })
}

/// Parses a time: RFC 3339, or whole seconds since 1970 as in tokens.
fn time(fields: &Map<String, Value>, name: &str) -> Result<Option<u64>, Problem> {
    let ms = match fields.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => timestamp::parse(text),
        Some(Value::Number(seconds)) => seconds.as_u64().and_then(|seconds| seconds.checked_mul(1000)),
        Some(_) => None,
    };
    match ms.filter(|ms| *ms <= timestamp::LAST_MS) {
        Some(ms) => Ok(Some(ms)),
        None => Err(invalid(name, "must be a time in RFC 3339, or seconds since 1970")),
    }
}

fn invalid(field: &str, rule: &str) -> Problem {
    Code::Invalid.problem(format!("`{field}` {rule}")).field(field)
}

/// Logged here, once.
fn refused(error: RevocationError) -> Problem {
    warn!(%error, "tokens could not be revoked; they stay valid");
    match error {
        RevocationError::TokensFull => {
            Code::Conflict.problem("too many single tokens are revoked: revoke them by user")
        }
        RevocationError::UsersFull => Code::Conflict.problem("the tokens of too many users are revoked"),
        RevocationError::Postgres(error) => super::problem_of(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_763_600_000_000;

    fn read(fields: Value) -> Result<Revocation, Problem> {
        revocation(fields.as_object().unwrap(), NOW)
    }

    #[test]
    fn a_token_or_a_user_before_a_time() {
        let kept = limits::REVOCATION_KEPT.as_millis() as u64;
        let margin = limits::REVOCATION_MARGIN.as_millis() as u64;
        let user = |before_ms| Revoked::User { user_id: "ana".into(), before_ms };
        for (body, revoked, forget_ms) in [
            (json!({"jti": "j"}), Revoked::Token("j".into()), NOW + kept),
            (
                json!({"jti": "j", "expires_at": "1970-01-01T00:00:01Z"}),
                Revoked::Token("j".into()),
                1000 + margin,
            ),
            (json!({"user_id": "ana"}), user(NOW), NOW + kept),
            (json!({"user_id": "ana", "before": "1970-01-01T01:00:00.5+01:00"}), user(500), NOW + kept),
            (json!({"user_id": "ana", "before": NOW / 1000 + 7}), user(NOW + 7000), NOW + 7000 + kept),
            (
                json!({"user_id": "ana", "before": NOW / 1000 + 3600}),
                user(NOW + 3_600_000),
                NOW + 3_600_000 + kept,
            ),
        ] {
            assert_eq!(read(body.clone()), Ok(Revocation { revoked, forget_ms }), "{body}");
        }
    }

    #[test]
    fn anything_else_names_its_field() {
        let long = "x".repeat(limits::SESSION_ID_CHARS_MAX + 1);
        for (body, field) in [
            (json!({}), "jti"),
            (json!({"jti": "j", "user_id": "ana"}), "jti"),
            (json!({"jti": ""}), "jti"),
            (json!({"jti": "a\0b"}), "jti"),
            (json!({"jti": long}), "jti"),
            (json!({"jti": 7}), "jti"),
            (json!({"user_id": "x".repeat(65)}), "user_id"),
            (json!({"user_id": "ana", "before": "yesterday"}), "before"),
            (json!({"user_id": "ana", "before": -1}), "before"),
            (json!({"user_id": "ana", "before": 1.5}), "before"),
            (json!({"user_id": "ana", "before": u64::MAX}), "before"),
            (json!({"user_id": "ana", "before": "9999-12-31T23:59:59Z"}), "before"),
            (json!({"user_id": "ana", "before": NOW / 1000 + 3601}), "before"),
            (json!({"user_id": "ana", "before": "1969-12-31T23:59:59Z"}), "before"),
            (json!({"jti": "j", "expires_at": []}), "expires_at"),
        ] {
            let problem = read(body.clone()).unwrap_err();
            assert_eq!((problem.status, problem.field.as_deref()), (422, Some(field)), "{body}");
        }
    }
}
