//! Serves `docs/openapi.yaml`, as of the build of this release, to everyone. The interface is no secret.

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
                // The document changes with a release, so a client must revalidate it on each use.
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
    fn the_document_is_openapi_3_1() {
        assert!(DOCUMENT.starts_with("openapi: 3.1.0\n"));
        assert!(!DOCUMENT.contains('\t'), "tabs are no indentation in YAML");
    }
}
