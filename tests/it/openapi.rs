//! Everyone can read the description of the REST interface. It is the one of this tree, and it describes
//! every route.

use std::collections::BTreeSet;

use switchboard_tests::description::bindings;
use switchboard_tests::host::{Host, Options};

const DOCUMENT: &str = include_str!("../../docs/openapi.yaml");
/// The prefix of the paths in the description, except those that begin with it themselves.
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

/// The routes of the description, such as `GET /conversations`: a path is indented by two, its methods by
/// four.
pub(crate) fn described() -> BTreeSet<String> {
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

/// The routes below the prefix that the manifests bind.
fn bound() -> BTreeSet<String> {
    let mut routes = BTreeSet::new();
    for route in bindings("http") {
        let path = route["path"].as_str().expect("a path");
        if let Some(path) = path.strip_prefix(PREFIX) {
            routes.insert(format!("{} {path}", route["method"].as_str().expect("a method")));
        }
    }
    routes
}

#[test]
fn every_route_is_described() {
    let missing: Vec<_> = bound().difference(&described()).cloned().collect();
    assert!(missing.is_empty(), "docs/openapi.yaml lacks {missing:?}");
}
