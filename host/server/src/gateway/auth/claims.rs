//! The rules for a token's claims, for every issuer (docs/protocol.md, section 3). Pure: the time is a
//! parameter.

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use switchboard_contract::types::{Principal, Problem};
use switchboard_core::hash::fnv1a;
use switchboard_core::ids::UserId;
use switchboard_core::limits::{SESSION_ID_CHARS_MAX, TOKEN_BYTES_MAX, TOKEN_GROUPS_MAX};
use switchboard_protocol::session::Credentials;
use switchboard_protocol::wire::problem::Code;

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Claims {
    sub: Option<String>,
    /// Seconds since 1970 UTC; RFC 7519 permits fractions.
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
    iss: Option<String>,
    aud: Option<Audience>,
    jti: Option<String>,
    name: Option<String>,
    roles: Option<Vec<String>>,
    /// A list or one name; anything else counts as absent, because providers use this claim as they like.
    groups: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// The operator's requirements.
pub(super) struct Rules {
    pub leeway_ms: u64,
    pub issuer: Option<String>,
    pub audience: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    NoToken,
    TooLong,
    Algorithm,
    Critical,
    Key,
    Signature,
    Claims,
    NoExpiry,
    Expired,
    NotYet,
    Issuer,
    Audience,
    Subject,
    ReservedSubject,
    SessionId,
    Revoked,
}

impl Rejected {
    /// The value of the metric's `verdict` label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::TooLong => "too_long",
            Self::Algorithm => "algorithm",
            Self::Critical => "critical",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Claims => "claims",
            Self::NoExpiry => "no_expiry",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Subject => "subject",
            Self::ReservedSubject => "reserved_subject",
            Self::SessionId => "session_id",
            Self::Revoked => "revoked",
        }
    }

    pub(super) fn problem(self) -> Problem {
        if self == Self::TooLong {
            return Code::Unauthorized
                .problem(format!("the token is longer than {TOKEN_BYTES_MAX} bytes, the maximum"));
        }
        Code::Unauthorized.problem(match self {
            Self::TooLong => "the token is too long",
            Self::NoToken => "this token is not a JSON Web Token",
            Self::Algorithm => "the token's algorithm is not accepted",
            Self::Critical => "the token's header has a critical extension that is not supported",
            Self::Key => "the token names an unknown key",
            Self::Signature => "the token's signature is wrong",
            Self::Claims => "a claim of the token has the wrong type",
            Self::NoExpiry => "the token has no `exp`",
            Self::Expired => "the token has expired",
            Self::NotYet => "the token is not valid yet",
            Self::Issuer => "the token is from another issuer",
            Self::Audience => "the token is for another audience",
            Self::Subject => "the token's `sub` is not a user id of 1 to 64 characters",
            Self::ReservedSubject => {
                "the token's `sub` is reserved: no user can be called `me`, `.` or `..`; issue the token with another `sub`"
            }
            Self::SessionId => "the token's `jti` is too long",
            Self::Revoked => "the token was revoked",
        })
    }
}

impl Rules {
    pub(super) fn admit(&self, claims: Claims, now_ms: u64) -> Result<Credentials, Rejected> {
        let expires_ms = milliseconds(claims.exp.ok_or(Rejected::NoExpiry)?);
        if self.is_expired(expires_ms, now_ms) {
            return Err(Rejected::Expired);
        }
        if claims.nbf.is_some_and(|nbf| milliseconds(nbf) > now_ms.saturating_add(self.leeway_ms)) {
            return Err(Rejected::NotYet);
        }
        if self.issuer.is_some() && self.issuer != claims.iss {
            return Err(Rejected::Issuer);
        }
        if let Some(ours) = &self.audience {
            let is_ours = match &claims.aud {
                None => false,
                Some(Audience::One(one)) => one == ours,
                Some(Audience::Many(many)) => many.contains(ours),
            };
            if !is_ours {
                return Err(Rejected::Audience);
            }
        }
        if claims.sub.as_deref().is_some_and(|sub| UserId::RESERVED.contains(&sub)) {
            return Err(Rejected::ReservedSubject);
        }
        let user = claims.sub.as_deref().and_then(UserId::parse).ok_or(Rejected::Subject)?;
        let session_id = match claims.jti {
            Some(jti) if jti.is_empty() || jti.chars().count() > SESSION_ID_CHARS_MAX => {
                return Err(Rejected::SessionId);
            }
            Some(jti) => jti,
            None => Uuid::now_v7().to_string(),
        };
        let principal = Principal {
            user_id: user.as_str().to_owned(),
            name: claims.name,
            roles: claims.roles.unwrap_or_default(),
            session_id,
        };
        let issued_ms = claims.iat.map_or(0, milliseconds);
        let groups = hashes(claims.groups.as_ref());
        Ok(Credentials { user, principal, groups, expires_ms, issued_ms, renewed_as: None })
    }

    /// True when `exp` and the leeway have passed. This is the meaning of "expired" everywhere.
    pub(super) fn is_expired(&self, expires_ms: u64, now_ms: u64) -> bool {
        expires_ms.saturating_add(self.leeway_ms) <= now_ms
    }
}

/// The hashes of the names in the claim `groups`, of the first [`TOKEN_GROUPS_MAX`].
fn hashes(groups: Option<&Value>) -> Box<[u64]> {
    let names = match groups {
        Some(Value::Array(names)) => &names[..],
        Some(name) => std::slice::from_ref(name),
        None => &[],
    };
    let names = names.iter().filter_map(Value::as_str).take(TOKEN_GROUPS_MAX);
    names.map(|name| fnv1a(name.bytes())).collect()
}

/// The cast saturates: a time before 1970 becomes 1970, and a huge number the latest time.
fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_763_600_000;

    fn rules() -> Rules {
        Rules { leeway_ms: 30_000, issuer: None, audience: None }
    }

    fn verdict(rules: &Rules, claims: serde_json::Value) -> Result<Credentials, Rejected> {
        rules.admit(serde_json::from_value(claims).unwrap(), NOW * 1000)
    }

    fn with(name: &str, value: serde_json::Value) -> serde_json::Value {
        let mut claims = serde_json::json!({ "sub": "ana", "exp": NOW + 60 });
        claims[name] = value;
        claims
    }

    #[test]
    fn a_good_token_is_a_principal() {
        let mut claims = with("jti", "j1".into());
        claims["roles"] = serde_json::json!(["auditor"]);
        claims["name"] = "Ana".into();
        let credentials = verdict(&rules(), claims).unwrap();
        assert_eq!(credentials.expires_ms, (NOW + 60) * 1000);
        let principal = credentials.principal;
        assert_eq!((principal.user_id.as_str(), principal.session_id.as_str()), ("ana", "j1"));
        assert_eq!((principal.name.as_deref(), principal.roles), (Some("Ana"), vec!["auditor".to_owned()]));
    }

    #[test]
    fn groups_are_a_list_or_a_name_and_anything_else_refuses_no_token() {
        let groups = |value: serde_json::Value| verdict(&rules(), with("groups", value)).unwrap().groups;
        let (staff, beta) = (fnv1a("staff".bytes()), fnv1a("beta".bytes()));
        assert_eq!(*groups(serde_json::json!(["staff", 7, "beta"])), [staff, beta]);
        assert_eq!(*groups("beta".into()), [beta]);
        for other in [serde_json::Value::Null, 7.into(), serde_json::json!({ "beta": true })] {
            assert!(groups(other).is_empty());
        }
        let many = vec!["beta"; TOKEN_GROUPS_MAX + 1];
        assert_eq!(groups(many.into()).len(), TOKEN_GROUPS_MAX);
    }

    /// Some providers write a claim without a value as null.
    #[test]
    fn a_claim_that_is_null_counts_as_absent() {
        for name in ["nbf", "iat", "iss", "aud", "jti", "name", "roles"] {
            let credentials = verdict(&rules(), with(name, serde_json::Value::Null)).unwrap();
            assert_eq!(
                (credentials.principal.name, credentials.principal.roles),
                (None, Vec::new()),
                "{name}"
            );
            assert_eq!(credentials.issued_ms, 0, "{name}");
        }
        assert_eq!(verdict(&rules(), with("sub", serde_json::Value::Null)), Err(Rejected::Subject));
    }

    #[test]
    fn expiry_is_required_and_counts_with_its_leeway() {
        let exp = |value: serde_json::Value| verdict(&rules(), with("exp", value)).map(|it| it.expires_ms);
        assert_eq!(exp(serde_json::Value::Null), Err(Rejected::NoExpiry));
        assert_eq!(exp((NOW - 30).into()), Err(Rejected::Expired));
        assert_eq!(exp((NOW - 29).into()), Ok((NOW - 29) * 1000));
        assert_eq!(exp((-5).into()), Err(Rejected::Expired));
        assert_eq!(exp(1e300.into()), Ok(u64::MAX));
    }

    #[test]
    fn what_begins_later_is_refused_beyond_the_leeway() {
        let nbf = |value: u64| verdict(&rules(), with("nbf", value.into())).map(|_| ());
        assert_eq!(nbf(NOW + 30), Ok(()));
        assert_eq!(nbf(NOW + 31), Err(Rejected::NotYet));
    }

    #[test]
    fn issuer_and_audience_are_checked_where_they_are_set() {
        let strict = Rules { issuer: Some("us".into()), audience: Some("chat".into()), ..rules() };
        let mut claims = with("iss", "us".into());
        assert_eq!(verdict(&strict, claims.clone()), Err(Rejected::Audience));
        for (audience, is_ours) in [
            (serde_json::json!("chat"), true),
            (serde_json::json!(["mail", "chat"]), true),
            (serde_json::json!(["mail"]), false),
            (serde_json::json!("mail"), false),
        ] {
            claims["aud"] = audience;
            assert_eq!(verdict(&strict, claims.clone()).is_ok(), is_ours);
            assert!(verdict(&rules(), claims.clone()).is_ok());
        }
        claims["iss"] = "them".into();
        assert_eq!(verdict(&strict, claims), Err(Rejected::Issuer));
    }

    #[test]
    fn a_subject_is_a_user_id() {
        for bad in [serde_json::Value::Null, "".into(), "a\0b".into(), "x".repeat(65).into()] {
            assert_eq!(verdict(&rules(), with("sub", bad)), Err(Rejected::Subject));
        }
        for reserved in UserId::RESERVED {
            assert_eq!(verdict(&rules(), with("sub", reserved.into())), Err(Rejected::ReservedSubject));
        }
        let long = "x".repeat(SESSION_ID_CHARS_MAX + 1);
        assert_eq!(verdict(&rules(), with("jti", long.into())), Err(Rejected::SessionId));
    }
}
