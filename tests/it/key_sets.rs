//! Keys of an identity provider: key sets from files and URLs, their rotation, and tokens that try to select
//! a wrong key.

use std::path::Path;

use jsonwebtoken::jwk::{Jwk, KeyAlgorithm};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use switchboard_tests::client::Client;
use switchboard_tests::document::Document;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::socket::Handshake;
use switchboard_tests::token::Token;

const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/it/keys");
/// Values of a setting beside the secret.
const PUBLIC: &str = "RS256,ES256,EdDSA";

/// A key pair; the host gets the public key.
struct Pair {
    algorithm: Algorithm,
    private: EncodingKey,
}

impl Pair {
    fn read(algorithm: Algorithm) -> Self {
        let pem =
            |name: &str| std::fs::read(format!("{KEYS}/{name}.private.pem")).expect("a key of the tests");
        let private = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(&pem("rsa")),
            Algorithm::ES256 => EncodingKey::from_ec_pem(&pem("ec")),
            _ => EncodingKey::from_ed_pem(&pem("ed")),
        };
        Self { algorithm, private: private.expect("a key of its kind") }
    }

    fn jwk(&self, id: &str) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.private, self.algorithm).expect("a public half");
        jwk.common.key_id = Some(id.to_owned());
        json!(jwk)
    }

    fn header(&self, id: &str) -> Header {
        Header { kid: Some(id.to_owned()), ..Header::new(self.algorithm) }
    }

    fn sign(&self, id: &str) -> String {
        Token::of("ana").sign_as(&self.header(id), &self.private)
    }
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

async fn judged(host: &Host, token: impl Into<String>) -> u16 {
    host.rest_with(token.into()).get("/api/v1/conversations").await.status
}

#[tokio::test]
async fn a_file_with_keys_of_every_kind_verifies_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.json");
    let pairs = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA].map(Pair::read);
    let [rsa, ec, ed] = &pairs;
    std::fs::write(&file, set(&[rsa.jwk("r"), ec.jwk("e")])).unwrap();
    let options = Options::default().set("JWT_JWKS", file.display()).set("JWT_ALGORITHMS", PUBLIC);
    Host::test(options, async |host| {
        for (pair, id) in [(rsa, "r"), (ec, "e")] {
            Client::open(host.address, "ana", &Handshake::bearer(&pair.sign(id))).await;
            // Without a key id, every key of its kind is tried.
            let unnamed = Token::of("ana").sign_with(pair.algorithm, &pair.private);
            assert_eq!(judged(host, unnamed).await, 200);
        }
        // A key that appears later: the host reads the file again because a token names the key.
        assert_eq!(judged(host, ed.sign("d")).await, 401);
        write_anew(&file, &set(&[ed.jwk("d"), ec.jwk("e")]));
        assert_eq!(judged(host, ed.sign("d")).await, 200);
        // Tokens of the removed key are not valid any more, also if they were cached.
        assert_eq!(judged(host, rsa.sign("r")).await, 401);
        // An invalid file changes nothing.
        write_anew(&file, "{");
        assert_eq!(judged(host, ec.sign("unknown")).await, 503);
        assert_eq!(judged(host, ec.sign("e")).await, 200);
    })
    .await;
}

/// Replaces the file by a rename, like a deployment, so that nobody reads half a file.
fn write_anew(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

#[tokio::test]
async fn an_unknown_key_reloads_the_url_but_not_too_often() {
    let (rsa, ed) = (Pair::read(Algorithm::RS256), Pair::read(Algorithm::EdDSA));
    let provider = Document::serve(set(&[rsa.jwk("old")])).await;
    let options = Options::default().set("JWT_JWKS", provider.url());
    Host::test(options, async |host| {
        assert_eq!(judged(host, rsa.sign("old")).await, 200);
        assert_eq!(provider.asked(), 1);
        provider.set(set(&[rsa.jwk("old"), ed.jwk("new")]));
        assert_eq!(judged(host, ed.sign("new")).await, 200);
        assert_eq!(provider.asked(), 2);
        // Any client can invent key ids.
        for number in 0..40 {
            assert_eq!(judged(host, ed.sign(&format!("invented-{number}"))).await, 401);
        }
        let asked = provider.asked();
        assert!(asked < 12, "asked {asked} times");
        assert_eq!(judged(host, ed.sign("new")).await, 200);
        assert_eq!(judged(host, Token::of("ana").sign()).await, 200, "the secret is still good");
    })
    .await;
}

#[tokio::test]
async fn an_unavailable_provider_does_not_make_a_token_invalid() {
    let ed = Pair::read(Algorithm::EdDSA);
    let provider = Document::away().await;
    let options = Options::default().set("JWT_JWKS", provider.url()).set("JWT_ALGORITHMS", PUBLIC);
    Host::test(options, async |host| {
        let answer = host.rest_with(ed.sign("d")).get("/api/v1/conversations").await;
        answer.expect_problem(503, "unavailable");
        // Larger than the maximum of a key set.
        let padding = json!({"kty": "oct", "k": "A".repeat(300_000)});
        provider.set(set(&[ed.jwk("d"), padding]));
        assert_eq!(judged(host, ed.sign("d")).await, 503);
        provider.set(set(&[ed.jwk("d")]));
        switchboard_tests::patience::until("the key set to be read", async || {
            (judged(host, ed.sign("d")).await == 200).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_token_cannot_choose_how_it_is_verified() {
    let [rsa, ec, ed] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA].map(Pair::read);
    let stranger = EncodingKey::from_ed_der(&ed_der());
    let oct = json!({"kty": "oct", "kid": "o", "alg": "HS256", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"});
    let mut for_encryption = ec.jwk("enc");
    for_encryption["use"] = "enc".into();
    let mut as_rs512 = rsa.jwk("rs512");
    as_rs512["alg"] = "RS512".into();
    let provider = Document::serve(set(&[rsa.jwk("r"), ed.jwk("d"), oct, for_encryption, as_rs512])).await;
    let evil = Document::serve(set(&[ed.jwk("evil")])).await;
    let options = Options::default().set("JWT_JWKS", provider.url());
    Host::test(options, async |host| {
        let ana = Token::of("ana");
        let hs256 = |id: &str, secret: &[u8]| {
            let header = Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::HS256) };
            ana.sign_as(&header, &EncodingKey::from_secret(secret))
        };
        let public = rsa.jwk("r");
        let modulus = public["n"].as_str().unwrap();
        let mut with_jwk = ed.header("d");
        let of_stranger = Jwk::from_encoding_key(&stranger, Algorithm::EdDSA).unwrap();
        with_jwk.jwk = Some(Jwk {
            common: jsonwebtoken::jwk::CommonParameters {
                key_algorithm: Some(KeyAlgorithm::EdDSA),
                ..of_stranger.common.clone()
            },
            ..of_stranger
        });
        let mut with_jku = ed.header("evil");
        with_jku.jku = Some(evil.url());
        let mut with_crit = ed.header("d");
        with_crit.crit = Some(vec!["b64".to_owned()]);
        for (what, token) in [
            ("HMAC by the modulus", hs256("r", modulus.as_bytes())),
            ("HMAC by the whole JWK", hs256("r", public.to_string().as_bytes())),
            ("HMAC by the PEM", hs256("r", &std::fs::read(format!("{KEYS}/rsa.pem")).unwrap())),
            ("HMAC by a symmetric key of the set", hs256("o", b"secret-secret-secret-secret")),
            ("another kind under the key's name", ana.sign_as(&ed.header("r"), &ed.private)),
            ("another key of the kind", ana.sign_as(&ed.header("d"), &stranger)),
            ("a key for encryption", ec.sign("enc")),
            ("a key for another algorithm", rsa.sign("rs512")),
            ("a key in the token's own header", ana.sign_as(&with_jwk, &stranger)),
            ("a URL in the token's own header", ana.sign_as(&with_jku, &ed.private)),
            ("a critical header", ana.sign_as(&with_crit, &ed.private)),
            ("no signature", ana.unsigned()),
        ] {
            assert_eq!(judged(host, token).await, 401, "{what}");
        }
        assert_eq!(evil.asked(), 0, "a token sent the host somewhere");
        assert_eq!(judged(host, ed.sign("d")).await, 200);
        assert_eq!(judged(host, rsa.sign("r")).await, 200);
    })
    .await;
}

/// An Ed25519 key that the host does not know, in PKCS #8.
fn ed_der() -> Vec<u8> {
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend([7; 32]);
    der
}

#[tokio::test]
async fn remote_keys_are_only_loaded_over_tls() {
    let options = Options::default().set("JWT_JWKS", "http://192.0.2.1/keys.json");
    let (database, redis) =
        (switchboard_tests::services::database().await, switchboard_tests::services::Redis::start().await);
    let mut host = Host::over(database, redis, options).await;
    host.spawn();
    let status = host.ended().await;
    assert!(!status.success());
    assert!(host.log().contains("http:// is allowed to this machine only"), "{}", host.log());
    host.database.drop_it().await;
}
