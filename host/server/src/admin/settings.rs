//! The live settings of handlers: what they are, their changes, and a change. The values of settings that are
//! not public are in no answer.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::api::{parse_note, refused};
use super::fields::text;
use super::{Admin, AdminRequest};
use switchboard_contract::types::Problem;
use switchboard_core::limits;
use switchboard_http::answers::{self, Answer};
use switchboard_protocol::wire::problem::Code;
use switchboard_releases::{Origin, SettingsAction, SettingsRequest};
use switchboard_runtime::Load;

impl<L: Load> Admin<L> {
    pub(super) async fn settings(&self, handler: &str, request: &AdminRequest) -> Result<Answer, Problem> {
        let settings = self.rollout.deployer.settings(handler).await.map_err(refused)?;
        Ok(answers::json(200, &settings, &request.id))
    }

    pub(super) async fn settings_history(
        &self,
        handler: &str,
        request: &AdminRequest,
    ) -> Result<Answer, Problem> {
        let history = self.rollout.deployer.settings_history(handler).await.map_err(refused)?;
        Ok(request.json(&json!({ "handler": handler, "history": history })))
    }

    /// `{"set": {KEY: VALUE}, "unset": [KEY]}`, or `{"rollback": GENERATION}` or `{"rollback": "previous"}`;
    /// each with `note`, and with `generation` if the change depends on what the operator has seen.
    pub(super) async fn change_settings(
        &self,
        handler: &str,
        request: AdminRequest,
    ) -> Result<Answer, Problem> {
        let (id, by, detail) = (request.id.clone(), request.by.name.clone(), request.detail.clone());
        let fields = request.fields().await?;
        let note = text(&fields, "note")?.as_deref().map(parse_note).transpose()?;
        let asked = SettingsRequest { what: action(&fields)?, seen: generation(&fields)? };
        detail.set(describe(&asked.what));
        let origin = Origin::new(&by, note.as_deref());
        let outcome = self.rollout.deployer.change_settings(handler, asked, origin).await.map_err(refused)?;
        let changed: Vec<_> = outcome.changes.iter().map(|change| change.key.as_str()).collect();
        detail.set(format!("{} (generation {})", changed.join(" "), outcome.generation));
        Ok(answers::json(200, &outcome, &id))
    }
}

fn action(fields: &Map<String, Value>) -> Result<SettingsAction, Problem> {
    let is_given = |name: &str| fields.get(name).is_some_and(|value| !value.is_null());
    match (is_given("set") || is_given("unset"), is_given("rollback")) {
        (true, false) => {
            let (set, unset) = (set(fields)?, unset(fields)?);
            if let Some(both) = set.keys().find(|key| unset.contains(*key)) {
                let both = format!("`{both}` is in `set` and in `unset`: name it once");
                return Err(Code::Invalid.problem(both).field("unset"));
            }
            Ok(SettingsAction::Change { set, unset })
        }
        (false, true) => match &fields["rollback"] {
            Value::String(previous) if previous == "previous" => Ok(SettingsAction::Rollback(None)),
            Value::Number(number) if number.is_i64() => Ok(SettingsAction::Rollback(number.as_i64())),
            _ => {
                let rule = "`rollback` must be the generation of a change, or \"previous\"";
                Err(Code::Invalid.problem(rule).field("rollback"))
            }
        },
        (false, false) => {
            Err(Code::Invalid.problem("the body must have `set`, `unset` or `rollback`").field("set"))
        }
        (true, true) => Err(Code::Invalid
            .problem("`rollback` cannot be together with `set` or `unset`")
            .field("rollback")),
    }
}

/// The values to set. A number or a truth value stands for its text.
fn set(fields: &Map<String, Value>) -> Result<BTreeMap<String, String>, Problem> {
    let wrong = || {
        Code::Invalid.problem("`set` must be an object of texts, numbers or truth values by key").field("set")
    };
    let members = match fields.get("set") {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(members)) => members,
        Some(_) => return Err(wrong()),
    };
    let value = |(key, value): (&String, &Value)| {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => return Err(wrong()),
        };
        Ok((key.clone(), value))
    };
    members.iter().map(value).collect()
}

fn unset(fields: &Map<String, Value>) -> Result<BTreeSet<String>, Problem> {
    let wrong = || Code::Invalid.problem("`unset` must be a list of keys").field("unset");
    match fields.get("unset") {
        None | Some(Value::Null) => Ok(BTreeSet::new()),
        Some(keys) => serde_json::from_value(keys.clone()).map_err(|_| wrong()),
    }
}

fn generation(fields: &Map<String, Value>) -> Result<Option<i64>, Problem> {
    match fields.get("generation") {
        None | Some(Value::Null) => Ok(None),
        Some(number) => {
            let wrong = || Code::Invalid.problem("`generation` must be a whole number").field("generation");
            number.as_i64().map(Some).ok_or_else(wrong)
        }
    }
}

/// The keys, for the audit log. Never a value.
fn describe(action: &SettingsAction) -> String {
    match action {
        SettingsAction::Change { set, unset } => {
            let keys: Vec<_> = set.keys().chain(unset).map(String::as_str).collect();
            keys.join(" ").chars().take(limits::AUDIT_ACTION_CHARS_MAX).collect()
        }
        SettingsAction::Rollback(Some(generation)) => format!("rollback to generation {generation}"),
        SettingsAction::Rollback(None) => "rollback".to_owned(),
    }
}
