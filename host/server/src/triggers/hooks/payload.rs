//! The payload of a REST request as hooks see it: the JSON object of the body, and in it the parameters of
//! the path as texts. So it has the form and the bounds of the payload of a frame. The handler gets a body
//! that is made of this payload, and not the body of the client: if a member appears twice, parsers differ
//! in which one counts, and the handler must not get one that no hook has seen. Query and headers are not in
//! it. Pure.

use serde_json::{Map, Value};

use switchboard_contract::types::Problem;
use switchboard_core::limits;
use switchboard_protocol::wire::frames::is_deeper_than;
use switchboard_protocol::wire::problem::Code;

/// The parameters of a path, decoded.
type Param = (String, String);
/// The parameters of a path and a body.
type Divided = (Vec<Param>, Vec<u8>);

/// Makes the payload of a body and the parameters of the path. No body counts as an empty object. A parameter
/// takes the place of a member of the body with its name.
///
/// # Errors
/// The problem for the client: the body is not a JSON object or is nested too deep, or all together is too
/// large. Otherwise such a body would make every hook fail that changes it, and a hook that opens would not
/// count.
pub(in super::super) fn join(body: &[u8], params: &[Param]) -> Result<String, Problem> {
    let mut members: Map<String, Value> = match body {
        [] => Map::new(),
        body => serde_json::from_slice(body)
            .map_err(|error| Code::Malformed.problem(format!("the body is not a JSON object: {error}")))?,
    };
    members.extend(params.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))));
    let payload = Value::Object(members).to_string();
    if payload.len() > limits::HOOK_PAYLOAD_BYTES_MAX {
        let most = limits::HOOK_PAYLOAD_BYTES_MAX;
        return Err(Code::TooLarge.problem(format!("the body and the path have more than {most} bytes")));
    }
    let levels = limits::JSON_DEPTH_MAX;
    if is_deeper_than(&payload, levels) {
        return Err(Code::Malformed.problem(format!("the body is nested deeper than {levels} levels")));
    }
    Ok(payload)
}

/// Divides a payload into the parameters of the path and a body. A parameter without a member stays as it is.
/// The body is empty when the client sent none and nothing is left for it.
///
/// # Errors
/// The rule that the payload breaks, if a hook has changed it. A payload of [`join`] breaks none.
pub(in super::super) fn divide(payload: &str, params: &[Param], had_body: bool) -> Result<Divided, String> {
    let mut members: Map<String, Value> =
        serde_json::from_str(payload).map_err(|error| format!("it is not a JSON object: {error}"))?;
    let mut divided = Vec::with_capacity(params.len());
    for (name, value) in params {
        let value = match members.remove(name) {
            None => value.clone(),
            Some(Value::String(text)) => text,
            Some(_) => return Err(format!("`{name}` is a parameter of the path, so it must be a text")),
        };
        divided.push((name.clone(), value));
    }
    let body = match members.is_empty() && !had_body {
        true => Vec::new(),
        false => Value::Object(members).to_string().into_bytes(),
    };
    Ok((divided, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(value: &str) -> Vec<(String, String)> {
        vec![("conversation_id".to_owned(), value.to_owned())]
    }

    #[test]
    fn a_request_has_the_payload_of_the_frame_that_does_the_same() {
        let joined = join(br#"{"content": "hi", "n": 7}"#, &params("c1")).unwrap();
        assert_eq!(joined, r#"{"content":"hi","conversation_id":"c1","n":7}"#);
        assert_eq!(join(b"", &params("c1")).unwrap(), r#"{"conversation_id":"c1"}"#);
        assert_eq!(join(b"", &[]).unwrap(), "{}");
    }

    #[test]
    fn no_handler_gets_a_member_that_no_hook_has_seen() {
        for body in [
            // The parameter of the path hides the member.
            r#"{"content":"hi","conversation_id":"other"}"#,
            // Of members with the same name, the last one counts.
            r#"{"content":"hidden","content":"hi"}"#,
            r#"{"content":"hidden","conversation_id":"other","cont\u0065nt":"hi"}"#,
        ] {
            let joined = join(body.as_bytes(), &params("c1")).unwrap();
            assert_eq!(joined, r#"{"content":"hi","conversation_id":"c1"}"#, "{body}");
            let (then, body) = divide(&joined, &params("c1"), true).unwrap();
            assert_eq!((then, body.as_slice()), (params("c1"), &br#"{"content":"hi"}"#[..]));
        }
    }

    #[test]
    fn what_is_no_object_or_too_large_is_the_fault_of_the_client() {
        for body in ["[]", "7", "{", "{} {}", " "] {
            let problem = join(body.as_bytes(), &params("c1")).unwrap_err();
            assert_eq!((problem.status, problem.code.as_str()), (400, "malformed"), "{body}");
        }
        let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(limits::HOOK_PAYLOAD_BYTES_MAX - 8));
        assert!(join(large.as_bytes(), &[]).is_ok());
        assert_eq!(join(large.as_bytes(), &params("c1")).unwrap_err().status, 413);
        let nested = |levels: usize| format!("{{\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(join(nested(limits::JSON_DEPTH_MAX - 1).as_bytes(), &[]).is_ok());
        let problem = join(nested(limits::JSON_DEPTH_MAX).as_bytes(), &[]).unwrap_err();
        assert_eq!((problem.status, problem.code.as_str()), (400, "malformed"));
    }

    #[test]
    fn a_change_reaches_the_body_and_the_path() {
        let changed = r#"{"content":"h*","conversation_id":"c2"}"#;
        let (then, body) = divide(changed, &params("c1"), true).unwrap();
        assert_eq!((then, body.as_slice()), (params("c2"), &br#"{"content":"h*"}"#[..]));
        // Without the member, the parameter stays.
        let (then, body) = divide(r#"{"content":"h*"}"#, &params("c1"), true).unwrap();
        assert_eq!((then, body.as_slice()), (params("c1"), &br#"{"content":"h*"}"#[..]));
        let body_of = |had_body| divide(r#"{"conversation_id":"c2"}"#, &params("c1"), had_body).unwrap().1;
        assert_eq!((body_of(false), body_of(true)), (Vec::new(), b"{}".to_vec()));
        let broken = divide(r#"{"conversation_id":2}"#, &params("c1"), true).unwrap_err();
        assert!(broken.contains("`conversation_id`"), "{broken}");
    }
}
