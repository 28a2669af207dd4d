//! The live settings of a handler as an operator changes and sees them: the admin API and the CLI show these
//! types. They contain no value of a setting that is not public.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use super::outcome::NodeOutcome;
use super::repository::{SettingChange, SettingsEvent};
use switchboard_core::ids::Digest;
use switchboard_core::manifest::{Manifest, placeholder};

/// The change that an operator asks for.
#[derive(Clone, Default)]
pub struct SettingsRequest {
    pub what: SettingsAction,
    /// The generation of the last change that the operator has seen. If another change came since, this one
    /// is refused. `None`: the change is made in any case.
    pub seen: Option<i64>,
}

#[derive(Clone)]
pub enum SettingsAction {
    Change {
        set: BTreeMap<String, String>,
        unset: BTreeSet<String>,
    },
    /// Returns to the values after the change of this generation. `None`: to those before the last change, so
    /// that a second rollback undoes the first.
    Rollback(Option<i64>),
}

impl Default for SettingsAction {
    fn default() -> Self {
        Self::Change { set: BTreeMap::new(), unset: BTreeSet::new() }
    }
}

/// Why a setting is refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// No release of the handler names this setting.
    #[error("{name} has no setting `{key}`; it has {}", listed(.known))]
    Unknown { name: String, key: String, known: Vec<String> },
    /// The value, or all values together, break a rule.
    #[error("{0}")]
    Invalid(String),
    /// With the live settings, a grant to fetch of a release that is to run is not valid.
    #[error(
        "the live settings of {handler} do not fit this release: {why}; first change them (`switchboard config set \
         {handler} KEY VALUE`)"
    )]
    Fetches { handler: String, why: String },
    /// A live setting does not fit a release that is to run.
    #[error(
        "the live setting {key} (set by {by}) does not fit this release: {why}; first change it \
         (`switchboard config set {handler} {key} VALUE`) or remove it (`switchboard config unset {handler} {key}`)"
    )]
    Stored { handler: String, key: String, by: String, why: String },
}

fn listed(keys: &[String]) -> String {
    if keys.is_empty() { "none".to_owned() } else { keys.join(", ") }
}

/// The fleet has other settings. `nodes` says which nodes could follow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettingsOutcome {
    pub handler: String,
    /// The generation of this change, or of the last one if nothing changed; 0 if the handler never had a
    /// live setting.
    pub generation: i64,
    pub changes: Vec<ShownChange>,
    /// The settings already had these values.
    pub unchanged: bool,
    /// True when every live node uses the settings.
    pub complete: bool,
    /// Empty when the handler does not run.
    pub nodes: Vec<NodeOutcome>,
    /// The changed keys that nodes override: there the change has no effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overridden: Vec<Overridden>,
    pub took_ms: u64,
}

/// A change of one setting. `None`: the key was, or is, not set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShownChange {
    pub key: String,
    pub from: Option<String>,
    pub to: Option<String>,
    /// The default of the manifest, which counts where the key is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// A key that nodes override, with the addresses of their admin listeners.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overridden {
    pub key: String,
    pub nodes: Vec<String>,
}

/// The settings of a handler, as one node sees them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettingsView {
    pub handler: String,
    /// The generation of the last change; 0 if there was none.
    pub generation: i64,
    pub settings: Vec<SettingView>,
    /// The number of live nodes.
    pub nodes: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettingView {
    pub key: String,
    /// The value that calls on this node read.
    pub value: Option<String>,
    pub from: SettingSource,
    /// The default of the manifest.
    pub default: Option<String>,
    pub live: Option<LiveView>,
    /// The override of this node.
    #[serde(rename = "override")]
    pub overridden: Option<OverrideView>,
    /// The addresses of the live nodes that override the key.
    pub overridden_on: Vec<String>,
    /// The rule of the manifest in words.
    pub rule: Option<String>,
    /// Whether values may be shown. Otherwise a placeholder is in their place.
    pub public: bool,
    /// False when no release of the handler that runs names this key; then a live value has no effect.
    pub known: bool,
}

/// Where the value of a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SettingSource {
    /// The default of the manifest.
    Manifest,
    Live,
    /// The file or the environment of the node.
    Node,
    /// The setting has no value.
    None,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveView {
    pub value: String,
    pub generation: i64,
    pub by: String,
    pub at: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OverrideView {
    pub value: String,
    pub place: String,
}

/// A past change of the settings of a handler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettingsChange {
    pub generation: i64,
    pub at: String,
    pub by: String,
    pub note: Option<String>,
    pub changes: Vec<ShownChange>,
}

/// The releases of a handler that use its settings: the running one first, then its canary and its shadow. A
/// retired handler has the release that was retired; one that never ran has none.
pub(crate) struct Users(pub Vec<(Digest, Manifest)>);

impl Users {
    /// The manifest of the running release.
    pub(crate) fn first(&self) -> Option<&Manifest> {
        self.0.first().map(|(_, manifest)| manifest)
    }

    pub(crate) fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        self.0.iter().map(|(_, manifest)| manifest)
    }

    pub(crate) fn know(&self, key: &str) -> bool {
        self.manifests().any(|manifest| manifest.has_setting(key))
    }

    pub(crate) fn keys(&self) -> BTreeSet<&str> {
        self.manifests().flat_map(Manifest::setting_keys).collect()
    }

    /// Whether every release that names the key shows its values. False when none names it.
    pub(crate) fn show(&self, key: &str) -> bool {
        self.know(key)
            && self
                .manifests()
                .filter(|manifest| manifest.has_setting(key))
                .all(|manifest| manifest.is_public(key))
    }

    /// Checks a value with the rules of every release that names the key.
    pub(crate) fn check(&self, key: &str, value: &str) -> Result<(), String> {
        for (place, (digest, manifest)) in self.0.iter().enumerate() {
            if manifest.has_setting(key) {
                manifest.check_setting(key, value).map_err(|why| named(why, place, *digest))?;
            }
        }
        Ok(())
    }

    /// Checks that the grants to fetch of every release are valid with these live settings.
    pub(crate) fn check_fetches(&self, live: &BTreeMap<String, String>) -> Result<(), String> {
        for (place, (digest, manifest)) in self.0.iter().enumerate() {
            manifest.check_fetches(live).map_err(|why| named(why, place, *digest))?;
        }
        Ok(())
    }

    pub(crate) fn default(&self, key: &str) -> Option<String> {
        self.first()?.config.get(key).map(Manifest::setting)
    }

    /// The value, or a placeholder if it is not public.
    pub(crate) fn shown(&self, key: &str, value: String) -> String {
        if self.show(key) { value } else { placeholder(key) }
    }

    pub(crate) fn shown_change(&self, change: SettingChange) -> ShownChange {
        let SettingChange { key, from, to } = change;
        let shown = |value: Option<String>| value.map(|value| self.shown(&key, value));
        ShownChange { from: shown(from), to: shown(to), default: shown(self.default(&key)), key: key.clone() }
    }

    pub(crate) fn shown_event(&self, event: SettingsEvent) -> SettingsChange {
        let SettingsEvent { generation, at, by, note, changes } = event;
        let changes = changes.into_iter().map(|change| self.shown_change(change)).collect();
        SettingsChange { generation, at, by, note, changes }
    }
}

/// Names the release of a refusal, unless it is the running one.
fn named(why: String, place: usize, digest: Digest) -> String {
    match place {
        0 => why,
        _ => format!("{why} (in the release {} beside the running one)", digest.short()),
    }
}

/// The differences between two sets of values, by key.
pub(crate) fn differences(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<SettingChange> {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let change = |key: &String| SettingChange {
        key: key.clone(),
        from: before.get(key).cloned(),
        to: after.get(key).cloned(),
    };
    keys.into_iter().map(change).filter(|change| change.from != change.to).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(manifests: &[&str]) -> Users {
        let parsed = manifests.iter().map(|settings| {
            let text = format!(
                "name = \"poll\"\non.schedule = [{{ name = \"tick\", every_ms = 1000 }}]\n{settings}"
            );
            (Digest::of(settings.as_bytes()), Manifest::parse(&text).unwrap())
        });
        Users(parsed.collect())
    }

    #[test]
    fn a_value_must_fit_the_running_release_and_its_canary() {
        let two = users(&[
            "public_settings = [\"votes\"]\n[settings.votes]\ntype = \"integer\"\nmax = 10",
            "public_settings = [\"votes\"]\n[settings.votes]\ntype = \"integer\"\nmax = 5\n[config]\nnew = 1",
        ]);
        assert_eq!(two.check("votes", "5"), Ok(()));
        let refusal = two.check("votes", "6").unwrap_err();
        assert!(
            refusal.starts_with("votes is an integer of at most 5, not \"6\" (in the release "),
            "{refusal}"
        );
        assert_eq!(two.check("votes", "11").unwrap_err(), "votes is an integer of at most 10, not \"11\"");
        assert!(two.know("new") && !two.know("old"));
        assert_eq!(two.keys().into_iter().collect::<Vec<_>>(), ["new", "votes"]);
    }

    #[test]
    fn a_value_is_shown_only_if_every_release_that_names_it_says_so() {
        let one = users(&["public_settings = [\"votes\"]\n[config]\nvotes = 3\ntoken = \"s3cret\""]);
        let change =
            |key: &str| SettingChange { key: key.to_owned(), from: None, to: Some("changed".to_owned()) };
        let shown = one.shown_change(change("votes"));
        assert_eq!((shown.to.as_deref(), shown.default.as_deref()), (Some("changed"), Some("3")));
        let concealed = one.shown_change(change("token"));
        assert_eq!(concealed.to.as_deref(), Some("[setting token]"));
        assert_eq!((concealed.from, concealed.default.as_deref()), (None, Some("[setting token]")));
        assert_eq!(one.shown("of_nobody", "x".to_owned()), "[setting of_nobody]");

        let two = users(&["public_settings = [\"votes\"]\n[config]\nvotes = 3", "[config]\nvotes = 3"]);
        assert!(!two.show("votes"), "the canary conceals it");
    }

    #[test]
    fn differences_have_what_was_added_changed_and_removed() {
        let values = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let before = values(&[("same", "1"), ("changed", "1"), ("gone", "1")]);
        let after = values(&[("same", "1"), ("changed", "2"), ("new", "1")]);
        let found = differences(&before, &after);
        let found: Vec<_> = found
            .iter()
            .map(|change| (change.key.as_str(), change.from.as_deref(), change.to.as_deref()))
            .collect();
        assert_eq!(
            found,
            [("changed", Some("1"), Some("2")), ("gone", Some("1"), None), ("new", None, Some("1"))]
        );
    }
}
