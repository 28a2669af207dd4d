//! The errors that a client receives (`docs/protocol.md`, section 1): one constructor per code, with its HTTP
//! status. A problem names the field and the rule. It never contains anything that the caller may not see.

use crate::Problem;

impl Problem {
    fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), detail: detail.into(), field: None, retry_after_ms: None }
    }

    /// The body is not JSON, or it is not an object.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(400, "malformed", detail)
    }

    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(401, "unauthorized", detail)
    }

    /// The caller may see the thing but may not do this. For a thing that the caller may not see, use
    /// [`Problem::not_found`], so that the answer does not reveal it.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(403, "forbidden", detail)
    }

    pub fn not_found(what: &str) -> Self {
        Self::new(404, "not_found", format!("no such {what}"))
    }

    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(409, "conflict", detail)
    }

    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(413, "too_large", detail)
    }

    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(415, "unsupported_media_type", detail)
    }

    /// A field violates a rule.
    pub fn invalid(field: impl Into<String>, rule: impl std::fmt::Display) -> Self {
        let field = field.into();
        Self::new(422, "invalid", format!("{field}: {rule}")).with_field(field)
    }

    pub fn rate_limited(retry_after_ms: u32) -> Self {
        Self::new(429, "rate_limited", "too many of these; wait").with_retry_after_ms(retry_after_ms)
    }

    /// A fault of the server that a retry will not cure. Log the cause where it is known, because the client
    /// does not learn it.
    pub fn internal() -> Self {
        Self::new(500, "internal", "something went wrong here")
    }

    /// A fault of the server that a retry may cure.
    pub fn unavailable() -> Self {
        Self::new(503, "unavailable", "busy; try again").with_retry_after_ms(1000)
    }

    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    pub fn with_retry_after_ms(mut self, ms: u32) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_problem_names_its_field() {
        let problem = Problem::invalid("content", "is empty");
        assert_eq!(
            (problem.status, &*problem.code, problem.field.as_deref()),
            (422, "invalid", Some("content"))
        );
        assert_eq!(problem.detail, "content: is empty");
    }
}
