//! The settings that a manifest declares: `[config]` has the defaults, and `[settings.KEY]` may give a type
//! and bounds. A value is a text for the guest, whatever its type. It is checked wherever it comes from: the
//! manifest, an operator, the node's file or its environment.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Manifest;
use crate::error::Error;
use crate::limits;

/// The type and the bounds of a setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingRule {
    #[serde(rename = "type")]
    pub kind: SettingType,
    /// The least value of a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Bound>,
    /// The greatest value of a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Bound>,
    /// The only texts that are allowed. Empty: any text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub one_of: Vec<String>,
    /// The greatest number of characters of a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chars_max: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SettingType {
    Text,
    /// A whole number of 64 bits with a sign, in decimal digits.
    Integer,
    /// A finite number, as Rust reads an `f64`.
    Number,
    /// `true` or `false`.
    Boolean,
}

/// A bound of a number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Bound {
    Integer(i64),
    Number(f64),
}

impl Bound {
    fn number(self) -> f64 {
        match self {
            // Exact up to 2^53. Bounds of integers are compared as integers.
            Self::Integer(integer) => integer as f64,
            Self::Number(number) => number,
        }
    }

    fn integer(self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(integer),
            Self::Number(_) => None,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(integer) => integer.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl SettingRule {
    /// Whether a value follows the rule.
    pub fn allows(&self, value: &str) -> bool {
        match self.kind {
            SettingType::Text => {
                (self.one_of.is_empty() || self.one_of.iter().any(|allowed| allowed == value))
                    && self.chars_max.is_none_or(|most| value.chars().count() <= most as usize)
            }
            SettingType::Integer => value.parse::<i64>().is_ok_and(|integer| {
                // `parse` also reads a sign and zeros in front, which no other reader of the value expects.
                integer.to_string() == value
                    && self.min.and_then(Bound::integer).is_none_or(|least| least <= integer)
                    && self.max.and_then(Bound::integer).is_none_or(|most| integer <= most)
            }),
            SettingType::Number => value.parse::<f64>().is_ok_and(|number| {
                number.is_finite()
                    && self.min.is_none_or(|least| least.number() <= number)
                    && self.max.is_none_or(|most| number <= most.number())
            }),
            SettingType::Boolean => matches!(value, "true" | "false"),
        }
    }

    /// The rule in words: `an integer from 0 to 10000`.
    pub fn describe(&self) -> String {
        let numbers = match (self.min, self.max) {
            (None, None) => String::new(),
            (Some(min), None) => format!(" of at least {min}"),
            (None, Some(max)) => format!(" of at most {max}"),
            (Some(min), Some(max)) => format!(" from {min} to {max}"),
        };
        match self.kind {
            SettingType::Integer => format!("an integer{numbers}"),
            SettingType::Number => format!("a number{numbers}"),
            SettingType::Boolean => "true or false".to_owned(),
            SettingType::Text if !self.one_of.is_empty() => {
                let allowed: Vec<_> = self.one_of.iter().map(|allowed| format!("{allowed:?}")).collect();
                format!("one of {}", allowed.join(", "))
            }
            SettingType::Text => match self.chars_max {
                Some(most) => format!("a text of at most {most} characters"),
                None => "a text".to_owned(),
            },
        }
    }

    /// Checks the rule itself. The error is the end of a sentence about `settings.KEY`.
    fn check(&self) -> Result<(), &'static str> {
        let is_number = matches!(self.kind, SettingType::Integer | SettingType::Number);
        if !is_number && (self.min.is_some() || self.max.is_some()) {
            return Err("has `min` or `max`, which are for the types integer and number");
        }
        if self.kind != SettingType::Text && (!self.one_of.is_empty() || self.chars_max.is_some()) {
            return Err("has `one_of` or `chars_max`, which are for the type text");
        }
        if !self.one_of.is_empty() && self.chars_max.is_some() {
            return Err("has `one_of` and `chars_max`: give only one of them");
        }
        let bounds = [self.min, self.max];
        let mut given = bounds.iter().flatten();
        if self.kind == SettingType::Integer && given.any(|bound| bound.integer().is_none()) {
            return Err("is an integer, so `min` and `max` are integers too");
        }
        if bounds.iter().flatten().any(|bound| !bound.number().is_finite()) {
            return Err("has a bound that is not a finite number");
        }
        if let [Some(min), Some(max)] = bounds
            && min.number() > max.number()
        {
            return Err("has a `min` above its `max`");
        }
        Ok(())
    }
}

impl Manifest {
    /// The keys that `[config]` or `[settings]` name: those that an operator can set.
    pub fn setting_keys(&self) -> BTreeSet<&str> {
        self.config.keys().chain(self.settings.keys()).map(String::as_str).collect()
    }

    /// Whether the manifest names this setting.
    pub fn has_setting(&self, key: &str) -> bool {
        self.config.contains_key(key) || self.settings.contains_key(key)
    }

    /// Whether recordings, reports and logs may show the values of this setting.
    pub fn is_public(&self, key: &str) -> bool {
        self.public_settings.iter().any(|public| public == key)
    }

    /// Checks a value of a setting. A key without a rule takes every text up to
    /// [`limits::SETTING_BYTES_MAX`]. The error is a sentence; it quotes the value only if it is public.
    pub fn check_setting(&self, key: &str, value: &str) -> Result<(), String> {
        if value.len() > limits::SETTING_BYTES_MAX {
            let (bytes, most) = (value.len(), limits::SETTING_BYTES_MAX);
            return Err(format!("{key} has {bytes} bytes; the maximum of a setting is {most}"));
        }
        let Some(rule) = self.settings.get(key).filter(|rule| !rule.allows(value)) else { return Ok(()) };
        let instead = if self.is_public(key) { format!("{value:?}") } else { "the given value".to_owned() };
        Err(format!("{key} is {}, not {instead}", rule.describe()))
    }

    pub(super) fn check_settings(&self) -> Result<(), Error> {
        let keys = self.setting_keys();
        let most = limits::SETTINGS_PER_HANDLER_MAX;
        if keys.len() > most {
            let named = keys.len();
            return Err(Error::Manifest(format!(
                "`config` and `settings` name {named} settings; the maximum is {most}"
            )));
        }
        for (key, rule) in &self.settings {
            rule.check().map_err(|why| Error::Manifest(format!("`settings.{key}` {why}")))?;
        }
        for (key, value) in &self.config {
            if value.is_table() || value.is_array() {
                return Err(Error::Manifest(format!("`config.{key}` is not a plain value")));
            }
            self.check_setting(key, &Self::setting(value))
                .map_err(|why| Error::Manifest(format!("`config`: {why}")))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(settings: &str) -> Result<Manifest, Error> {
        Manifest::parse(&format!(
            "name = \"poll\"\non.schedule = [{{ name = \"tick\", every_ms = 1000 }}]\n\
             public_settings = [\"x\"]\n{settings}"
        ))
    }

    #[test]
    fn a_value_is_checked_by_type_and_bounds() {
        for (rule, good, bad) in [
            ("type = \"text\"", vec!["", "x", "ä b"], vec![]),
            ("type = \"text\"\nchars_max = 2", vec!["", "äö"], vec!["äöü"]),
            (
                "type = \"text\"\none_of = [\"strict\", \"lax\"]",
                vec!["strict", "lax"],
                vec!["", "Strict", "strict "],
            ),
            (
                "type = \"integer\"\nmin = 0\nmax = 10000",
                vec!["0", "25", "10000"],
                vec!["-1", "10001", "many", "", "1.5", " 1", "+1", "01", "1e3", "99999999999999999999"],
            ),
            ("type = \"integer\"", vec!["-9223372036854775808", "9223372036854775807"], vec!["1_000"]),
            ("type = \"integer\"\nmin = 5", vec!["5"], vec!["4"]),
            (
                "type = \"number\"\nmin = 0\nmax = 0.5",
                vec!["0", "0.5", "1e-3"],
                vec!["0.51", "-0.1", "nan", "inf", "x", ""],
            ),
            ("type = \"boolean\"", vec!["true", "false"], vec!["True", "1", "yes", ""]),
        ] {
            let manifest = manifest(&format!("[settings.x]\n{rule}")).unwrap();
            for value in good {
                assert_eq!(manifest.check_setting("x", value), Ok(()), "{rule}: {value:?}");
            }
            for value in bad {
                let refusal = manifest.check_setting("x", value).unwrap_err();
                assert!(refusal.contains(&format!("not {value:?}")), "{rule}: {refusal}");
            }
        }
    }

    #[test]
    fn a_refusal_states_the_rule_and_quotes_only_public_values() {
        let manifest = manifest(
            "[settings.x]\ntype = \"integer\"\nmin = 0\nmax = 10000\n[settings.key]\ntype = \"text\"\nchars_max = 3",
        )
        .unwrap();
        assert_eq!(
            manifest.check_setting("x", "many").unwrap_err(),
            "x is an integer from 0 to 10000, not \"many\""
        );
        let refusal = manifest.check_setting("key", "s3cret").unwrap_err();
        assert_eq!(refusal, "key is a text of at most 3 characters, not the given value");
        let long = "x".repeat(limits::SETTING_BYTES_MAX + 1);
        let refusal = manifest.check_setting("free", &long).unwrap_err();
        assert_eq!(refusal, "free has 16385 bytes; the maximum of a setting is 16384");
        assert_eq!(manifest.check_setting("free", &long[1..]), Ok(()));
    }

    #[test]
    fn every_rule_is_described() {
        for (rule, words) in [
            ("type = \"text\"", "a text"),
            ("type = \"text\"\none_of = [\"a\", \"b\"]", "one of \"a\", \"b\""),
            ("type = \"number\"\nmin = 0.5", "a number of at least 0.5"),
            ("type = \"integer\"\nmax = 3", "an integer of at most 3"),
            ("type = \"boolean\"", "true or false"),
        ] {
            let manifest = manifest(&format!("[settings.x]\n{rule}")).unwrap();
            assert_eq!(manifest.settings["x"].describe(), words);
        }
    }

    #[test]
    fn a_rule_or_a_default_that_makes_no_sense_is_refused() {
        for (settings, complaint) in [
            ("[settings.x]\nmin = 1", "missing field `type`"),
            ("[settings.x]\ntype = \"date\"", "unknown variant `date`"),
            ("[settings.x]\ntype = \"text\"\ncolour = 1", "colour"),
            ("[settings.x]\ntype = \"text\"\nmin = 1", "`settings.x` has `min` or `max`"),
            ("[settings.x]\ntype = \"integer\"\none_of = [\"1\"]", "which are for the type text"),
            ("[settings.x]\ntype = \"text\"\nchars_max = 1\none_of = [\"a\"]", "give only one of them"),
            ("[settings.x]\ntype = \"integer\"\nmin = 0.5", "are integers too"),
            ("[settings.x]\ntype = \"number\"\nmax = inf", "not a finite number"),
            ("[settings.x]\ntype = \"integer\"\nmin = 2\nmax = 1", "a `min` above its `max`"),
            ("[config]\nx = 11\n[settings.x]\ntype = \"integer\"\nmax = 10", "of at most 10, not \"11\""),
            ("[config]\nx = [1]", "`config.x` is not a plain value"),
        ] {
            let refusal = manifest(settings).unwrap_err().to_string();
            assert!(refusal.contains(complaint), "{refusal}");
        }
        let many: String = (0..=limits::SETTINGS_PER_HANDLER_MAX).map(|n| format!("k{n} = 1\n")).collect();
        let refusal = manifest(&format!("[config]\n{many}")).unwrap_err().to_string();
        assert!(refusal.contains("name 129 settings; the maximum is 128"), "{refusal}");
    }

    #[test]
    fn a_stored_manifest_has_the_rules_and_an_old_one_stays_as_it_was() {
        let with = manifest("[settings.x]\ntype = \"number\"\nmin = 0\nmax = 1.5").unwrap();
        let stored = serde_json::to_value(&with).unwrap();
        assert_eq!(serde_json::from_value::<Manifest>(stored).unwrap(), with);
        // Nodes of the version before refuse a member that they do not know.
        let without = serde_json::to_value(manifest("[config]\nx = 1").unwrap()).unwrap();
        assert!(without.get("settings").is_none(), "{without}");
    }
}
