//! `switchboard token`: makes a token for development, signed with the HS256 secret of the configuration.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::{Failure, Output};
use switchboard_core::config::Config;
use switchboard_core::ids::UserId;
use switchboard_core::limits;
use switchboard_core::timestamp;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The user id, kept verbatim: 1 to 64 characters.
    #[arg(long)]
    sub: String,
    /// A role; may be given several times.
    #[arg(long = "role")]
    roles: Vec<String>,
    #[arg(long)]
    name: Option<String>,
    /// The lifetime: 30s, 15m, 1h, 7d.
    #[arg(long, default_value = "1h", value_parser = seconds)]
    ttl: u64,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    roles: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    jti: Uuid,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

pub(crate) fn run(args: Args, config: &Config, out: &Output) -> Result<(), Failure> {
    let user = UserId::parse(&args.sub)
        .ok_or_else(|| Failure::Usage("--sub has 1 to 64 characters, no control characters".to_owned()))?;
    let (token, expires_s) = make(config, &user, &args.roles, args.name.as_deref(), args.ttl)?;
    out.answer(&json!({ "token": token, "expires_at": timestamp::rfc3339(expires_s * 1000) }), &token);
    Ok(())
}

/// Makes a token, and returns it with the second at which it expires.
///
/// # Errors
/// If the nodes of this configuration would not accept it.
pub(crate) fn make(
    config: &Config,
    user: &UserId,
    roles: &[String],
    name: Option<&str>,
    ttl_s: u64,
) -> Result<(String, u64), Failure> {
    let secret = config.jwt_secret.as_deref().ok_or_else(|| {
        Failure::failed(
            "no HS256 secret: set SWITCHBOARD_JWT_SECRET to the one that the nodes check tokens with",
        )
    })?;
    if !config.jwt_algorithms.iter().any(|algorithm| algorithm == "HS256") {
        return Err(Failure::failed("the nodes take no HS256 tokens: it is not among `jwt_algorithms`"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = Claims {
        sub: user.as_str(),
        roles,
        name,
        jti: Uuid::now_v7(),
        iat: now,
        exp: now + ttl_s,
        iss: config.jwt_issuer.as_deref(),
        aud: config.jwt_audience.as_deref(),
    };
    let key = EncodingKey::from_secret(secret.as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)?;
    Ok((token, claims.exp))
}

/// A number and its unit.
fn seconds(text: &str) -> Result<u64, String> {
    let most = limits::DEV_TOKEN_LIFETIME_MAX.as_secs();
    let rule = || format!("30s, 15m, 1h or 7d, up to {} days", most / 86_400);
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let each = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(rule()),
    };
    let number: u64 = number.parse().map_err(|_| rule())?;
    number.checked_mul(each).filter(|ttl| (1..=most).contains(ttl)).ok_or_else(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_a_number_and_its_unit() {
        for (text, ttl) in [("30s", 30), ("15m", 900), ("1h", 3600), ("366d", 366 * 86_400)] {
            assert_eq!(seconds(text), Ok(ttl));
        }
        for bad in ["", "1", "h", "0s", "1w", "-1h", "367d", "99999999999999999999d", "1 h"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
