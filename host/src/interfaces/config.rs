//! `config`: the handler's settings, constant for a release.

use serde::Serialize;

use super::CallState;
use super::call::Function;
use crate::contract::config;

#[derive(Serialize)]
struct Args<'a> {
    key: &'a str,
}

impl config::Host for CallState {
    async fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        let settings = &self.terms.settings;
        self.border.call_now(Function::ConfigGet, &Args { key: &key }, || settings.get(&key).cloned())
    }
}
