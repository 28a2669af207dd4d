//! The description of the REST interface is there for everyone, and it is the one of this tree.

use switchboard_tests::host::{Host, Options};

const DOCUMENT: &str = include_str!("../../docs/openapi.yaml");

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
