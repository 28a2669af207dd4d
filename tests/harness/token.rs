//! Tokens as an identity provider would sign them, good and bad.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};

/// The settings of every test host.
pub const JWT_SECRET: &str = "test-secret-of-the-black-box-tests-0123456789";

/// Claims to be signed. Starts as a good token of one hour.
#[derive(Clone)]
pub struct Token {
    claims: Map<String, Value>,
}

impl Token {
    pub fn of(user: &str) -> Self {
        let mut claims = Map::new();
        claims.insert("sub".into(), json!(user));
        claims.insert("exp".into(), json!(now_s() + 3600));
        Self { claims }
    }

    pub fn roles(self, roles: &[&str]) -> Self {
        self.claim("roles", json!(roles))
    }

    /// Seconds until it expires; negative: seconds since it expired.
    pub fn expires_in_s(self, seconds: i64) -> Self {
        self.claim("exp", json!(now_s() + seconds))
    }

    pub fn claim(mut self, name: &str, value: Value) -> Self {
        self.claims.insert(name.into(), value);
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    pub fn sign(&self) -> String {
        self.sign_with(Algorithm::HS256, &EncodingKey::from_secret(JWT_SECRET.as_bytes()))
    }

    pub fn sign_with(&self, algorithm: Algorithm, key: &EncodingKey) -> String {
        self.sign_as(&Header::new(algorithm), key)
    }

    /// Under any header.
    pub fn sign_as(&self, header: &Header, key: &EncodingKey) -> String {
        jsonwebtoken::encode(header, &self.claims, key).expect("claims sign")
    }

    /// A token with `alg: none`.
    pub fn unsigned(&self) -> String {
        let part = |value: Value| base64_url(value.to_string().as_bytes());
        format!("{}.{}.", part(json!({"alg": "none", "typ": "JWT"})), part(json!(self.claims)))
    }
}

pub fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

fn base64_url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(ALPHABET[(group >> (18 - 6 * place) & 63) as usize] as char);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_has_no_padding() {
        for (plain, coded) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")] {
            assert_eq!(super::base64_url(plain.as_bytes()), coded);
        }
    }
}
