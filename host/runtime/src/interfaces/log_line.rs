//! One log line of a handler, within its bounds and without secrets. Its fields become fields of the host's
//! log. The names of the fields begin with `field.`, so no handler can overwrite or imitate a field of the
//! host.

use serde_json::{Map, Value};

use switchboard_core::limits;
use switchboard_recording::Secrets;

#[derive(Debug, PartialEq)]
pub(super) struct LogLine {
    pub message: String,
    /// Names and values, in the order of the handler. Each name occurs once.
    fields: Vec<(String, String)>,
    /// The number of fields that were left out.
    pub fields_dropped: usize,
}

impl LogLine {
    /// Makes the line. At most [`limits::LOG_FIELDS_MAX`] fields and [`limits::LOG_LINE_BYTES_MAX`] bytes of
    /// message, names and values stay. A value that does not fit is cut. A field is left out if not even its
    /// name fits, or if another field has the same name.
    pub(super) fn new(secrets: &Secrets, message: &str, fields: &[(String, String)]) -> Self {
        let mut bytes_left = limits::LOG_LINE_BYTES_MAX;
        // Texts are concealed before they are cut, because a cut could leave a part of a secret.
        let message = take(&mut bytes_left, &secrets.conceal_text(message));
        let fields_dropped = fields.len().saturating_sub(limits::LOG_FIELDS_MAX);
        let mut line = Self { message, fields: Vec::new(), fields_dropped };
        for (name, value) in fields.iter().take(limits::LOG_FIELDS_MAX) {
            let name = field_name(&secrets.conceal_text(name));
            if name.len() > bytes_left || line.fields.iter().any(|(other, _)| *other == name) {
                line.fields_dropped += 1;
                continue;
            }
            bytes_left -= name.len();
            let value = take(&mut bytes_left, &secrets.conceal_text(value));
            line.fields.push((name, value));
        }
        line
    }

    /// Returns the fields as a JSON object. `None` without fields.
    pub(super) fn fields(&self) -> Option<Value> {
        let members = self.fields.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
        (!self.fields.is_empty()).then(|| Value::Object(members.collect::<Map<_, _>>()))
    }
}

/// Takes as much of a text as still fits.
fn take(bytes_left: &mut usize, text: &str) -> String {
    let taken = &text[..text.floor_char_boundary(*bytes_left)];
    *bytes_left -= taken.len();
    taken.to_owned()
}

fn field_name(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' };
    let name: String = name.chars().map(allowed).take(limits::LOG_FIELD_NAME_BYTES_MAX).collect();
    format!("field.{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str, fields: &[(&str, &str)]) -> LogLine {
        let secrets = [("KEY".to_owned(), b"s3cret-key".to_vec())].into();
        let secrets = Secrets::new(&Default::default(), &[], &secrets);
        let fields: Vec<_> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        LogLine::new(&secrets, message, &fields)
    }

    #[test]
    fn no_field_has_the_name_of_a_field_of_the_host() {
        let fields = [("message", "a"), ("handler.name", "b"), ("a b\n\"é", "c"), ("", "d")];
        assert_eq!(
            line("text", &fields).fields(),
            Some(serde_json::json!({
                "field.message": "a", "field.handler.name": "b", "field.a_b___": "c", "field.": "d",
            }))
        );
        assert_eq!(line("text", &[]).fields(), None);
    }

    #[test]
    fn ten_thousand_fields_become_a_few_and_a_count() {
        let names: Vec<_> = (0..10_000).map(|number| format!("f{number}")).collect();
        let fields: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
        let line = line("text", &fields);
        assert_eq!(line.fields.len(), limits::LOG_FIELDS_MAX);
        assert_eq!(line.fields_dropped, 10_000 - limits::LOG_FIELDS_MAX);
    }

    #[test]
    fn a_line_has_a_size_and_each_name_once() {
        let long = "é".repeat(limits::LOG_LINE_BYTES_MAX);
        let line = line("text", &[("a", "1"), ("a", "2"), ("b", &long), ("c", "3"), (&long, "4")]);
        let size = |(name, value): &(String, String)| name.len() + value.len();
        let bytes: usize = line.message.len() + line.fields.iter().map(size).sum::<usize>();
        assert!(bytes <= limits::LOG_LINE_BYTES_MAX && bytes > limits::LOG_LINE_BYTES_MAX - 4, "{bytes}");
        assert_eq!((line.fields.len(), line.fields_dropped), (2, 3));
        assert_eq!(line.fields[0], ("field.a".to_owned(), "1".to_owned()));
    }

    #[test]
    fn a_secret_is_concealed_before_a_cut() {
        let before = ".".repeat(limits::LOG_LINE_BYTES_MAX - 8);
        let line = line(&format!("{before}s3cret-key"), &[]);
        assert!(!line.message.contains("s3cret"), "{}", line.message);
        assert_eq!(line.message.len(), limits::LOG_LINE_BYTES_MAX);
    }
}
