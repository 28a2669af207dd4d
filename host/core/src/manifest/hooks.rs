//! Hooks, actions, and calls between handlers in a manifest. An action is the type of a frame, or the name
//! that a route of REST has in `action`, so that one hook decides about all transports.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{HttpBinding, OPERATORS, is_name};
use crate::limits;

/// One action that the handler decides about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookBinding {
    /// The action, for instance `message.send`.
    #[serde(rename = "type")]
    pub action: String,
    /// The hooks of an action are called one after the other, the lowest order first. Of two with the same
    /// order, the one whose handler has the first name in the alphabet is called first.
    #[serde(default)]
    pub order: i32,
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// Says whether the action is done when the hook fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is not done, and the client gets `unavailable`.
    #[default]
    Closed,
    /// It goes on, as if the hook had allowed it.
    Open,
}

pub(super) fn check(hooks: &[HookBinding]) -> Result<(), String> {
    let most = limits::HOOKS_PER_HANDLER_MAX;
    if hooks.len() > most {
        return Err(format!("`on.before` names at most {most} actions"));
    }
    let mut seen = BTreeSet::new();
    for HookBinding { action, .. } in hooks {
        if !is_word(action) {
            return Err(format!("`on.before` type `{action}` is not an action: {WORD}"));
        }
        if !seen.insert(action) {
            return Err(format!("`on.before` names the action `{action}` twice"));
        }
    }
    Ok(())
}

pub(super) fn check_action(HttpBinding { action, path, .. }: &HttpBinding) -> Result<(), String> {
    let Some(action) = action else { return Ok(()) };
    if !is_word(action) {
        return Err(format!("`on.http` action `{action}` of `{path}` is not an action: {WORD}"));
    }
    if path.starts_with(OPERATORS) {
        return Err(format!("`on.http` path `{path}` is for operators and cannot have an action"));
    }
    Ok(())
}

pub(super) fn check_calls(methods: &[String], handlers: &[String]) -> Result<(), String> {
    let most = limits::CALL_METHODS_MAX;
    if methods.len() > most || handlers.len() > most {
        return Err(format!("`on.call` and `grants.calls` name at most {most} methods and handlers"));
    }
    if let Some(method) = methods.iter().find(|method| !is_word(method)) {
        return Err(format!("`on.call` method `{method}` is not a method: {WORD}"));
    }
    match handlers.iter().find(|handler| !is_name(handler)) {
        Some(handler) => Err(format!("`grants.calls` names `{handler}`, which is no name of a handler")),
        None => Ok(()),
    }
}

const WORD: &str = "1 to 64 lower-case letters, digits, and `._-:`";

/// Whether an action or a method may have this name: the same characters as the type of a frame.
fn is_word(name: &str) -> bool {
    (1..=limits::FRAME_TYPE_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-:".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::super::Manifest;
    use super::*;

    fn parse(on: &str) -> Result<Manifest, String> {
        Manifest::parse(&format!("name = \"filter\"\n{on}")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_hook_has_an_order_and_closes_unless_it_says_otherwise() {
        let open = r#"{ type = "message.send", order = 10, on_failure = "open" }"#;
        let manifest = parse(&format!("on.before = [{open}, {{ type = \"message.edit\" }}]")).unwrap();
        let [send, edit] = &manifest.on.before[..] else { panic!("{:?}", manifest.on) };
        assert_eq!(send.action, "message.send");
        assert_eq!((send.order, send.on_failure), (10, OnFailure::Open));
        assert_eq!((edit.order, edit.on_failure), (0, OnFailure::Closed));
    }

    /// A node of the version before refuses a manifest with members that it does not know.
    #[test]
    fn a_manifest_without_hooks_and_calls_is_stored_as_before() {
        let plain = parse(r#"on.http = [{ method = "GET", path = "/a" }]"#).unwrap();
        let stored = serde_json::to_value(&plain).unwrap();
        for pointer in ["/on/before", "/on/call", "/on/http/0/action", "/grants/calls"] {
            assert_eq!(stored.pointer(pointer), None, "{stored}");
        }
        assert!(stored.pointer("/on/http/0/path").is_some(), "{stored}");
    }

    #[test]
    fn wrong_names_and_too_many_are_refused() {
        let hooks = |count: usize| {
            let hooks: Vec<_> = (0..count).map(|n| format!("{{ type = \"a{n}\" }}")).collect();
            format!("on.before = [{}]", hooks.join(", "))
        };
        assert!(parse(&hooks(limits::HOOKS_PER_HANDLER_MAX)).is_ok());
        let route = |path: &str, action: &str| {
            format!("on.http = [{{ method = \"POST\", path = \"{path}\", action = \"{action}\" }}]")
        };
        assert!(parse(&route("/a", "message.send")).is_ok());
        let calls = |name: &str| format!("on.call = [\"profile\"]\n[grants]\ncalls = [\"{name}\"]");
        assert_eq!(parse(&calls("directory")).unwrap().grants.calls, ["directory"]);
        for (on, complaint) in [
            (hooks(limits::HOOKS_PER_HANDLER_MAX + 1), "at most 64 actions"),
            (r#"on.before = [{ type = "Send" }]"#.to_owned(), "`Send` is not an action"),
            (r#"on.before = [{ type = "a" }, { type = "a", order = 1 }]"#.to_owned(), "`a` twice"),
            (r#"on.before = [{ type = "a", on_failure = "ajar" }]"#.to_owned(), "ajar"),
            (route("/a", "message send"), "`message send` of `/a`"),
            (route("/admin/v1/a", "a"), "is for operators"),
            (r#"on.call = ["Profile"]"#.to_owned(), "`Profile` is not a method"),
            (calls("Directory"), "`grants.calls` names `Directory`"),
        ] {
            let refusal = parse(&on).unwrap_err();
            assert!(refusal.contains(complaint), "{refusal}");
        }
    }
}
