//! The console: one page for operators, which reads `/admin/v1` with the token that the operator enters. The
//! page itself is not secret. It loads nothing from other sites, and its content security policy forbids it.

use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

use switchboard_http::answers::{self, Answer};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Page,
    Script,
    Style,
}

pub(super) fn answer(part: Part, request_id: &str) -> Answer {
    let (kind, text) = match part {
        Part::Page => ("text/html; charset=utf-8", include_str!("console/index.html")),
        Part::Script => ("text/javascript; charset=utf-8", include_str!("console/console.js")),
        Part::Style => ("text/css; charset=utf-8", include_str!("console/console.css")),
    };
    let mut answer = answers::answer(200, kind, text, request_id);
    let headers: [(HeaderName, &str); 4] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // It belongs to this version of the host.
        (CACHE_CONTROL, "no-cache"),
    ];
    for (name, value) in headers {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_loads_only_what_its_policy_allows() {
        let page = include_str!("console/index.html");
        for inline in ["style=", "onclick", "<style", "javascript:", "http://", "https://"] {
            assert!(!page.contains(inline), "{inline}");
        }
        assert_eq!(page.matches("<script").count(), 1);
        assert!(page.contains(r#"<script src="/console/console.js" defer></script>"#));
        // The page shows data of the fleet as text, never as markup.
        let script = include_str!("console/console.js");
        for markup in ["innerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!script.contains(markup), "{markup}");
        }
    }
}
