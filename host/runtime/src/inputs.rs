//! The inputs of a loaded release: what it gets beside its file. They can change while the release runs,
//! because a new value of a setting needs no new code. `LoadedRelease::apply` makes new terms of them.

use std::collections::BTreeMap;

use super::Error;
use switchboard_core::Blame;
use switchboard_core::config::Override;
use switchboard_core::manifest::Manifest;

/// The inputs of one release on one node. There is no `Debug`, because the values are or may be secrets.
#[derive(Clone, Default)]
pub struct Inputs {
    /// The live settings of the handler, as operators have set them in the fleet. The release gets those that
    /// its manifest names. They override its `[config]`.
    pub live: BTreeMap<String, String>,
    /// The settings of this node's file and environment. They override the live settings.
    pub overrides: BTreeMap<String, Override>,
    /// The values of the granted secrets that operators have set in the fleet.
    pub secrets: BTreeMap<String, Vec<u8>>,
}

impl Inputs {
    /// Settings of a test or of a command, which has no fleet. They override the manifest's `[config]`.
    pub fn overriding(settings: BTreeMap<String, String>) -> Self {
        let place = "this command".to_owned();
        let overrides =
            settings.into_iter().map(|(key, value)| (key, Override { value, place: place.clone() }));
        Self { overrides: overrides.collect(), ..Self::default() }
    }

    /// The settings that the guest reads. The order of precedence: the manifest's `[config]`, live settings,
    /// overrides of the node.
    ///
    /// # Errors
    /// A value breaks its rule. The error says where the value comes from. The manifest was checked when it
    /// was parsed.
    pub(crate) fn effective(&self, manifest: &Manifest) -> Result<BTreeMap<String, String>, Error> {
        let wrong = |why: String| Error::new(Blame::Operator, why);
        let mut effective: BTreeMap<String, String> =
            manifest.config.iter().map(|(key, value)| (key.clone(), Manifest::setting(value))).collect();
        for (key, value) in self.live.iter().filter(|(key, _)| manifest.has_setting(key)) {
            // A value that an override hides is checked too: without the override it would be used.
            manifest.check_setting(key, value).map_err(|why| {
                let name = &manifest.name;
                wrong(format!(
                    "a live setting does not fit this release: {why}; change it (`switchboard config set {name} {key} \
                     VALUE`) or remove it (`switchboard config unset {name} {key}`)"
                ))
            })?;
            effective.insert(key.clone(), value.clone());
        }
        for (key, Override { value, place }) in &self.overrides {
            manifest.check_setting(key, value).map_err(|why| {
                wrong(format!(
                    "a setting of this node does not fit this release: {why}; it comes from its {place}"
                ))
            })?;
            effective.insert(key.clone(), value.clone());
        }
        Ok(effective)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let text = "name = \"poll\"\non.schedule = [{ name = \"tick\", every_ms = 1000 }]\n\
                    public_settings = [\"votes\"]\n[config]\nvotes = 3\nmode = \"lax\"\n\
                    [settings.votes]\ntype = \"integer\"\nmin = 1\nmax = 10\n[settings.title]\ntype = \"text\"";
        Manifest::parse(text).unwrap()
    }

    fn inputs(live: &[(&str, &str)], overrides: &[(&str, &str)]) -> Inputs {
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let place = || "file (switchboard.toml)".to_owned();
        Inputs {
            live: live.iter().map(text).collect(),
            overrides: overrides
                .iter()
                .map(text)
                .map(|(key, value)| (key, Override { value, place: place() }))
                .collect(),
            ..Inputs::default()
        }
    }

    #[test]
    fn live_settings_override_the_manifest_and_the_node_overrides_both() {
        let effective = |inputs: Inputs| inputs.effective(&manifest()).unwrap();
        let defaults = effective(inputs(&[], &[]));
        assert_eq!((defaults["votes"].as_str(), defaults["mode"].as_str(), defaults.len()), ("3", "lax", 2));
        let live = effective(inputs(&[("votes", "4"), ("title", "Tea?"), ("of_another_release", "x")], &[]));
        assert_eq!((live["votes"].as_str(), live["title"].as_str(), live.len()), ("4", "Tea?", 3));
        let both = effective(inputs(&[("votes", "4")], &[("votes", "5"), ("unknown", "y")]));
        assert_eq!((both["votes"].as_str(), both["unknown"].as_str()), ("5", "y"));
    }

    #[test]
    fn a_value_that_breaks_its_rule_is_refused_with_its_origin() {
        let refusal = |inputs: Inputs| inputs.effective(&manifest()).unwrap_err().reason;
        assert_eq!(
            refusal(inputs(&[("votes", "11")], &[])),
            "a live setting does not fit this release: votes is an integer from 1 to 10, not \"11\"; change it \
             (`switchboard config set poll votes VALUE`) or remove it (`switchboard config unset poll votes`)"
        );
        assert_eq!(
            refusal(inputs(&[("votes", "4")], &[("votes", "many")])),
            "a setting of this node does not fit this release: votes is an integer from 1 to 10, not \"many\"; it \
             comes from its file (switchboard.toml)"
        );
        assert!(refusal(inputs(&[("votes", "11")], &[("votes", "5")])).contains("\"11\""), "it is hidden");
    }
}
