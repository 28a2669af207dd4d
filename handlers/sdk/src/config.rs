//! The handler's settings: `[config]` of its manifest, overridden by the operator.

use crate::bindings::platform::switchboard::host::config;

pub fn text(key: &str) -> Option<String> {
    config::get(key)
}

/// A whole number; `default` where there is none or the operator wrote something else.
pub fn number(key: &str, default: u64) -> u64 {
    config::get(key).and_then(|value| value.trim().parse().ok()).unwrap_or(default)
}
