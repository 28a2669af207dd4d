//! Completes the input of a call: a test or a person may omit members whose value does not matter.

use serde_json::{Map, Value, json};

use super::Error;
use switchboard_core::manifest::Manifest;
use switchboard_protocol::wire::percent;

const CONNECTION: &str = "00000000-0000-4000-8000-000000000001";
const NODE: &str = "00000000-0000-4000-8000-00000000000f";
const CALL: &str = "00000000-0000-7000-8000-000000000001";
const EVENT: &str = "00000000-0000-7000-8000-0000000000e";

/// Adds the missing members of the contract's type for the trigger. Present members stay. Beside the names of
/// the contract, the input may have these short ones:
///
/// - `caller`: `"ana"` for a principal of that id. Unless given it is ana.
/// - http: `path` for route, params and query, by the manifest's bindings; `body` as JSON; `headers` as an
///   object.
/// - frame: `type` for frame_type; `payload` as JSON.
/// - event: `events`, each with `type` for event_type and its `payload` as JSON.
/// - before: `payload` as JSON.
/// - call: `body` as JSON.
pub fn complete(manifest: &Manifest, trigger: &str, input: Value) -> Result<Value, Error> {
    let Value::Object(mut input) = input else { return Err(wrong("the input must be a JSON object")) };
    match trigger {
        "http" => http(manifest, &mut input)?,
        "frame" => frame(manifest, &mut input)?,
        "opened" => {
            caller(&mut input);
            default(&mut input, "connection", json!(CONNECTION));
            default(&mut input, "node", json!(NODE));
            default(&mut input, "user_agent", Value::Null);
            default(&mut input, "remote", json!("127.0.0.1:50000"));
        }
        "closed" => {
            default(&mut input, "connection", json!(CONNECTION));
            default(&mut input, "user_id", json!("ana"));
            default(&mut input, "node", json!(NODE));
            default(&mut input, "code", json!(1000));
        }
        "opened-batch" => {
            default(&mut input, "node", json!(NODE));
            for (at, opened) in objects(&mut input, "opened")?.into_iter().enumerate() {
                caller(opened);
                default(opened, "connection", json!(connection(at)));
                default(opened, "user_agent", Value::Null);
                default(opened, "remote", json!("127.0.0.1:50000"));
            }
        }
        "closed-batch" => {
            default(&mut input, "node", json!(NODE));
            for (at, closed) in objects(&mut input, "closed")?.into_iter().enumerate() {
                default(closed, "connection", json!(connection(at)));
                default(closed, "user_id", json!("ana"));
                default(closed, "code", json!(1000));
            }
        }
        "touched" => {
            default(&mut input, "node", json!(NODE));
            default(&mut input, "touches", json!([{}]));
            for touch in objects(&mut input, "touches")? {
                default(touch, "connection", json!(CONNECTION));
                default(touch, "user_id", json!("ana"));
                default(touch, "active_ms", json!(super::props::NOW_MS));
            }
        }
        "missed" => {
            default(&mut input, "after", json!([]));
            default(&mut input, "bytes_max", json!(switchboard_core::limits::PAGE_BYTES_MAX));
        }
        "schedule" => {
            let first = manifest.on.schedule.first().map(|schedule| schedule.name.as_str());
            default(&mut input, "name", json!(first));
            default(&mut input, "node", json!(NODE));
            default(&mut input, "due_ms", json!(super::props::NOW_MS));
        }
        "event" => events(&mut input)?,
        "before" => {
            if input.get("caller") != Some(&Value::Null) {
                caller(&mut input);
            }
            let first = manifest.on.before.first().map(|hook| hook.action.as_str());
            default(&mut input, "id", json!(CALL));
            default(&mut input, "action", json!(first));
            default(&mut input, "payload", json!({}));
            if let Some(payload) = input.get_mut("payload") {
                *payload = json!(text(payload));
            }
        }
        "timer" => {
            default(&mut input, "key", json!("key"));
            default(&mut input, "payload", json!({}));
            default(&mut input, "due_ms", json!(super::props::NOW_MS));
            default(&mut input, "attempt", json!(1));
            if let Some(payload) = input.get_mut("payload") {
                *payload = json!(text(payload));
            }
        }
        "call" => {
            if input.get("caller") != Some(&Value::Null) {
                caller(&mut input);
            }
            default(&mut input, "id", json!(CALL));
            default(&mut input, "handler", json!("caller"));
            default(&mut input, "method", json!(manifest.on.call.first()));
            body(&mut input);
        }
        other => return Err(wrong(format!("there is no trigger `{other}`"))),
    }
    Ok(Value::Object(input))
}

/// The connection with this place in a batch; the first one is [`CONNECTION`].
fn connection(at: usize) -> String {
    format!("00000000-0000-4000-8000-{:012}", at + 1)
}

fn wrong(reason: impl Into<String>) -> Error {
    Error::Input(reason.into())
}

fn http(manifest: &Manifest, input: &mut Map<String, Value>) -> Result<(), Error> {
    if input.get("caller") != Some(&Value::Null) {
        caller(input);
    }
    default(input, "id", json!(CALL));
    default(input, "method", json!("GET"));
    if let Some(path) = input.remove("path") {
        let path = path.as_str().ok_or_else(|| wrong("`path` must be a string"))?.to_owned();
        let method = input["method"].as_str().unwrap_or_default().to_owned();
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let (route, params) = route(manifest, &method, path)
            .ok_or_else(|| wrong(format!("{} has no route for {method} {path}", manifest.name)))?;
        default(input, "route", json!(route));
        default(input, "params", json!(params));
        let query = percent::decode_query(query);
        let query = query.ok_or_else(|| wrong("the query contains a wrong percent escape"))?;
        default(input, "query", json!(query));
    }
    default(input, "params", json!([]));
    default(input, "query", json!([]));
    let has_body = input.get("body").is_some_and(|body| !body.is_null());
    default(
        input,
        "headers",
        if has_body { json!({ "content-type": "application/json" }) } else { json!({}) },
    );
    if let Some(Value::Object(headers)) = input.get("headers") {
        let pairs: Vec<_> = headers.iter().map(|(name, value)| json!([name.to_lowercase(), value])).collect();
        input.insert("headers".to_owned(), Value::Array(pairs));
    }
    body(input);
    Ok(())
}

/// Writes a body that is given as JSON in the form of a recording. Without one it is empty.
fn body(input: &mut Map<String, Value>) {
    default(input, "body", json!({ "text": "" }));
    if let Some(body) = input.get_mut("body") {
        let as_written = body.as_object().is_some_and(|body| {
            body.len() == 1 && (body.get("text").is_some_and(Value::is_string) || body.contains_key("hex"))
        });
        if !as_written {
            *body = json!({ "text": text(body) });
        }
    }
}

fn frame(manifest: &Manifest, input: &mut Map<String, Value>) -> Result<(), Error> {
    caller(input);
    default(input, "id", json!(CALL));
    default(input, "connection", json!(CONNECTION));
    if let Some(name) = input.remove("type") {
        let name = name.as_str().ok_or_else(|| wrong("`type` must be a string"))?.to_owned();
        let binding = manifest
            .on
            .frame
            .iter()
            .find(|binding| binding.frame_type == name || binding.aliases.contains(&name));
        let binding = binding
            .ok_or_else(|| wrong(format!("{} has no binding for the frame `{name}`", manifest.name)))?;
        let alias = (binding.frame_type != name).then_some(name);
        default(input, "frame_type", json!(binding.frame_type));
        default(input, "alias", json!(alias));
    }
    default(input, "alias", Value::Null);
    default(input, "payload", json!({}));
    if let Some(payload) = input.get_mut("payload") {
        *payload = json!(text(payload));
    }
    Ok(())
}

fn events(input: &mut Map<String, Value>) -> Result<(), Error> {
    for (at, event) in objects(input, "events")?.into_iter().enumerate() {
        if let Some(name) = event.remove("type") {
            default(event, "event_type", name);
        }
        default(event, "id", json!(format!("{EVENT}{:x}", (at + 1) % 16)));
        default(event, "position", json!(at + 1));
        default(event, "shard", json!(0));
        default(event, "key", json!(""));
        default(event, "at_ms", json!(super::props::NOW_MS));
        default(event, "attempt", json!(1));
        default(event, "payload", json!({}));
        if let Some(payload) = event.get_mut("payload") {
            *payload = json!(text(payload));
        }
    }
    Ok(())
}

fn default(input: &mut Map<String, Value>, name: &str, value: Value) {
    input.entry(name).or_insert(value);
}

fn caller(input: &mut Map<String, Value>) {
    default(input, "caller", json!("ana"));
    let Some(caller) = input.get_mut("caller") else { return };
    if let Value::String(user) = caller {
        *caller = json!({ "user_id": user });
    }
    if let Value::Object(caller) = caller {
        let user = caller.get("user_id").cloned().unwrap_or_default();
        default(caller, "name", Value::Null);
        default(caller, "roles", json!([]));
        default(caller, "session_id", json!(format!("session-of-{}", user.as_str().unwrap_or_default())));
    }
}

fn objects<'a>(
    input: &'a mut Map<String, Value>,
    name: &str,
) -> Result<Vec<&'a mut Map<String, Value>>, Error> {
    let list = input.get_mut(name).and_then(Value::as_array_mut);
    let list = list.ok_or_else(|| wrong(format!("`{name}` must be a list")))?;
    list.iter_mut()
        .map(|element| {
            let object = element.as_object_mut();
            object.ok_or_else(|| wrong(format!("each element of `{name}` must be a JSON object")))
        })
        .collect()
}

/// Text unchanged, any other value as compact JSON.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The pattern and its parameters, by the gateway's rule.
fn route(manifest: &Manifest, method: &str, path: &str) -> Option<(String, Vec<(String, String)>)> {
    let of_method = manifest.on.http.iter().filter(|binding| binding.method == method);
    let mut router = matchit::Router::new();
    for binding in of_method {
        router.insert(binding.path.as_str(), binding.path.as_str()).ok()?;
    }
    let found = router.at(path).ok()?;
    let params = found.params.iter().map(|(name, value)| Some((name.to_owned(), percent::decode(value)?)));
    Some((found.value.to_string(), params.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest::parse(
            "name = \"x\"\non.http = [{ method = \"POST\", path = \"/a/{id}\" }, { method = \"POST\", path = \"/b\" }]\n\
             on.frame = [{ type = \"say\", aliases = [\"chat:say\"] }]",
        )
        .unwrap()
    }

    #[test]
    fn a_path_becomes_route_params_and_query() {
        let input = json!({ "method": "POST", "path": "/a/b%20c?x=1&y=%C3%BC", "body": { "k": [1] }, "caller": "bo" });
        let input = complete(&manifest(), "http", input).unwrap();
        assert_eq!(input["route"], "/a/{id}");
        assert_eq!(input["params"], json!([["id", "b c"]]));
        assert_eq!(input["query"], json!([["x", "1"], ["y", "ü"]]));
        assert_eq!(input["body"], json!({ "text": "{\"k\":[1]}" }));
        assert_eq!(input["headers"], json!([["content-type", "application/json"]]));
        assert_eq!(input["caller"]["user_id"], "bo");
        let again = complete(&manifest(), "http", input.clone()).unwrap();
        assert_eq!(again, input, "what is complete stays as it is");
    }

    #[test]
    fn an_alias_is_given_with_its_type() {
        let input =
            complete(&manifest(), "frame", json!({ "type": "chat:say", "payload": { "a": 1 } })).unwrap();
        assert_eq!((&input["frame_type"], &input["alias"]), (&json!("say"), &json!("chat:say")));
        assert_eq!(input["payload"], "{\"a\":1}");
    }

    #[test]
    fn the_connections_of_a_batch_differ() {
        let input = json!({ "opened": [{ "caller": "ana" }, { "caller": "bo" }] });
        let input = complete(&manifest(), "opened-batch", input).unwrap();
        assert_eq!(input["opened"][0]["connection"], CONNECTION);
        assert_eq!(input["opened"][1]["connection"], "00000000-0000-4000-8000-000000000002");
        assert_eq!(input["opened"][1]["caller"]["user_id"], "bo");
        assert!(complete(&manifest(), "closed-batch", json!({})).is_err());
    }

    #[test]
    fn a_hook_and_a_called_handler_get_what_a_test_omits() {
        let manifest = Manifest::parse(
            "name = \"x\"\non.before = [{ type = \"message.send\" }]\non.call = [\"profile\"]",
        )
        .unwrap();
        let input = complete(&manifest, "before", json!({ "payload": { "content": "hi" } })).unwrap();
        assert_eq!((&input["action"], &input["caller"]["user_id"]), (&json!("message.send"), &json!("ana")));
        assert_eq!(input["payload"], r#"{"content":"hi"}"#);
        let input = complete(&manifest, "call", json!({ "body": { "id": "bo" }, "caller": null })).unwrap();
        assert_eq!((&input["method"], &input["caller"]), (&json!("profile"), &Value::Null));
        assert_eq!(input["body"], json!({ "text": r#"{"id":"bo"}"# }));
        assert_eq!(complete(&manifest, "call", json!({})).unwrap()["body"], json!({ "text": "" }));
    }

    #[test]
    fn an_input_without_a_binding_is_an_error() {
        for (trigger, input) in [
            ("http", json!({ "path": "/a/1" })),
            ("frame", json!({ "type": "shout" })),
            ("event", json!({})),
            ("moon", json!({})),
        ] {
            assert!(complete(&manifest(), trigger, input).is_err(), "{trigger}");
        }
    }
}
