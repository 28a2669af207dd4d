//! The description of the REST interface is there for everyone, it is the one of this tree, and it tells of every route.

use std::collections::BTreeSet;
use std::path::Path;

use switchboard_tests::host::{Host, Options};

const DOCUMENT: &str = include_str!("../../docs/openapi.yaml");
/// Every path of the description stands below it, but for those that begin so themselves.
const PREFIX: &str = "/api/v1";

#[tokio::test]
async fn the_document_is_served_to_everyone() {
    Host::test(Options::default(), async |host| {
        let answer = host.rest_with(None).get("/api/v1/openapi.yaml").await;
        assert_eq!(answer.status, 200, "{answer}");
        assert_eq!(answer.headers["content-type"], "application/yaml");
        assert_eq!(answer.body, DOCUMENT);
    })
    .await;
}

/// `GET /conversations` and the like, as the description has them: a path is indented by two, its methods by four.
pub fn described() -> BTreeSet<String> {
    let mut routes = BTreeSet::new();
    let mut path = "";
    let (_, paths) = DOCUMENT.split_once("\npaths:\n").expect("paths");
    for line in paths.lines().take_while(|line| line.is_empty() || line.starts_with(' ')) {
        let word = line.trim().trim_end_matches(':');
        match line.len() - line.trim_start().len() {
            2 => path = word,
            4 if ["get", "post", "put", "patch", "delete"].contains(&word) => {
                routes.insert(format!("{} {path}", word.to_uppercase()));
            }
            _ => {}
        }
    }
    routes
}

/// The same as the manifests bind them, of those below the prefix.
fn bound() -> BTreeSet<String> {
    let handlers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../handlers");
    let mut routes = BTreeSet::new();
    for handler in std::fs::read_dir(handlers).expect("the handlers").flatten() {
        let Ok(manifest) = std::fs::read_to_string(handler.path().join("handler.toml")) else { continue };
        let manifest: toml::Table = manifest.parse().expect("a manifest");
        let http = manifest.get("on").and_then(|on| on.get("http")).and_then(toml::Value::as_array);
        for route in http.into_iter().flatten() {
            let path = route["path"].as_str().expect("a path");
            if let Some(path) = path.strip_prefix(PREFIX) {
                routes.insert(format!("{} {path}", route["method"].as_str().expect("a method")));
            }
        }
    }
    routes
}

#[test]
fn every_route_is_described() {
    let missing: Vec<_> = bound().difference(&described()).cloned().collect();
    assert!(missing.is_empty(), "docs/openapi.yaml lacks {missing:?}");
}
