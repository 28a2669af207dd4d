//! What a person may do with their notifications: the same functions behind REST, GraphQL and frames.

use chat::{keys, notification};
use sdk::{Id, Problem, log, redis};

use crate::cache::{self, Cached};
use crate::rules::{self, Newest, Page, Wish};
use crate::store::{self, Marked};

/// From the cache, if the newest answer it; what is missing there is read once and kept.
pub fn list(user: &str, wish: &Wish) -> Result<Page, Problem> {
    let cached = cache::read(user);
    match &cached {
        Cached::Newest(text) => {
            if let Some(page) = Newest::parse(text).and_then(|newest| newest.page(wish)) {
                return Ok(page);
            }
        }
        // Only who begins is likely to come again.
        Cached::Missing(version) if wish.after.is_none() => {
            let most = keys::NOTIFICATIONS_MAX;
            let listed = store::newest(user, most as u64 + 1)?;
            let newest = Newest::of(&listed.notifications, listed.unread, most);
            let newest = newest.ok_or_else(Problem::internal)?;
            cache::keep(user, version, &newest.text());
            if let Some(page) = newest.page(wish) {
                return Ok(page);
            }
        }
        Cached::Missing(_) | Cached::Unknown => {}
    }
    let listed = store::list(user, wish)?;
    let texts: Vec<&serde_json::value::RawValue> =
        serde_json::from_str(&listed.notifications).map_err(|_| Problem::internal())?;
    let texts = texts.into_iter().map(|text| text.get().to_owned()).collect();
    rules::page(texts, listed.unread, wish.limit)
}

pub fn mark(user: &str, id: Id) -> Result<Marked, Problem> {
    let marked = store::mark(id, user)?;
    if marked.is_new {
        changed(user);
    }
    Ok(marked)
}

pub fn mark_all(user: &str) -> Result<u64, Problem> {
    let marked = store::mark_all(user);
    // Also of what failed half way.
    if !matches!(marked, Ok(0)) {
        changed(user);
    }
    marked
}

pub fn delete(user: &str, id: Id) -> Result<(), Problem> {
    store::delete(id, user)?;
    changed(user);
    Ok(())
}

/// Before the answer, so that whoever asks next sees it. Should this be lost, the event of the change does it again.
fn changed(user: &str) {
    if let Err(error) = notification::changed([user]) {
        log::warn("cached notifications are not dropped yet", &[("why", &redis::describe(&error))]);
    }
}
