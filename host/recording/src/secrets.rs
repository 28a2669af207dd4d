//! Conceals values that a recording or a log line may not contain: secrets, and every setting that the
//! manifest does not list as public. Each value is found as it is and in simple encodings ([`forms`]). A
//! placeholder that names the value and its form replaces it, so that a replay can insert the value of its
//! own release.
//!
//! It does not find a text that a handler derives in another way: a hash, a part, a cipher text.

mod forms;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};
use serde_json::{Value, json};

use super::{Outcome, Recording};
use switchboard_core::limits::SECRET_BYTES_MIN;
use switchboard_core::manifest::{
    PLACEHOLDER_PREFIX, SECRET_PLACEHOLDER_PREFIX, placeholder, secret_placeholder,
};

/// The host function that answers a setting.
const CONFIG_GET: &str = "config.get";
/// The host function that answers a secret.
const SECRETS_GET: &str = "secrets.get";
/// The automaton looks for this many bytes at the begin of each form; the rest is compared. So its size does
/// not depend on the length of the values.
const BEGINNING_BYTES: usize = 16;

/// The values to conceal. It is cheap to clone, and cheap to use when there are none. The second part has the
/// values of the handlers that called this one.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Inner>, Option<Arc<Secrets>>);

#[derive(Default)]
struct Inner {
    public: Vec<String>,
    /// The forms of all values.
    forms: Vec<Concealed>,
    /// Finds the leftmost longest beginning of a form. None without forms.
    beginnings: Option<AhoCorasick>,
    /// For each beginning, the forms that a text with it may contain at this place, the longest first.
    candidates: Vec<Vec<usize>>,
    /// The text of each placeholder.
    revealed: BTreeMap<Arc<str>, Arc<str>>,
    /// The length of the longest placeholder.
    placeholder_bytes_max: usize,
}

struct Concealed {
    text: Arc<str>,
    placeholder: Arc<str>,
}

impl Secrets {
    /// Takes the `secrets`, and the values of those `settings` whose keys are not in `public`. The list names
    /// at most [`switchboard_core::limits::PUBLIC_SETTINGS_MAX`] keys.
    pub fn new(
        settings: &BTreeMap<String, String>,
        public: &[String],
        secrets: &BTreeMap<String, Vec<u8>>,
    ) -> Self {
        let mut inner = Inner { public: public.to_vec(), ..Inner::default() };
        // Of two values that are equal, the secret gives the name.
        for (name, value) in secrets {
            inner.add(value, |form| match form {
                "" => secret_placeholder(name),
                form => secret_placeholder(&format!("{name} {form}")),
            });
        }
        for (key, value) in settings.iter().filter(|(key, _)| !public.contains(key)) {
            inner.add(value.as_bytes(), |form| match form {
                "" => placeholder(key),
                form => placeholder(&format!("{key} {form}")),
            });
        }
        // Recordings may have placeholders for settings that are too short, or public in this release.
        for (key, value) in settings {
            inner.revealed.entry(placeholder(key).into()).or_insert_with(|| value.as_str().into());
        }
        inner.build();
        Self(Arc::new(inner), None)
    }

    /// Conceals the values of callers too. A replay does not insert them, because it has only its own values.
    pub fn with(&self, callers: &Self) -> Self {
        let callers = self.1.as_ref().map_or_else(|| callers.clone(), |others| others.with(callers));
        Self(self.0.clone(), Some(Arc::new(callers)))
    }

    /// Whether there is nothing to conceal.
    pub fn is_empty(&self) -> bool {
        self.0.beginnings.is_none() && self.1.as_ref().is_none_or(|callers| callers.is_empty())
    }

    /// Returns the text with every value concealed.
    pub fn conceal_text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let concealed = self.conceal_own(text);
        let Some(callers) = &self.1 else { return concealed };
        let further = match callers.conceal_text(&concealed) {
            Cow::Owned(further) => Some(further),
            Cow::Borrowed(_) => None,
        };
        further.map_or(concealed, Cow::Owned)
    }

    fn conceal_own<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let Some(beginnings) = &self.0.beginnings else { return Cow::Borrowed(text) };
        let (mut concealed, mut copied, mut at) = (String::new(), 0, 0);
        while let Some(found) = beginnings.find(Input::new(text).span(at..text.len())) {
            let begin = found.start();
            let Some(form) = self.0.form_at(found.pattern().as_usize(), &text[begin..]) else {
                at = begin + 1;
                continue;
            };
            let end = begin + form.text.len();
            // A value may be a part of a placeholder's own text.
            if let Some(around) = self.0.placeholder_around(text, begin..end) {
                at = around.end;
                continue;
            }
            concealed.push_str(&text[copied..begin]);
            concealed.push_str(&form.placeholder);
            (copied, at) = (end, end);
        }
        if copied == 0 {
            return Cow::Borrowed(text);
        }
        concealed.push_str(&text[copied..]);
        Cow::Owned(concealed)
    }

    /// Conceals every text in a JSON value, at any depth.
    pub fn conceal(&self, value: &mut Value) {
        if !self.is_empty() {
            each_text(value, &mut |text| {
                if let Cow::Owned(concealed) = self.conceal_text(text) {
                    *text = concealed;
                }
            });
        }
    }

    /// Conceals input, host calls and outcome. The answers of `config.get` and `secrets.get` are concealed
    /// whatever their length. A second run changes nothing.
    pub fn conceal_recording(&self, recording: &mut Recording) {
        self.conceal(&mut recording.input);
        for exchange in &mut recording.exchanges {
            match (setting_of(exchange), secret_of(exchange), &mut exchange.answer) {
                (Some(key), _, Some(answer @ Value::String(_))) if !self.0.public.contains(&key) => {
                    *answer = Value::String(placeholder(&key));
                }
                (_, Some(name), Some(answer)) if answer.get("Ok").is_some() => {
                    *answer = json!({ "Ok": secret_placeholder(&name) });
                }
                _ => {}
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

    /// Replaces placeholders with the values, in the form that each placeholder names. A placeholder of a
    /// value that this release does not have stays.
    pub fn reveal(&self, value: &mut Value) {
        each_text(value, &mut |text| {
            let (mut revealed, mut copied) = (String::new(), 0);
            let mut at = 0;
            while let Some(Range { start, end }) = placeholder_from(text, at) {
                at = start + 1;
                if let Some(value) = self.0.revealed.get(&text[start..end]) {
                    revealed.push_str(&text[copied..start]);
                    revealed.push_str(value);
                    (copied, at) = (end, end);
                }
            }
            if copied > 0 {
                revealed.push_str(&text[copied..]);
                *text = revealed;
            }
        });
    }
}

impl Inner {
    fn add(&mut self, value: &[u8], placeholder_of: impl Fn(&str) -> String) {
        for form in forms::forms(value) {
            let (text, placeholder) = (form.text.into(), placeholder_of(&form.label).into());
            let form = Concealed { text, placeholder };
            self.placeholder_bytes_max = self.placeholder_bytes_max.max(form.placeholder.len());
            self.revealed.insert(form.placeholder.clone(), form.text.clone());
            self.forms.push(form);
        }
    }

    fn build(&mut self) {
        if self.forms.is_empty() {
            return;
        }
        let beginning = |form: &Concealed| {
            let bytes = form.text.as_bytes();
            bytes[..bytes.len().min(BEGINNING_BYTES)].to_vec()
        };
        let mut of_beginning: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
        for (at, form) in self.forms.iter().enumerate() {
            of_beginning.entry(beginning(form)).or_default().push(at);
        }
        // The search reports only the longest beginning at a place. Forms with a shorter one may match too.
        let shorter = |beginning: &[u8]| {
            let lengths = SECRET_BYTES_MIN..beginning.len();
            let known = lengths.filter_map(|length| of_beginning.get(&beginning[..length]));
            known.flatten().copied().collect::<Vec<_>>()
        };
        self.candidates = of_beginning
            .iter()
            .map(|(beginning, forms)| {
                let mut candidates = [forms.clone(), shorter(beginning)].concat();
                // Stable: of two equal texts, the first one gives the name.
                candidates.sort_by_key(|&at| std::cmp::Reverse(self.forms[at].text.len()));
                candidates
            })
            .collect();
        // Not a DFA, which needs a hundred times the memory.
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(of_beginning.keys());
        // It fails only with more than two thousand million states; the bounds of settings and secrets allow
        // a few million.
        self.beginnings = Some(automaton.expect("few values, and a few bytes of each"));
    }

    /// The longest form with which `text` begins.
    fn form_at(&self, beginning: usize, text: &str) -> Option<&Concealed> {
        let mut forms = self.candidates[beginning].iter().map(|&form| &self.forms[form]);
        forms.find(|form| text.starts_with(&*form.text))
    }

    /// The known placeholder of which this range of the text is a part.
    fn placeholder_around(&self, text: &str, range: Range<usize>) -> Option<Range<usize>> {
        let mut at = text.floor_char_boundary(range.start.saturating_sub(self.placeholder_bytes_max));
        while let Some(span) = placeholder_from(text, at).filter(|span| span.start <= range.start) {
            // A value may also contain a placeholder; then it is concealed.
            if span.end >= range.end && self.revealed.contains_key(&text[span.clone()]) {
                return Some(span);
            }
            at = span.start + 1;
        }
        None
    }
}

/// The first text at `at` or behind it that looks like a placeholder. The begin of one without an end does
/// not.
fn placeholder_from(text: &str, mut at: usize) -> Option<Range<usize>> {
    loop {
        let begin = at + text[at..].find('[')?;
        let rest = &text[begin..];
        let is_one = rest.starts_with(PLACEHOLDER_PREFIX) || rest.starts_with(SECRET_PLACEHOLDER_PREFIX);
        match rest.find(']') {
            Some(end) if is_one => return Some(begin..begin + end + 1),
            _ => at = begin + 1,
        }
    }
}

/// True when a recorded answer of `config.get` is a placeholder.
pub fn is_concealed(answer: &Value) -> bool {
    answer.as_str().is_some_and(|text| text.starts_with(PLACEHOLDER_PREFIX) && text.ends_with(']'))
}

/// Returns the key when the host call is `config.get`.
fn setting_of(exchange: &super::Exchange) -> Option<String> {
    argument_of(exchange, CONFIG_GET, "key")
}

/// Returns the name when the host call is `secrets.get`.
fn secret_of(exchange: &super::Exchange) -> Option<String> {
    argument_of(exchange, SECRETS_GET, "name")
}

fn argument_of(exchange: &super::Exchange, function: &str, argument: &str) -> Option<String> {
    (exchange.function == function)
        .then(|| exchange.args.get(argument)?.as_str().map(str::to_owned))
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
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::Exchange;

    fn settings() -> BTreeMap<String, String> {
        [("key", "s3cret-key"), ("longer", "s3cret-key-and-more"), ("most", "25"), ("pin", "4711")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    fn of_settings(settings: &BTreeMap<String, String>, public: &[&str]) -> Secrets {
        let public: Vec<String> = public.iter().map(|key| (*key).to_owned()).collect();
        Secrets::new(settings, &public, &BTreeMap::new())
    }

    fn of_secret(value: &[u8]) -> Secrets {
        let secrets = [("KEY".to_owned(), value.to_vec())].into();
        Secrets::new(&BTreeMap::new(), &[], &secrets)
    }

    fn exchange(function: &str, args: Value, answer: Value) -> Exchange {
        Exchange { function: function.into(), unordered: false, args, answer: Some(answer), micros: 0 }
    }

    #[test]
    fn values_are_concealed_everywhere_and_come_back_in_a_replay() {
        let secrets = [("TOKEN".to_owned(), b"t0ken\x00\xff\x01of it".to_vec())].into();
        let secrets = Secrets::new(&settings(), &["most".to_owned()], &secrets);
        let value: Vec<u8> = b"t0ken\x00\xff\x01of it".to_vec();
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
                exchange("secrets.get", json!({ "name": "TOKEN" }), json!({ "Ok": value })),
                exchange("secrets.get", json!({ "name": "OTHER" }), json!({ "Ok": [1, 2] })),
                exchange("secrets.get", json!({ "name": "NONE" }), json!({ "Err": "Missing" })),
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
        assert!(!shown.contains("s3cret") && !shown.contains("116"), "{shown}");
        assert_eq!(concealed.exchanges[0].answer, Some(json!("25")), "it is public");
        assert_eq!(concealed.exchanges[1].answer, Some(json!("[setting pin]")));
        assert_eq!(concealed.exchanges[2].answer, Some(json!(null)));
        assert_eq!(concealed.exchanges[3].args["message"], "it is [setting longer] 4711");
        assert_eq!(concealed.exchanges[4].answer, Some(json!({ "Ok": "[secret TOKEN]" })));
        // The release of a node may have lost the grant meanwhile; the answer is no text that could be found.
        assert_eq!(concealed.exchanges[5].answer, Some(json!({ "Ok": "[secret OTHER]" })));
        assert_eq!(concealed.exchanges[6].answer, Some(json!({ "Err": "Missing" })));

        let mut input = concealed.input;
        secrets.reveal(&mut input);
        assert_eq!(input, recording.input);
    }

    #[test]
    fn the_values_of_callers_are_concealed_and_not_revealed() {
        let (first, second) = (of_secret(b"first-s3cret"), of_secret(b"second-s3cret"));
        let own = of_settings(&settings(), &[]);
        let all = own.with(&second.with(&first));
        let text = "first-s3cret, second-s3cret, s3cret-key";
        assert_eq!(all.conceal_text(text), "[secret KEY], [secret KEY], [setting key]");
        assert_eq!(own.conceal_text(text), "first-s3cret, second-s3cret, [setting key]");
        let mut shown = json!("[secret KEY], [setting key]");
        all.reveal(&mut shown);
        assert_eq!(shown, "[secret KEY], s3cret-key");
        // A handler without values of its own conceals those of its callers.
        let none = Secrets::default();
        assert!(none.is_empty() && none.with(&none).is_empty() && !none.with(&first).is_empty());
        let mut input = json!({ "body": { "text": text } });
        none.with(&first).conceal(&mut input);
        assert_eq!(input["body"]["text"], "[secret KEY], second-s3cret, s3cret-key");
    }

    #[test]
    fn a_value_inside_a_json_text_is_concealed_in_its_escaped_form() {
        let pem = "-----BEGIN KEY-----\nMIIB\"x\\\n";
        let settings: BTreeMap<_, _> = [("pem".to_owned(), pem.to_owned())].into();
        let secrets = of_settings(&settings, &[]);
        for text in [json!({ "key": pem }).to_string(), format!("no use: {pem:?}")] {
            let mut concealed = json!({ "body": text });
            secrets.conceal(&mut concealed);
            let shown = concealed.to_string();
            assert!(!shown.contains("BEGIN") && shown.contains("[setting pem escaped]"), "{shown}");
            secrets.reveal(&mut concealed);
            assert_eq!(concealed, json!({ "body": text }));
        }
        assert_eq!(secrets.conceal_text(pem), "[setting pem]");
    }

    #[test]
    fn a_setting_in_base64_is_concealed_too() {
        let secrets = of_settings(&settings(), &[]);
        // `printf %s ana:s3cret-key | base64`
        let shown = secrets.conceal_text("authorization: Basic YW5hOnMzY3JldC1rZXk=");
        assert_eq!(shown, "authorization: Basic YW5hOn[setting key base64 1]k=");
    }

    #[test]
    fn a_value_that_is_a_part_of_a_placeholder_is_left_there_and_concealed_elsewhere() {
        let secrets = of_secret(b"secret KEY");
        let once = secrets.conceal_text("the secret KEY!").into_owned();
        assert_eq!(once, "the [secret KEY]!");
        assert_eq!(secrets.conceal_text(&once), once);
        assert_eq!(secrets.conceal_text("[secret KEY] secret KEY]"), "[secret KEY] [secret KEY]]");
    }

    #[test]
    fn of_values_that_begin_alike_the_longest_is_taken() {
        let secrets: BTreeMap<_, _> =
            [("A", "the same beginning, A"), ("B", "the same beginning"), ("C", "the same")]
                .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
                .into();
        let secrets = Secrets::new(&BTreeMap::new(), &[], &secrets);
        let text = "the same beginning, A; the same beginning, B; the same begin";
        assert_eq!(secrets.conceal_text(text), "[secret A]; [secret B], B; [secret C] begin");
    }

    #[test]
    fn an_unfinished_placeholder_is_text() {
        let secrets = of_secret(b"s3cret-key");
        for text in ["[secret ", "[setting [secret", "]", "[[secret KEY", "ü[secret X]"] {
            let mut value = json!(text);
            secrets.reveal(&mut value);
            assert_eq!(value, text);
            assert_eq!(secrets.conceal_text(text), text);
        }
    }

    #[test]
    fn a_long_text_of_one_byte_takes_a_moment() {
        // Every place of the text begins like the value, and none contains it.
        let value = [vec![b'a'; 4096], vec![b'b']].concat();
        let secrets = of_secret(&value);
        let text = "a".repeat(64 * 1024);
        assert_eq!(secrets.conceal_text(&text), text);
    }

    /// Bytes of all kinds, also those that encodings treat specially.
    fn values() -> impl Strategy<Value = Vec<u8>> {
        let odd = prop::sample::select(b"\0\n\r\t \"'\\%+/=&<>[]{}$`\x7f\x80\xc3\xa4\xff".to_vec());
        let byte = prop_oneof![odd, any::<u8>(), prop::char::range('0', 'z').prop_map(|c| c as u8)];
        prop::collection::vec(byte, SECRET_BYTES_MIN..48)
    }

    /// Text around a value. It has no brackets: a begin of a placeholder in it would be ambiguous.
    fn around() -> impl Strategy<Value = String> {
        "[^\\[\\]]{0,12}"
    }

    proptest! {
        #[test]
        fn no_form_of_a_secret_survives(value in values(), before in around(), after in around()) {
            let secrets = of_secret(&value);
            for form in forms::forms(&value) {
                let text = format!("{before}{}{after}", form.text);
                let concealed = secrets.conceal_text(&text).into_owned();
                prop_assert!(!concealed.contains(&form.text), "{}: {concealed}", form.label);
                prop_assert_eq!(secrets.conceal_text(&concealed), concealed.as_str());
                // The value itself may contain brackets, and so the text of a placeholder.
                if !form.text.contains('[') {
                    let mut revealed = json!(concealed);
                    secrets.reveal(&mut revealed);
                    prop_assert_eq!(revealed, json!(text), "{}", form.label);
                }
            }
        }

        #[test]
        fn what_a_handler_writes_is_concealed(value in values(), user in "[a-z]{1,9}") {
            let secrets = of_secret(&value);
            let text = String::from_utf8_lossy(&value).into_owned();
            let whole = [user.as_bytes(), b":", &value].concat();
            let core = |alignment| {
                let label = format!("base64 {alignment}");
                forms::forms(&value).into_iter().find(|form| form.label == label).map(|form| form.text)
            };
            let basic = base64_of(&whole);
            let written = [
                json!({ "a": { "b": text } }).to_string(),
                format!("{text:?}"),
                format!("{value:?}"),
                whole.iter().map(|byte| format!("{byte:02x}")).collect(),
                text.bytes().map(|byte| format!("{byte:02x}")).collect(),
                whole.iter().map(|byte| format!("%{byte:02X}")).collect::<String>() + "&" + &text,
                basic.clone(),
            ];
            for written in written {
                prop_assert!(secrets.conceal_text(&written).contains("[secret KEY"), "{written}");
            }
            if text.trim().len() >= SECRET_BYTES_MIN {
                let trimmed = base64_of(text.trim().as_bytes());
                prop_assert!(secrets.conceal_text(&trimmed).contains("[secret KEY"), "{trimmed}");
            }
            if let Some(core) = core((user.len() + 1) % 3) {
                prop_assert!(!secrets.conceal_text(&basic).contains(&core));
            }
        }
    }

    /// An encoder that is not that of `forms`.
    fn base64_of(bytes: &[u8]) -> String {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let number = group.iter().fold(0_u32, |number, &byte| number << 8 | u32::from(byte))
                << (8 * (3 - group.len()));
            for place in 0..=group.len() {
                text.push(char::from(ALPHABET[(number >> (18 - 6 * place) & 63) as usize]));
            }
            text.push_str(&"=="[..3 - group.len()]);
        }
        text
    }
}
