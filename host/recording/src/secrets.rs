//! Conceals settings that may be secrets: every setting that the manifest does not list as public. Each value
//! is replaced by a placeholder that names the setting, so that a replay can insert the value of its own
//! release.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Outcome, Recording};
use switchboard_core::limits::SECRET_BYTES_MIN;
use switchboard_core::manifest::{PLACEHOLDER_PREFIX, placeholder};

/// The values to conceal. It is cheap to use when there are none.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Inner>);

#[derive(Default)]
struct Inner {
    public: Vec<String>,
    /// Pairs of value and placeholder, the longest value first, because one value may contain another.
    values: Vec<(String, String)>,
}

impl Secrets {
    /// Takes the values of those `settings` whose keys are not in `public`. The list names at most
    /// [`switchboard_core::limits::PUBLIC_SETTINGS_MAX`] keys.
    pub fn new(settings: &BTreeMap<String, String>, public: &[String]) -> Self {
        let secret =
            settings.iter().filter(|(key, value)| !public.contains(key) && value.len() >= SECRET_BYTES_MIN);
        let forms = secret.flat_map(|(key, value)| {
            let escaped = escaped(value).map(|escaped| (escaped, placeholder_of_escaped(key)));
            [Some((value.clone(), placeholder(key))), escaped]
        });
        let mut values: Vec<_> = forms.flatten().collect();
        values.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
        Self(Arc::new(Inner { public: public.to_vec(), values }))
    }

    /// Returns the text with every value concealed.
    pub fn conceal_text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut concealed = Cow::Borrowed(text);
        for (value, placeholder) in &self.0.values {
            if concealed.contains(value.as_str()) {
                concealed = Cow::Owned(concealed.replace(value.as_str(), placeholder));
            }
        }
        concealed
    }

    /// Conceals every text in a JSON value, at any depth.
    pub fn conceal(&self, value: &mut Value) {
        if !self.0.values.is_empty() {
            each_text(value, &mut |text| {
                if let Cow::Owned(concealed) = self.conceal_text(text) {
                    *text = concealed;
                }
            });
        }
    }

    /// Conceals input, host calls and outcome. The answer of `config.get` is concealed whatever its length. A
    /// second run changes nothing.
    pub fn conceal_recording(&self, recording: &mut Recording) {
        self.conceal(&mut recording.input);
        for exchange in &mut recording.exchanges {
            if let (Some(key), Some(answer @ Value::String(_))) = (setting_of(exchange), &mut exchange.answer)
                && !self.0.public.contains(&key)
            {
                *answer = Value::String(placeholder(&key));
            }
            self.conceal(&mut exchange.args);
            exchange.answer.iter_mut().for_each(|answer| self.conceal(answer));
        }
        match &mut recording.outcome {
            Outcome::Returned(value) => self.conceal(value),
            Outcome::Failed { detail, .. } => *detail = self.conceal_text(detail).into_owned(),
            Outcome::Unknown => {}
        }
    }
}

/// Replaces placeholders with the values of `settings`.
pub fn reveal(settings: &BTreeMap<String, String>, value: &mut Value) {
    each_text(value, &mut |text| {
        if !text.contains(PLACEHOLDER_PREFIX) {
            return;
        }
        for (key, value) in settings {
            let placeholder = placeholder(key);
            if text.contains(&placeholder) {
                *text = text.replace(&placeholder, value);
            }
            let placeholder = placeholder_of_escaped(key);
            if text.contains(&placeholder) {
                *text = text.replace(&placeholder, escaped(value).as_ref().unwrap_or(value));
            }
        }
    });
}

/// The value as it is inside a JSON text, if that differs: a key in PEM form has line breaks. Rust escapes
/// such a text nearly in the same way when it is printed for debugging.
fn escaped(value: &str) -> Option<String> {
    let quoted = Value::String(value.to_owned()).to_string();
    let escaped = &quoted[1..quoted.len() - 1];
    (escaped != value).then(|| escaped.to_owned())
}

/// The placeholder for [`escaped`].
fn placeholder_of_escaped(key: &str) -> String {
    placeholder(&format!("{key} escaped"))
}

/// True when a recorded answer of `config.get` is a placeholder.
pub fn is_concealed(answer: &Value) -> bool {
    answer.as_str().is_some_and(|text| text.starts_with(PLACEHOLDER_PREFIX) && text.ends_with(']'))
}

/// Returns the key when the host call is `config.get`.
fn setting_of(exchange: &super::Exchange) -> Option<String> {
    (exchange.function == "config.get")
        .then(|| exchange.args.get("key")?.as_str().map(str::to_owned))
        .flatten()
}

fn each_text(value: &mut Value, change: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => change(text),
        Value::Array(elements) => elements.iter_mut().for_each(|element| each_text(element, change)),
        Value::Object(members) => members.values_mut().for_each(|member| each_text(member, change)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Exchange;

    fn settings() -> BTreeMap<String, String> {
        [("key", "s3cret-key"), ("longer", "s3cret-key-and-more"), ("most", "25"), ("pin", "4711")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    fn exchange(function: &str, args: Value, answer: Value) -> Exchange {
        Exchange { function: function.into(), unordered: false, args, answer: Some(answer), micros: 0 }
    }

    #[test]
    fn values_are_concealed_everywhere_and_come_back_in_a_replay() {
        let secrets = Secrets::new(&settings(), &["most".to_owned()]);
        let recording = Recording {
            handler: "hook".to_owned(),
            release: None,
            call: "c1".to_owned(),
            trigger: "http".to_owned(),
            scenario: None,
            input: json!({ "headers": [["x-key", "s3cret-key"]] }),
            exchanges: vec![
                exchange("config.get", json!({ "key": "most" }), json!("25")),
                exchange("config.get", json!({ "key": "pin" }), json!("4711")),
                exchange("config.get", json!({ "key": "nothing" }), json!(null)),
                exchange("log.log", json!({ "message": "it is s3cret-key-and-more 4711" }), json!(null)),
            ],
            left_out: 0,
            outcome: Outcome::Failed { kind: "trap".to_owned(), detail: "bad s3cret-key".to_owned() },
        };
        let mut concealed = recording.clone();
        secrets.conceal_recording(&mut concealed);
        let mut twice = concealed.clone();
        secrets.conceal_recording(&mut twice);
        assert_eq!(concealed, twice);
        let shown = format!("{concealed:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
        assert_eq!(concealed.exchanges[0].answer, Some(json!("25")), "it is public");
        assert_eq!(concealed.exchanges[1].answer, Some(json!("[setting pin]")));
        assert_eq!(concealed.exchanges[2].answer, Some(json!(null)));
        assert_eq!(concealed.exchanges[3].args["message"], "it is [setting longer] 4711");

        let mut input = concealed.input;
        reveal(&settings(), &mut input);
        assert_eq!(input, recording.input);
    }

    #[test]
    fn a_value_inside_a_json_text_is_concealed_in_its_escaped_form() {
        let pem = "-----BEGIN KEY-----\nMIIB\"x\\\n";
        let settings: BTreeMap<_, _> = [("pem".to_owned(), pem.to_owned())].into();
        let secrets = Secrets::new(&settings, &[]);
        for text in [json!({ "key": pem }).to_string(), format!("no use: {pem:?}")] {
            let mut concealed = json!({ "body": text });
            secrets.conceal(&mut concealed);
            let shown = concealed.to_string();
            assert!(!shown.contains("BEGIN") && shown.contains("[setting pem escaped]"), "{shown}");
            reveal(&settings, &mut concealed);
            assert_eq!(concealed, json!({ "body": text }));
        }
        assert_eq!(secrets.conceal_text(pem), "[setting pem]");
    }
}
