//! Directory entries. Postgres stores them, and Redis caches them for an hour. The cached form has no e-mail
//! address.

use chat::keys;
use sdk::postgres::{self, Error};
use sdk::redis::{self, describe};
use sdk::{Problem, clock, log, params, text};

use crate::rules::Changes;

const ENTRY: &str = include_str!("sql/entry.sql");
const CHANGE: &str = include_str!("sql/change.sql");

sdk::rows! {
    /// `entry` is the form for other users, `own` the one for the user.
    struct Stored { version: u64, entry: String, own: String }
}

/// The entry of a user as others see it.
pub(crate) fn other(user: &str) -> Result<Option<String>, Problem> {
    if let Some(cached) = cached(user) {
        return Ok(Some(cached));
    }
    let Some(stored) = read(user)? else { return Ok(None) };
    cache(user, &stored);
    Ok(Some(stored.entry))
}

/// The entry of a user as the user sees it.
pub(crate) fn own(user: &str) -> Result<Option<String>, Problem> {
    Ok(read(user)?.map(|stored| stored.own))
}

/// Changes an entry. `name` comes from the token, and is used if the user has no entry yet.
pub(crate) fn change(user: &str, name: Option<&str>, changes: &Changes) -> Result<String, Problem> {
    let params = params![
        user,
        text::name_in_token(name),
        changes.display_name.is_some(),
        changes.display_name.as_ref().and_then(Option::as_ref),
        changes.username.is_some(),
        changes.username.as_ref().and_then(Option::as_ref),
        changes.avatar_url.is_some(),
        changes.avatar_url.as_ref().and_then(Option::as_ref),
        changes.email.is_some(),
        changes.email.as_ref().and_then(Option::as_ref),
        clock::now_ms(),
    ];
    let rows = postgres::query(CHANGE, &params).map_err(taken)?;
    let stored: Stored = rows.one()?.ok_or_else(Problem::internal)?;
    cache(user, &stored);
    Ok(stored.own)
}

fn taken(error: Error) -> Problem {
    match error.constraint() {
        Some("users_username_unique") => Problem::conflict("this username is taken").with_field("username"),
        Some("users_email_unique") => Problem::conflict("this address is taken").with_field("email"),
        _ => error.into(),
    }
}

fn read(user: &str) -> Result<Option<Stored>, Problem> {
    Ok(postgres::query(ENTRY, &params![user])?.one()?)
}

fn cached(user: &str) -> Option<String> {
    match redis::command(&["HGET", &keys::profile(user), "entry"]) {
        Ok(reply) => reply.text().map(str::to_owned),
        Err(error) => {
            log::warn("the directory is read without its cache", &[("why", &describe(&error))]);
            None
        }
    }
}

/// Stores an entry in the cache. If it fails, others may see the former entry for up to an hour.
fn cache(user: &str, stored: &Stored) {
    let (version, ttl) = (stored.version.to_string(), keys::PROFILE_TTL_S.to_string());
    if let Err(error) = redis::script("keep", &[&keys::profile(user)], &[&version, &stored.entry, &ttl]) {
        log::warn("a directory entry is not kept", &[("why", &describe(&error))]);
    }
}
