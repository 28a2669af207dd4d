//! The operations on a user's notifications. REST, GraphQL and frames use the same functions.

use chat::{keys, notification};
use sdk::{Id, Problem, log, redis};

use crate::cache::{self, Cached};
use crate::rules::{self, Newest, Page, PageRequest};
use crate::store::{self, Marked};

/// A page of notifications. It comes from the cache if it lies within the newest. If nothing is cached, the
/// newest are read from Postgres and stored.
pub(crate) fn list(user: &str, request: &PageRequest) -> Result<Page, Problem> {
    let cached = cache::read(user);
    match &cached {
        Cached::Newest(text) => {
            if let Some(page) = Newest::parse(text).and_then(|newest| newest.page(request)) {
                return Ok(page);
            }
        }
        // Only a first page is likely to be requested again soon.
        Cached::Missing(version) if request.after.is_none() => {
            let most = keys::NOTIFICATIONS_MAX;
            let listed = store::newest(user, most as u64 + 1)?;
            let newest = Newest::of(&listed.notifications, listed.unread, most);
            let newest = newest.ok_or_else(Problem::internal)?;
            cache::keep(user, version, &newest.text());
            if let Some(page) = newest.page(request) {
                return Ok(page);
            }
        }
        Cached::Missing(_) | Cached::Unknown => {}
    }
    let listed = store::list(user, request)?;
    let texts: Vec<&serde_json::value::RawValue> =
        serde_json::from_str(&listed.notifications).map_err(|_| Problem::internal())?;
    let texts = texts.into_iter().map(|text| text.get().to_owned()).collect();
    rules::page(texts, listed.unread, request.limit)
}

/// Marks a notification as read. Returns its text and the number of unread ones, also if it was read before.
pub(crate) fn mark_read(user: &str, id: Id) -> Result<Marked, Problem> {
    let marked = store::mark_read(id, user)?;
    if marked.is_new {
        invalidate_cache(user);
    }
    Ok(marked)
}

/// Marks all notifications as read. Returns how many were unread.
pub(crate) fn mark_all_read(user: &str) -> Result<u64, Problem> {
    let marked = store::mark_all_read(user);
    // A failure may have marked some of them.
    if !matches!(marked, Ok(0)) {
        invalidate_cache(user);
    }
    marked
}

pub(crate) fn delete(user: &str, id: Id) -> Result<(), Problem> {
    store::delete(id, user)?;
    invalidate_cache(user);
    Ok(())
}

/// Deletes the cached notifications before the response, so that the next request sees the change. If this
/// fails, the handler `notify` repeats it, because it consumes the event of the change.
fn invalidate_cache(user: &str) {
    if let Err(error) = notification::invalidate_cache([user]) {
        log::warn("cached notifications are not dropped yet", &[("why", &redis::describe(&error))]);
    }
}
