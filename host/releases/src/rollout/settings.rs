//! Changes of the live settings of a handler. A change is checked against the manifests of the handler's
//! releases, makes a switch of the fleet, and waits for the nodes. Everything is decided under the lock of
//! the switch, so two changes at once happen one after the other.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use super::super::outcome::NodeOutcome;
use super::super::repository::{LiveSettings, SettingChange, Switch};
use super::super::settings::{
    LiveView, Overridden, OverrideView, SettingError, SettingSource, SettingView, SettingsAction,
    SettingsChange, SettingsOutcome, SettingsRequest, SettingsView, Users, differences,
};
use super::deployer::{Deployer, Origin, elapsed_ms};
use crate::Error;
use switchboard_core::config::Override;
use switchboard_core::limits;
use switchboard_core::manifest::{Manifest, is_name};
use switchboard_runtime::Load;

impl<L: Load> Deployer<L> {
    /// Changes the live settings of a handler. Returns when every live node uses them or has reported why
    /// not, or when the wait is over. A handler that does not run gets them when it runs.
    pub async fn change_settings(
        &self,
        handler: &str,
        request: SettingsRequest,
        origin: Origin<'_>,
    ) -> Result<SettingsOutcome, Error> {
        let mut switch = self.fleet.repository.switch().await?;
        let users = Users(switch.settings_users(handler).await?);
        let stored = switch.settings(handler).await?;
        let last = switch.last_settings_change(handler).await?;
        if let Some(seen) = request.seen.filter(|seen| *seen != last) {
            return Err(Error::SettingsLost { seen, last });
        }
        if users.0.is_empty() && stored.is_empty() && !is_name(handler) {
            return Err(Error::UnknownHandler(handler.to_owned()));
        }
        let before = values(stored);
        let after = match &request.what {
            SettingsAction::Change { set, unset } => changed(handler, &users, &before, set, unset)?,
            SettingsAction::Rollback(to) => rolled_back(&mut switch, handler, *to).await?,
        };
        let changes = differences(&before, &after);
        check(&users, &changes, &after)?;
        if users.0.is_empty() && before.is_empty() {
            let others = switch.other_handlers_with_settings(handler).await?;
            if usize::try_from(others).is_ok_and(|others| others >= limits::HANDLERS_MAX) {
                let most = limits::HANDLERS_MAX;
                return Err(SettingError::Invalid(format!(
                    "{most} handlers have live settings, which is the maximum"
                ))
                .into());
            }
        }
        let unchanged = changes.is_empty();
        let generation = if unchanged {
            // Releases the lock before the wait for the nodes.
            drop(switch);
            last
        } else {
            switch.change_settings(handler, &changes, origin.by, origin.note).await?
        };
        if let Err(error) = self.follower.converge().await {
            warn!(%error, "the settings of {handler} have changed, but this node could not follow yet; it tries again");
        }
        let keys: BTreeSet<String> = match &request.what {
            SettingsAction::Change { set, unset } => set.keys().chain(unset).cloned().collect(),
            SettingsAction::Rollback(_) => changes.iter().map(|change| change.key.clone()).collect(),
        };
        let mut outcome = SettingsOutcome {
            handler: handler.to_owned(),
            generation,
            changes: changes.into_iter().map(|change| users.shown_change(change)).collect(),
            unchanged,
            complete: true,
            nodes: Vec::new(),
            overridden: Vec::new(),
            took_ms: 0,
        };
        // From here on the fleet has switched.
        self.follow_settings(&mut outcome, &keys).await.map_err(|error| match error {
            Error::Backend(error) if !unchanged => {
                Error::SettingsNodesUnknown { name: handler.to_owned(), generation, error }
            }
            other => other,
        })?;
        outcome.took_ms = elapsed_ms(origin.began);
        Ok(outcome)
    }

    /// Waits until the live nodes use the settings.
    async fn follow_settings(
        &self,
        outcome: &mut SettingsOutcome,
        keys: &BTreeSet<String>,
    ) -> Result<(), Error> {
        if let Some(running) = self.fleet.running(&outcome.handler).await? {
            outcome.nodes =
                self.node_outcomes(&outcome.handler, outcome.generation, Some(running.digest)).await?;
            outcome.complete = outcome.nodes.iter().all(NodeOutcome::is_live);
        }
        let overrides = self.fleet.repository.overrides(&outcome.handler).await?;
        let overridden = keys.iter().filter_map(|key| {
            let nodes = overriding(&overrides, key);
            (!nodes.is_empty()).then(|| Overridden { key: key.clone(), nodes })
        });
        outcome.overridden = overridden.collect();
        Ok(())
    }

    /// Returns the settings of a handler as this node sees them.
    pub async fn settings(&self, handler: &str) -> Result<SettingsView, Error> {
        let repository = &self.fleet.repository;
        let users = Users(repository.settings_users(handler).await?);
        let stored = repository.settings(handler).await?;
        let generation = repository.last_settings_change(handler).await?;
        if users.0.is_empty() && stored.is_empty() && generation == 0 {
            return Err(Error::UnknownHandler(handler.to_owned()));
        }
        let overrides = repository.overrides(handler).await?;
        let nodes = repository.live_nodes().await?;
        let here = self.fleet.overrides(handler);
        let keys: BTreeSet<&str> = users
            .keys()
            .into_iter()
            .chain(stored.keys().map(String::as_str))
            .chain(here.keys().map(String::as_str))
            .collect();
        let settings = keys.into_iter().map(|key| SettingView {
            overridden_on: overriding(&overrides, key),
            ..view(&users, key, &stored, here.get(key))
        });
        Ok(SettingsView {
            handler: handler.to_owned(),
            generation,
            settings: settings.collect(),
            nodes: usize::try_from(nodes).unwrap_or(0),
        })
    }

    /// Returns the changes of a handler's settings, the newest first.
    pub async fn settings_history(&self, handler: &str) -> Result<Vec<SettingsChange>, Error> {
        let users = Users(self.fleet.repository.settings_users(handler).await?);
        let history = self.fleet.repository.settings_history(handler).await?;
        if users.0.is_empty() && history.is_empty() {
            return Err(Error::UnknownHandler(handler.to_owned()));
        }
        Ok(history.into_iter().map(|event| users.shown_event(event)).collect())
    }

    /// Checks that the live settings of a handler fit a release that is about to run.
    pub(super) async fn check_live_settings(&self, manifest: &Manifest) -> Result<(), Error> {
        Ok(fits(&self.fleet.repository.settings(&manifest.name).await?, manifest)?)
    }
}

/// Checks that stored values follow the rules of a release, and that its grants to fetch are valid with them.
/// A key that the release does not name has no effect.
pub(super) fn fits(stored: &LiveSettings, manifest: &Manifest) -> Result<(), SettingError> {
    for (key, live) in stored.iter().filter(|(key, _)| manifest.has_setting(key)) {
        manifest.check_setting(key, &live.value).map_err(|why| SettingError::Stored {
            handler: manifest.name.clone(),
            key: key.clone(),
            by: live.by.clone(),
            why,
        })?;
    }
    let live: BTreeMap<String, String> =
        stored.iter().map(|(key, live)| (key.clone(), live.value.clone())).collect();
    if !live.keys().any(|key| manifest.has_setting(key)) {
        return Ok(());
    }
    let handler = manifest.name.clone();
    manifest.check_fetches(&live).map_err(|why| SettingError::Fetches { handler, why })
}

fn values(stored: LiveSettings) -> BTreeMap<String, String> {
    stored.into_iter().map(|(key, live)| (key, live.value)).collect()
}

/// The values after a change of single keys. A key that no release names is refused, except one that is set
/// and shall be unset.
fn changed(
    handler: &str,
    users: &Users,
    before: &BTreeMap<String, String>,
    set: &BTreeMap<String, String>,
    unset: &BTreeSet<String>,
) -> Result<BTreeMap<String, String>, SettingError> {
    for key in set.keys().chain(unset.iter().filter(|key| !before.contains_key(*key))) {
        if users.0.is_empty() {
            let is_key = (1..=limits::SETTING_KEY_BYTES_MAX).contains(&key.len())
                && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
            if !is_key {
                let most = limits::SETTING_KEY_BYTES_MAX;
                return Err(SettingError::Invalid(format!(
                    "the name of a setting has 1 to {most} letters, digits, dots, dashes and underscores"
                )));
            }
        } else if !users.know(key) {
            let known = users.keys().into_iter().map(str::to_owned).collect();
            return Err(SettingError::Unknown { name: handler.to_owned(), key: key.clone(), known });
        }
    }
    let mut after = before.clone();
    after.retain(|key, _| !unset.contains(key));
    after.extend(set.clone());
    Ok(after)
}

async fn rolled_back(
    switch: &mut Switch,
    handler: &str,
    to: Option<i64>,
) -> Result<BTreeMap<String, String>, Error> {
    let found = switch.settings_of(handler, to).await?;
    found.ok_or_else(|| match to {
        Some(generation) => Error::NoSettingsChange { name: handler.to_owned(), generation },
        None => Error::SettingsNeverChanged(handler.to_owned()),
    })
}

/// Checks the new values, and that all values together are within their bounds.
fn check(
    users: &Users,
    changes: &[SettingChange],
    after: &BTreeMap<String, String>,
) -> Result<(), SettingError> {
    for SettingChange { key, to, .. } in changes {
        let Some(value) = to else { continue };
        if value.contains('\0') {
            return Err(SettingError::Invalid(format!(
                "the value of {key} has a zero byte, which a setting cannot have"
            )));
        }
        if value.len() > limits::SETTING_BYTES_MAX {
            let (bytes, most) = (value.len(), limits::SETTING_BYTES_MAX);
            return Err(SettingError::Invalid(format!(
                "{key} has {bytes} bytes; the maximum of a setting is {most}"
            )));
        }
        users.check(key, value).map_err(SettingError::Invalid)?;
    }
    let (keys, most) = (after.len(), limits::SETTINGS_PER_HANDLER_MAX);
    if keys > most {
        return Err(SettingError::Invalid(format!(
            "the handler would have {keys} live settings; the maximum is {most}"
        )));
    }
    let bytes: usize = after.iter().map(|(key, value)| key.len() + value.len()).sum();
    let most = limits::SETTINGS_BYTES_MAX;
    if bytes > most {
        return Err(SettingError::Invalid(format!(
            "the live settings of the handler would have {bytes} bytes together; the maximum is {most}"
        )));
    }
    if changes.is_empty() {
        return Ok(());
    }
    users.check_fetches(after).map_err(SettingError::Invalid)
}

fn view(users: &Users, key: &str, stored: &LiveSettings, here: Option<&Override>) -> SettingView {
    let (known, public) = (users.know(key), users.show(key));
    let shown = |value: &str| users.shown(key, value.to_owned());
    let default = users.default(key).map(|value| shown(&value));
    let live = stored.get(key).map(|live| LiveView {
        value: shown(&live.value),
        generation: live.generation,
        by: live.by.clone(),
        at: live.at.clone(),
    });
    let overridden = here.map(|here| OverrideView { value: shown(&here.value), place: here.place.clone() });
    // The order of `Inputs`.
    let (value, from) = match (&overridden, &live, &default) {
        (Some(here), ..) => (Some(here.value.clone()), SettingSource::Node),
        (None, Some(live), _) if known => (Some(live.value.clone()), SettingSource::Live),
        (None, _, Some(default)) => (Some(default.clone()), SettingSource::Manifest),
        (None, _, None) => (None, SettingSource::None),
    };
    let rule = users.first().and_then(|manifest| manifest.settings.get(key)).map(|rule| rule.describe());
    SettingView {
        key: key.to_owned(),
        value,
        from,
        default,
        live,
        overridden,
        overridden_on: Vec::new(),
        rule,
        public,
        known,
    }
}

fn overriding(overrides: &[(String, Vec<String>)], key: &str) -> Vec<String> {
    let nodes = overrides.iter().filter(|(_, keys)| keys.iter().any(|overridden| overridden == key));
    nodes.map(|(address, _)| address.clone()).collect()
}

#[cfg(test)]
mod tests;
