//! Serves the chat page to everyone. The page contains no user data. A user signs in with a token, which
//! stays in the browser.

mod files;

use files::File;
use sdk::Problem;
use sdk::http::{self, Request, Response};

/// Allows only the page's own scripts, styles and connections, so that injected markup has no effect.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct ChatPage;
http::export!(ChatPage);

impl http::Handler for ChatPage {
    fn handle(request: Request) -> Result<Response, Problem> {
        let name = request.param("file");
        let file = match request.route.as_str() {
            "/chat" => Some(&files::INDEX),
            "/chat/client/{file}" => files::find(files::CLIENT, name),
            _ => files::find(files::PAGE, name),
        };
        file.map(shown).ok_or_else(|| Problem::not_found("file"))
    }
}

fn shown(file: &File) -> Response {
    let headers = [
        ("content-type", file.media_type()),
        // The files change with each release, so the browser must revalidate them on each use.
        ("cache-control", "no-cache"),
        ("content-security-policy", POLICY),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    ];
    Response {
        status: 200,
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        body: file.text.as_bytes().to_vec(),
    }
}
