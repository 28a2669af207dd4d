//! Conceals values that a recording or a log line may not contain: secrets, and every setting that the
//! manifest does not list as public. Each value is found as it is and in simple encodings ([`forms`]). A
//! placeholder that names the value and its form replaces it, so that a replay can insert the value of its
//! own release. A text that only looks like a placeholder, because a client typed it for instance, is escaped
//! in a recording ([`placeholders`]), so that no replay inserts a value there.
//!
//! It does not find a text that a handler derives in another way: a hash, a part, a cipher text.

mod forms;
mod placeholders;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, Match, MatchKind};
use serde_json::{Value, json};

use super::{Outcome, Recording};
use switchboard_core::limits::SECRET_BYTES_MIN;
use switchboard_core::manifest::{PLACEHOLDER_PREFIX, placeholder, secret_placeholder};

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

/// Where a text comes from, which decides what a placeholder in it means.
#[derive(Clone, Copy, PartialEq)]
enum Origin {
    /// From a recording or a log line: its placeholders stand for values.
    Kept,
    /// From a client, a guest or a service: what looks like a placeholder is their text.
    Raw,
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

    /// Returns the text with every value concealed. Placeholders in it stay as they are.
    pub fn conceal_text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.concealed(text, Origin::Kept)
    }

    fn concealed<'a>(&self, text: &'a str, origin: Origin) -> Cow<'a, str> {
        let concealed = self.conceal_own(text, origin);
        let Some(callers) = &self.1 else { return concealed };
        let further = match callers.conceal_text(&concealed) {
            Cow::Owned(further) => Some(further),
            Cow::Borrowed(_) => None,
        };
        further.map_or(concealed, Cow::Owned)
    }

    fn conceal_own<'a>(&self, text: &'a str, origin: Origin) -> Cow<'a, str> {
        let (mut concealed, mut copied, mut at) = (String::new(), 0, 0);
        let copy = |to: &mut String, part: &str| match origin {
            Origin::Kept => to.push_str(part),
            Origin::Raw => placeholders::push_escaped(to, part),
        };
        while let Some(found) = self.0.beginning_from(text, at) {
            let begin = found.start();
            let Some(form) = self.0.form_at(found.pattern().as_usize(), &text[begin..]) else {
                at = begin + 1;
                continue;
            };
            let end = begin + form.text.len();
            // A value may be a part of a placeholder's own text.
            if origin == Origin::Kept
                && let Some(around) = self.0.placeholder_around(text, begin..end)
            {
                at = around.end;
                continue;
            }
            copy(&mut concealed, &text[copied..begin]);
            concealed.push_str(&form.placeholder);
            (copied, at) = (end, end);
        }
        if copied == 0 && (origin == Origin::Kept || !placeholders::needs_escape(text)) {
            return Cow::Borrowed(text);
        }
        copy(&mut concealed, &text[copied..]);
        Cow::Owned(concealed)
    }

    /// Conceals every text in a JSON value, at any depth. Placeholders in it stay as they are.
    pub fn conceal(&self, value: &mut Value) {
        if !self.is_empty() {
            self.conceal_as(value, Origin::Kept);
        }
    }

    /// The same for a value that no recording has contained yet. It escapes what looks like a placeholder,
    /// because there is none in it. This happens without secrets too: the release that replays the call may
    /// have some.
    pub fn conceal_raw(&self, value: &mut Value) {
        self.conceal_as(value, Origin::Raw);
    }

    fn conceal_as(&self, value: &mut Value, origin: Origin) {
        each_text(value, &mut |text| {
            if let Cow::Owned(concealed) = self.concealed(text, origin) {
                *text = concealed;
            }
        });
    }

    /// Conceals input, host calls and outcome of a recording that may have placeholders. The answers of
    /// `config.get` and `secrets.get` are concealed whatever their length. A second run changes nothing.
    pub fn conceal_recording(&self, recording: &mut Recording) {
        self.conceal_recording_as(recording, Origin::Kept);
    }

    /// The same for a recording that was just made, and must not run twice. Input and host calls have no
    /// placeholders yet. The outcome may have some: the host conceals reasons before it cuts them. No replay
    /// inserts values into an outcome.
    pub fn conceal_new_recording(&self, recording: &mut Recording) {
        self.conceal_recording_as(recording, Origin::Raw);
    }

    fn conceal_recording_as(&self, recording: &mut Recording, origin: Origin) {
        self.conceal_as(&mut recording.input, origin);
        for exchange in &mut recording.exchanges {
            match (setting_of(exchange), secret_of(exchange), &mut exchange.answer) {
                (Some(key), _, Some(answer @ Value::String(_))) if !self.0.public.contains(&key) => {
                    *answer = Value::String(placeholder(&key));
                }
                (_, Some(name), Some(answer)) if answer.get("Ok").is_some() => {
                    *answer = json!({ "Ok": secret_placeholder(&name) });
                }
                (_, _, Some(answer)) => self.conceal_as(answer, origin),
                (_, _, None) => {}
            }
            self.conceal_as(&mut exchange.args, origin);
        }
        match &mut recording.outcome {
            Outcome::Returned(value) => self.conceal(value),
            Outcome::Failed { detail, .. } => *detail = self.conceal_text(detail).into_owned(),
            Outcome::Unknown => {}
        }
    }

    /// Makes the texts of a recorded value as they were: replaces placeholders with the values of this
    /// release, in the form that each placeholder names, and removes the escapes. A placeholder of a value
    /// that this release does not have stays. A second run could take a client's text for a placeholder.
    pub fn reveal(&self, value: &mut Value) {
        each_text(value, &mut |text| self.reveal_text(text, true));
    }

    /// Replaces placeholders and leaves the escapes, so that the value can be revealed again, with the values
    /// of another release.
    pub fn reveal_values(&self, value: &mut Value) {
        each_text(value, &mut |text| self.reveal_text(text, false));
    }

    fn reveal_text(&self, text: &mut String, unescapes: bool) {
        let (mut revealed, mut copied, mut at) = (String::new(), 0, 0);
        while let Some(found) = text[at..].find('[') {
            let begin = at + found;
            at = begin + 1;
            if unescapes && placeholders::is_escaped(&text[at..]) {
                revealed.push_str(&text[copied..at]);
                (copied, at) = (at + placeholders::ESCAPE.len(), at + placeholders::ESCAPE.len());
            } else if let Some(length) = placeholders::length(&text[begin..], self.0.placeholder_bytes_max)
                && let Some(value) = self.0.revealed.get(&text[begin..begin + length])
            {
                revealed.push_str(&text[copied..begin]);
                revealed.push_str(value);
                (copied, at) = (begin + length, begin + length);
            }
        }
        if copied > 0 {
            revealed.push_str(&text[copied..]);
            *text = revealed;
        }
    }
}

impl Inner {
    fn add(&mut self, value: &[u8], placeholder_of: impl Fn(&str) -> String) {
        for form in forms::forms(value) {
            let (text, placeholder) = (form.text.into(), placeholder_of(&form.label).into());
            let form = Concealed { text, placeholder };
            self.revealed.insert(form.placeholder.clone(), form.text.clone());
            self.forms.push(form);
        }
    }

    fn build(&mut self) {
        self.placeholder_bytes_max = self.revealed.keys().map(|known| known.len()).max().unwrap_or(0);
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

    /// The first beginning of a form at `at` or behind it.
    fn beginning_from(&self, text: &str, at: usize) -> Option<Match> {
        self.beginnings.as_ref()?.find(Input::new(text).span(at..text.len()))
    }

    /// The longest form with which `text` begins.
    fn form_at(&self, beginning: usize, text: &str) -> Option<&Concealed> {
        let mut forms = self.candidates[beginning].iter().map(|&form| &self.forms[form]);
        forms.find(|form| text.starts_with(&*form.text))
    }

    /// The known placeholder of which this range of the text is a part. It looks only as far as a placeholder
    /// is long: a text may consist of thousands of values.
    fn placeholder_around(&self, text: &str, range: Range<usize>) -> Option<Range<usize>> {
        let most = self.placeholder_bytes_max;
        let first = range.start.saturating_sub(most);
        let begins = (first..=range.start).filter(|&at| text.as_bytes().get(at) == Some(&b'['));
        let spans = begins.filter_map(|at| Some(at..at + placeholders::length(&text[at..], most)?));
        let mut around = spans.filter(|span| span.end >= range.end);
        // A value may also contain a placeholder; then it is concealed.
        around.find(|span| self.revealed.contains_key(&text[span.clone()]))
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
mod tests;
