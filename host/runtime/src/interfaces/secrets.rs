//! `secrets`: the secrets of the fleet that the manifest grants by name. They are constant during a call. The
//! value goes to the guest; recordings and log lines get a placeholder instead.

use serde::Serialize;

use super::call::Function;
use super::{CallState, Terms};
use switchboard_contract::secrets::{self, Error};

#[derive(Serialize)]
struct Args<'a> {
    name: &'a str,
}

impl secrets::Host for CallState {
    async fn get(&mut self, name: String) -> wasmtime::Result<Result<Vec<u8>, Error>> {
        let terms = &self.terms;
        let live = async { terms.secret(&name) };
        self.middleware.call(Function::SecretsGet, &Args { name: &name }, live).await
    }
}

impl Terms {
    /// Returns the value of a secret, if it is granted and set.
    pub(crate) fn secret(&self, name: &str) -> Result<Vec<u8>, Error> {
        if !self.grants.secrets.iter().any(|granted| granted == name) {
            return Err(Error::Refused);
        }
        self.secret_values.get(name).cloned().ok_or(Error::Missing)
    }
}
