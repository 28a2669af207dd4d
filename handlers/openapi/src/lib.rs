//! Shows `docs/openapi.yaml` as it was when this release was built, to everyone: what the interface is, is no secret.

use sdk::Problem;
use sdk::http::{self, Request, Response};

const DOCUMENT: &str = include_str!("../../../docs/openapi.yaml");
/// RFC 9512.
const MEDIA_TYPE: &str = "application/yaml";

struct Openapi;
http::export!(Openapi);

impl http::Handler for Openapi {
    fn handle(_request: Request) -> Result<Response, Problem> {
        Ok(Response {
            status: 200,
            headers: vec![
                ("content-type".to_owned(), MEDIA_TYPE.to_owned()),
                // It changes with a release: asked again each time, so that nobody reads yesterday's.
                ("cache-control".to_owned(), "no-cache".to_owned()),
            ],
            body: DOCUMENT.as_bytes().to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_of_the_version_it_says() {
        assert!(DOCUMENT.starts_with("openapi: 3.1.0\n"));
        assert!(!DOCUMENT.contains('\t'), "tabs are no indentation in YAML");
    }
}
