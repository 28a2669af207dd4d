use std::fs;
use std::path::Path;

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;

const SECRET: &str = "a secret of the tests";

fn config(keys: &[&str]) -> Config {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gateway/auth/testdata");
    Config {
        jwt_secret: Some(SECRET.to_owned()),
        jwt_keys: keys.iter().map(|name| testdata.join(format!("{name}.pub.pem"))).collect(),
        ..Config::default()
    }
}

fn auth(config: &Config) -> Arc<Auth> {
    Arc::new(Auth::new(config, Arc::default()).unwrap())
}

fn signed(claims: &Value, secret: &str) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn good() -> Value {
    json!({ "sub": "ana", "exp": timestamp::now_ms() / 1000 + 60 })
}

async fn detail(auth: &Arc<Auth>, token: &str) -> String {
    let problem = auth.verify(token).await.unwrap_err();
    assert_eq!(problem.status, 401);
    problem.detail
}

/// Tokens signed with keys that do not exist any more.
const TOKENS: [(&str, &str); 3] = [
    ("RS256", include_str!("testdata/RS256.jwt")),
    ("ES256", include_str!("testdata/ES256.jwt")),
    ("EdDSA", include_str!("testdata/EdDSA.jwt")),
];

#[tokio::test]
async fn every_algorithm_of_the_protocol_is_verified_by_its_key() {
    let auth = auth(&config(&["RS256", "ES256", "EdDSA"]));
    for (algorithm, token) in TOKENS {
        let token = token.trim();
        assert_eq!(auth.verify(token).await.unwrap().user.as_str(), "ana", "{algorithm}");
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let other = if signature.starts_with('A') { "B" } else { "A" };
        let forged = format!("{signed}.{other}{}", &signature[1..]);
        assert!(detail(&auth, &forged).await.contains("signature"), "{algorithm}");
    }
    assert_eq!(auth.verify(&signed(&good(), SECRET)).await.unwrap().user.as_str(), "ana");
    assert!(detail(&auth, &signed(&good(), "another secret, as long")).await.contains("signature"));
}

#[tokio::test]
async fn only_listed_algorithms_are_accepted() {
    let hmac_only = auth(&Config { jwt_algorithms: vec!["HS256".to_owned()], ..config(&[]) });
    for (_, token) in TOKENS {
        assert!(detail(&hmac_only, token.trim()).await.contains("algorithm"));
    }
    let no_hmac = auth(&Config { jwt_algorithms: vec!["EdDSA".to_owned()], ..config(&["EdDSA"]) });
    assert!(detail(&no_hmac, &signed(&good(), SECRET)).await.contains("algorithm"));
    // A public key must not be accepted as a secret.
    let pem = fs::read_to_string(&config(&["EdDSA"]).jwt_keys[0]).unwrap();
    assert!(detail(&no_hmac, &signed(&good(), &pem)).await.contains("algorithm"));
}

#[tokio::test]
async fn what_is_no_token_is_refused_without_a_fuss() {
    let auth = auth(&config(&[]));
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbmEiLCJleHAiOjQxMDI0NDQ4MDB9.";
    for bad in ["", ".", "..", "a.b.c", "ana", unsigned, &"x".repeat(TOKEN_BYTES_MAX), "\0.\0.\0"] {
        assert!(detail(&auth, bad).await.contains("is not a JSON Web Token"), "{bad:.20}");
    }
    assert!(detail(&auth, &"x".repeat(TOKEN_BYTES_MAX + 1)).await.contains("longer than 32768 bytes"));
    let mut claims = good();
    claims["roles"] = "admin".into();
    assert!(detail(&auth, &signed(&claims, SECRET)).await.contains("wrong type"));
}

#[tokio::test]
async fn a_remembered_token_expires_like_any_other() {
    let auth = auth(&config(&[]));
    let token = signed(&good(), SECRET);
    let first = auth.verify(&token).await.unwrap();
    assert!(Arc::ptr_eq(&first, &auth.verify(&token).await.unwrap()));
    let end = first.expires_ms + 30_000;
    assert!(auth.cached(&digest(&token), 0, end - 1).unwrap().is_ok());
    assert_eq!(auth.cached(&digest(&token), 0, end), Some(Err(Rejected::Expired)));
}

/// Key sets in the form of large identity providers.
#[tokio::test]
async fn a_token_may_hold_200_groups_and_claims_without_a_value() {
    let auth = auth(&config(&[]));
    let mut claims = good();
    let groups: Vec<_> =
        (0..200).map(|n| format!("cn=group {n:03},ou=groups,{}", "dc=example,".repeat(7))).collect();
    claims["groups"] = json!(groups);
    claims["roles"] = Value::Null;
    claims["name"] = Value::Null;
    claims["nbf"] = Value::Null;
    let token = signed(&claims, SECRET);
    assert!(token.len() > 24 * 1024, "{}", token.len());
    assert!(auth.verify(&token).await.unwrap().principal.roles.is_empty());
}

#[test]
fn what_is_remembered_is_bounded_in_bytes_too() {
    let mut cache = TokenCache::default();
    let credentials = |roles: usize| {
        Arc::new(Credentials {
            user: switchboard_core::ids::UserId::parse("ana").unwrap(),
            principal: switchboard_contract::types::Principal {
                user_id: "ana".to_owned(),
                name: None,
                roles: vec!["r".repeat(100); roles],
                session_id: "s".to_owned(),
            },
            groups: Box::default(),
            expires_ms: 0,
            issued_ms: 0,
            renewed_as: None,
        })
    };
    let large = credentials(200);
    for number in 0..10_000 {
        cache.insert(digest(&number.to_string()), 0, large.clone());
    }
    let kept = cache.young.len() + cache.old.len();
    assert!(kept * large.bytes() <= TOKENS_REMEMBERED_BYTES_MAX && kept > 1000, "{kept}");
}

#[test]
fn what_is_remembered_is_bounded_and_what_is_asked_for_stays() {
    let mut cache = TokenCache::default();
    let credentials = Arc::new(Credentials {
        user: switchboard_core::ids::UserId::parse("ana").unwrap(),
        principal: switchboard_contract::types::Principal {
            user_id: "ana".to_owned(),
            name: None,
            roles: Vec::new(),
            session_id: "s".to_owned(),
        },
        groups: Box::default(),
        expires_ms: 0,
        issued_ms: 0,
        renewed_as: None,
    });
    let favourite = digest("favourite");
    cache.insert(favourite, 0, credentials.clone());
    for number in 0..3 * TOKENS_REMEMBERED_MAX {
        cache.insert(digest(&number.to_string()), 0, credentials.clone());
        if number % 1000 == 0 {
            assert!(cache.get(&favourite, 0).is_some());
        }
        assert!(cache.young.len() + cache.old.len() <= TOKENS_REMEMBERED_MAX);
    }
    assert!(cache.get(&digest("0"), 0).is_none());
    // The keys have changed: no credentials of the old keys are cached, nor a verification that began before
    // and ends later.
    assert!(cache.get(&favourite, 1).is_none());
    cache.insert(favourite, 0, credentials);
    assert!(cache.get(&favourite, 1).is_none());
}

#[test]
fn a_bad_setting_is_refused_at_the_start() {
    let complaint = |config: &Config| Auth::new(config, Arc::default()).err().unwrap().to_string();
    assert!(complaint(&Config::default()).contains("jwt_secret"));
    assert!(complaint(&Config { jwt_algorithms: vec!["none".to_owned()], ..config(&[]) }).contains("`none`"));
    assert!(complaint(&config(&["absent"])).contains("cannot read"));
    for (name, bits) in [("RSA-1024", 1024), ("RSA-1024-pkcs1", 1024), ("RSA-2047", 2047), ("RSA-4104", 4104)]
    {
        let refusal = complaint(&config(&["RS256", name]));
        assert!(
            refusal.contains(&format!(
                "{name}.pub.pem holds an RSA key of {bits} bits; a key must have 2048 to 4096 bits"
            )),
            "{refusal}"
        );
    }
    let listed = Config { jwt_algorithms: vec!["RS256".to_owned()], ..config(&["EdDSA"]) };
    assert!(complaint(&listed).contains("EdDSA.pub.pem holds no public key"));
}
