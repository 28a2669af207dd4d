//! The payload of a REST request as hooks see it: the JSON object of the body, and in it the parameters of
//! the path as texts. So it has the form of the payload of a frame. Query and headers are not in it. Pure.

use serde_json::{Map, Value};

use switchboard_contract::types::Problem;
use switchboard_core::limits;
use switchboard_protocol::wire::problem::Code;

/// The parameters of a path, decoded.
type Param = (String, String);

/// A payload that was made of a request.
#[derive(Debug, PartialEq)]
pub(in super::super) struct Joined {
    pub payload: String,
    /// A parameter has taken the place of a member of the body. Then the handler must get the body without
    /// that member: it must never see what no hook has seen.
    pub hides: bool,
}

/// Makes the payload of a body and the parameters of the path. No body counts as an empty object.
///
/// # Errors
/// The problem for the client: the body is not a JSON object, or all together is too large.
pub(in super::super) fn join(body: &[u8], params: &[Param]) -> Result<Joined, Problem> {
    let mut members: Map<String, Value> = match body {
        [] => Map::new(),
        body => serde_json::from_slice(body)
            .map_err(|error| Code::Malformed.problem(format!("the body is not a JSON object: {error}")))?,
    };
    let mut hides = false;
    for (name, value) in params {
        hides |= members.insert(name.clone(), Value::String(value.clone())).is_some();
    }
    let payload = Value::Object(members).to_string();
    if payload.len() > limits::HOOK_PAYLOAD_BYTES_MAX {
        let most = limits::HOOK_PAYLOAD_BYTES_MAX;
        return Err(Code::TooLarge.problem(format!("the body and the path have more than {most} bytes")));
    }
    Ok(Joined { payload, hides })
}

/// Divides a payload into the parameters of the path and a body. A parameter without a member stays as it is.
/// The body is empty when the client sent none and nothing is left for it.
///
/// # Errors
/// The rule that the payload breaks. A hook has changed it: the payload of a client has these forms.
pub(in super::super) fn divide(
    payload: &str,
    params: &[Param],
    had_body: bool,
) -> Result<(Vec<Param>, Vec<u8>), String> {
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
        assert_eq!(joined.payload, r#"{"content":"hi","conversation_id":"c1","n":7}"#);
        assert!(!joined.hides);
        assert_eq!(join(b"", &params("c1")).unwrap().payload, r#"{"conversation_id":"c1"}"#);
        assert_eq!(join(b"", &[]).unwrap().payload, "{}");
    }

    #[test]
    fn a_parameter_of_the_path_hides_a_member_of_the_body() {
        let joined = join(br#"{"content":"hi","conversation_id":"other"}"#, &params("c1")).unwrap();
        assert_eq!(joined.payload, r#"{"content":"hi","conversation_id":"c1"}"#);
        assert!(joined.hides);
        let (then, body) = divide(&joined.payload, &params("c1"), true).unwrap();
        assert_eq!((then, body.as_slice()), (params("c1"), &br#"{"content":"hi"}"#[..]));
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
