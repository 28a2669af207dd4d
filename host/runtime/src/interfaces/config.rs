//! `config`: the settings of the handler. They are constant during a call.

use serde::Serialize;

use super::CallState;
use super::call::Function;
use switchboard_contract::config;

#[derive(Serialize)]
struct Args<'a> {
    key: &'a str,
}

impl config::Host for CallState {
    async fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        let settings = &self.terms.settings;
        let live = async { settings.get(&key).cloned() };
        self.middleware.call(Function::ConfigGet, &Args { key: &key }, live).await
    }
}
