//! The caller's token in the `Authorization` header.

use hyper::header::{AUTHORIZATION, HeaderMap};

use switchboard_contract::types::Problem;
use switchboard_protocol::wire::problem::Code;

/// Returns the caller's token, if there is one.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| Some(token.trim()))
        .ok_or_else(|| Code::Unauthorized.problem("the `Authorization` header must be `Bearer` and a token"))
}
