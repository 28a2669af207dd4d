//! The settings and the secrets of a test. A test never has the values of a fleet: without a value in its
//! scenario, a granted secret has one that is made from its name.

use std::collections::BTreeMap;

use super::Handler;
use switchboard_core::manifest::Manifest;
use switchboard_recording::{Scenario, Secrets};
use switchboard_runtime::Inputs;

/// The values that the handler reads in one test.
pub(super) struct Values {
    pub settings: BTreeMap<String, String>,
    /// One for each granted name.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Finds those of them that a recording may not contain.
    pub concealed: Secrets,
}

impl Values {
    pub(super) fn of(handler: &Handler, scenario: Option<&Scenario>) -> Self {
        let (mut settings, mut secrets) = (handler.release.settings(), handler.release.secret_values());
        if let Some(scenario) = scenario {
            settings.extend(scenario.settings.clone());
            secrets.extend(secrets_of(handler.manifest(), scenario));
        }
        let concealed = Secrets::new(&settings, &handler.manifest().public_settings, &secrets);
        Self { settings, secrets, concealed }
    }
}

/// Returns the inputs of a release in a test.
pub fn test_inputs(manifest: &Manifest, scenario: &Scenario) -> Inputs {
    Inputs { secrets: secrets_of(manifest, scenario), ..Inputs::overriding(scenario.settings.clone()) }
}

fn secrets_of(manifest: &Manifest, scenario: &Scenario) -> BTreeMap<String, Vec<u8>> {
    let value = |name: &String| match scenario.secrets.get(name) {
        Some(value) => value.clone(),
        None => format!("secret {name} of a test"),
    };
    manifest.grants.secrets.iter().map(|name| (name.clone(), value(name).into_bytes())).collect()
}
