//! Changes of the fleet's secrets. A change switches the fleet as a deploy does: each node opens the new
//! value and gives it to the releases that are granted it, without a new load.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use tokio::time::Instant;
use tracing::warn;

use super::super::outcome::{NodeOutcome, SecretOutcome};
use super::super::repository::{Repository, SecretChanged, StoredSecret};
use super::deployer::{Deployer, Origin, elapsed_ms};
use super::fleet::in_time;
use crate::Error;
use crate::sealing::Sealing;
use switchboard_core::config::Config;
use switchboard_core::limits;
use switchboard_core::manifest::{Manifest, is_secret_name};
use switchboard_runtime::Load;

/// Reads the granted secrets of a handler, and opens them with the keys of this process. A secret that no
/// operator has set is left out.
///
/// # Errors
/// Postgres fails, or a secret was sealed with a key that this process does not have.
pub async fn opened_secrets(
    repository: &Repository,
    config: &Config,
    manifest: &Manifest,
) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let names = &manifest.grants.secrets;
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sealing = sealing(config).map_err(Error::Host)?;
    let stored = in_time("read secrets", repository.secrets(names)).await?;
    let mut opened = BTreeMap::new();
    for secret in stored {
        let value = secret.open(&sealing)?;
        opened.insert(secret.name, value);
    }
    Ok(opened)
}

fn sealing(config: &Config) -> Result<Sealing, String> {
    Sealing::of(config).map_err(|missing| missing.to_string())
}

impl<L: Load> Deployer<L> {
    /// Sets a secret, or replaces its value. Returns when the live nodes use it, or when the wait is over.
    pub async fn set_secret(
        &self,
        name: &str,
        value: &[u8],
        origin: Origin<'_>,
    ) -> Result<SecretOutcome, Error> {
        if !is_secret_name(name) {
            return Err(Error::SecretName(name.to_owned()));
        }
        if !(limits::SECRET_BYTES_MIN..=limits::SECRET_BYTES_MAX).contains(&value.len()) {
            return Err(Error::SecretSize(value.len()));
        }
        let sealing = sealing(self.fleet.config()).map_err(Error::Host)?;
        let mut switch = self.fleet.repository.switch().await?;
        if switch.other_secrets(name).await? >= limits::SECRETS_MAX {
            return Err(Error::TooManySecrets);
        }
        if let Some((handler, others)) = switch.largest_user_of_secret(name).await? {
            let bytes = others + value.len() as i64;
            if bytes > limits::SECRETS_BYTES_MAX {
                return Err(Error::SecretsTooLarge { handler, bytes });
            }
        }
        let (version, key) = switch.next_secret(name).await?;
        if key.as_deref().is_some_and(|key| !sealing.has(key)) {
            return Err(Error::OtherFleetKey);
        }
        let sealed = sealing.seal(name, version, value, key.as_deref());
        let secret = StoredSecret { name: name.to_owned(), version, sealed };
        let changed = switch.set_secret(&secret, origin.by).await?;
        let mut outcome = self.followed(name, changed, origin.began).await?;
        (outcome.version, outcome.bytes) = (Some(version), Some(value.len() as u64));
        Ok(outcome)
    }

    /// Removes a secret. Without `force` it must not be granted to a release that runs, as a canary or a
    /// shadow too: their calls would not find it.
    pub async fn remove_secret(
        &self,
        name: &str,
        force: bool,
        origin: Origin<'_>,
    ) -> Result<SecretOutcome, Error> {
        if !is_secret_name(name) {
            return Err(Error::SecretName(name.to_owned()));
        }
        let mut switch = self.fleet.repository.switch().await?;
        let used_by = switch.users_of_secret(name).await?;
        if !force && !used_by.is_empty() && switch.secrets_missing(&[name.to_owned()]).await?.is_empty() {
            return Err(Error::SecretInUse { name: name.to_owned(), used_by });
        }
        let changed = switch.remove_secret(name).await?;
        let changed = changed.ok_or_else(|| Error::UnknownSecret(name.to_owned()))?;
        self.followed(name, changed, origin.began).await
    }

    /// Waits until the live nodes have followed for each handler that is granted the secret.
    async fn followed(
        &self,
        name: &str,
        changed: SecretChanged,
        began: Instant,
    ) -> Result<SecretOutcome, Error> {
        // From here on the fleet has switched.
        if let Err(error) = self.follower.converge().await {
            warn!(%error, "the secret {name} has changed, but this node could not follow yet; it tries again");
        }
        let SecretChanged { generation, used_by } = changed;
        let nodes = self.nodes_that_follow(&used_by, generation).await.map_err(|error| match error {
            Error::Backend(error) => Error::SecretNodesUnknown { name: name.to_owned(), error },
            other => other,
        })?;
        Ok(SecretOutcome {
            name: name.to_owned(),
            version: None,
            bytes: None,
            generation,
            used_by,
            complete: nodes.iter().all(NodeOutcome::is_live),
            nodes,
            took_ms: elapsed_ms(began),
        })
    }

    /// Returns each node once, with the first handler whose releases do not have the value there.
    async fn nodes_that_follow(
        &self,
        handlers: &[String],
        generation: i64,
    ) -> Result<Vec<NodeOutcome>, Error> {
        let running = self.fleet.repository.running().await?;
        // Without a row the handler was retired meanwhile, and no node answers for it.
        let followed = running.iter().filter(|running| handlers.contains(&running.name));
        let waits =
            followed.map(|running| self.node_outcomes(&running.name, generation, Some(running.digest)));
        let mut nodes: Vec<NodeOutcome> = Vec::new();
        for outcome in try_join_all(waits).await?.into_iter().flatten() {
            match nodes.iter_mut().find(|known| known.node == outcome.node) {
                Some(known) if known.is_live() => *known = outcome,
                Some(_) => {}
                None => nodes.push(outcome),
            }
        }
        Ok(nodes)
    }
}

#[cfg(test)]
mod tests;
