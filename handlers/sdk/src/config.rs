//! The handler's settings: `[config]` of its manifest, which the operator can override.

use crate::bindings::platform::switchboard::host::config;

/// The value of a setting; `None` if neither the manifest nor the operator sets it.
pub fn text(key: &str) -> Option<String> {
    config::get(key)
}

/// A setting that is a whole number; `default` if the setting is absent or not a whole number.
pub fn number(key: &str, default: u64) -> u64 {
    config::get(key).and_then(|value| value.trim().parse().ok()).unwrap_or(default)
}
