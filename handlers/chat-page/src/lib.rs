//! Shows the chat page, as it was when this release was built, to everyone: it holds nothing of anybody. Whoever uses it
//! brings a token, which stays in their browser.

mod files;

use files::File;
use sdk::Problem;
use sdk::http::{self, Request, Response};

/// The page's own scripts, styles and connections, and nothing else: no markup that slipped in could do anything.
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
        // It changes with a release: asked again each time, so that nobody uses yesterday's.
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
