//! Reads requests for pages of notifications, and takes pages from the cached newest ones. Pure: no host
//! calls, so plain `cargo test` runs it.

use chat::notification;
use sdk::{Id, Problem, cursor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub(crate) const LIMIT_DEFAULT: u64 = 20;
pub(crate) const LIMIT_MAX: u64 = 100;

/// A request for a page of notifications, newest first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PageRequest {
    pub only_unread: bool,
    pub kind: Option<String>,
    /// The last notification of the previous page; exclusive.
    pub after: Option<Id>,
    pub limit: u64,
}

impl PageRequest {
    /// Reads `unread`, `type` and `cursor` of a query string.
    pub(crate) fn parse(
        unread: Option<&str>,
        kind: Option<&str>,
        cursor: Option<&str>,
        limit: u64,
    ) -> Result<Self, Problem> {
        let only_unread = match unread {
            None | Some("false" | "0") => false,
            Some("" | "true" | "1") => true,
            Some(_) => return Err(Problem::invalid("unread", "is not true or false")),
        };
        if let Some(kind) = kind
            && !notification::TYPES.contains(&kind)
        {
            return Err(Problem::invalid(
                "type",
                format!("is not one of {}", notification::TYPES.join(", ")),
            ));
        }
        let after = cursor::id(cursor)?;
        Ok(Self { only_unread, kind: kind.map(str::to_owned), after, limit })
    }
}

#[derive(Debug, PartialEq)]
pub(crate) struct Page {
    /// The notifications as responses and pushes show them, in JSON.
    pub notifications: Vec<String>,
    pub next_cursor: Option<Id>,
    /// The number of all unread notifications of the user, not only of this page.
    pub unread: u64,
}

/// Makes a page. `texts` has one notification more than `limit` if there is a next page.
pub(crate) fn page(texts: Vec<String>, unread: u64, limit: u64) -> Result<Page, Problem> {
    let more = texts.len() as u64 > limit;
    let mut notifications = texts;
    notifications.truncate(limit as usize);
    let next_cursor = match notifications.last() {
        Some(last) if more => Some(head(last).ok_or_else(Problem::internal)?.id),
        _ => None,
    };
    Ok(Page { notifications, next_cursor, unread })
}

/// A user's newest notifications, as they are cached.
#[derive(Serialize, Deserialize)]
pub(crate) struct Newest<'a> {
    unread: u64,
    /// Whether there are no older ones.
    complete: bool,
    #[serde(borrow)]
    notifications: Vec<&'a RawValue>,
}

/// The fields of a notification that decide whether it belongs to a page.
struct Head<'a> {
    id: Id,
    kind: &'a str,
    is_read: bool,
}

#[derive(Deserialize)]
struct Fields<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    read_at: Option<&'a str>,
}

fn head(text: &str) -> Option<Head<'_>> {
    let fields: Fields<'_> = serde_json::from_str(text).ok()?;
    Some(Head { id: Id::parse(fields.id)?, kind: fields.kind, is_read: fields.read_at.is_some() })
}

impl<'a> Newest<'a> {
    /// Reads an array from Postgres. It has one notification more than `most` if there are older ones.
    pub(crate) fn of(array: &'a str, unread: u64, most: usize) -> Option<Self> {
        let mut notifications: Vec<&RawValue> = serde_json::from_str(array).ok()?;
        let complete = notifications.len() <= most;
        notifications.truncate(most);
        Some(Self { unread, complete, notifications })
    }

    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).expect("plain data becomes JSON")
    }

    /// The page; `None` if it, or the notification that follows it, may be older than the newest.
    pub(crate) fn page(&self, page_request: &PageRequest) -> Option<Page> {
        let mut found = Vec::new();
        for notification in &self.notifications {
            let text = notification.get();
            let head = head(text)?;
            let fits = page_request.after.is_none_or(|after| head.id < after)
                && !(page_request.only_unread && head.is_read)
                && page_request.kind.as_deref().is_none_or(|kind| kind == head.kind);
            if fits {
                found.push(text.to_owned());
            }
            if found.len() as u64 > page_request.limit {
                break;
            }
        }
        if found.len() as u64 <= page_request.limit && !self.complete {
            return None;
        }
        page(found, self.unread, page_request.limit).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> Id {
        Id::at(1000 + number, &[0; 10])
    }

    fn text(number: u64, kind: &str, read: bool) -> String {
        let read_at = if read { "\"2025-11-20T06:00:00.000Z\"" } else { "null" };
        format!(r#"{{"id":"{}","type":"{kind}","title":"có \"gì\"","read_at":{read_at}}}"#, id(number))
    }

    /// Numbers from `from` down: odd ones are mentions, every third is read.
    fn array(from: u64, count: u64) -> String {
        let kind = |n: u64| if n % 2 == 1 { "mention" } else { "system" };
        let texts: Vec<_> = (from + 1 - count..=from).rev().map(|n| text(n, kind(n), n % 3 == 0)).collect();
        format!("[{}]", texts.join(","))
    }

    fn page_request(limit: u64) -> PageRequest {
        PageRequest { only_unread: false, kind: None, after: None, limit }
    }

    fn numbers(page: &Page) -> Vec<u64> {
        page.notifications.iter().map(|text| head(text).unwrap().id.ms() - 1000).collect()
    }

    #[test]
    fn an_invalid_request_names_its_field() {
        let ours = id(3).to_string();
        let full = PageRequest::parse(Some("true"), Some("mention"), Some(&ours), 20).unwrap();
        assert_eq!(
            full,
            PageRequest { only_unread: true, kind: Some("mention".into()), after: Some(id(3)), limit: 20 }
        );
        for (unread, kind, cursor, field) in [
            (Some("maybe"), None, None, "unread"),
            (None, Some("gossip"), None, "type"),
            (None, Some(""), None, "type"),
            (None, None, Some("x"), "cursor"),
            (None, None, Some(""), "cursor"),
        ] {
            assert_eq!(
                PageRequest::parse(unread, kind, cursor, 20).unwrap_err().field.as_deref(),
                Some(field)
            );
        }
        assert!(!PageRequest::parse(Some("false"), None, None, 20).unwrap().only_unread);
    }

    #[test]
    fn a_page_within_the_newest_comes_from_the_cache() {
        let array = array(9, 10);
        let newest = Newest::of(&array, 7, 9).unwrap();
        let kept = newest.text();
        let newest = Newest::parse(&kept).unwrap();
        let first = newest.page(&page_request(4)).unwrap();
        assert_eq!((numbers(&first), first.next_cursor, first.unread), (vec![9, 8, 7, 6], Some(id(6)), 7));
        let second = newest.page(&PageRequest { after: Some(id(6)), ..page_request(4) }).unwrap();
        assert_eq!((numbers(&second), second.next_cursor), (vec![5, 4, 3, 2], Some(id(2))));
        // The next page may have older notifications than the newest.
        assert_eq!(newest.page(&PageRequest { after: Some(id(2)), ..page_request(4) }), None);
        assert_eq!(newest.page(&page_request(9)), None);
        let mentions = newest
            .page(&PageRequest { kind: Some("mention".into()), only_unread: true, ..page_request(2) })
            .unwrap();
        assert_eq!((numbers(&mentions), mentions.next_cursor), (vec![7, 5], Some(id(5))));
        assert_eq!(newest.page(&PageRequest { kind: Some("match".into()), ..page_request(2) }), None);
    }

    #[test]
    fn a_complete_cache_answers_every_request() {
        let array = array(3, 3);
        let newest = Newest::of(&array, 2, 9).unwrap();
        let all = newest.page(&page_request(3)).unwrap();
        assert_eq!((numbers(&all), all.next_cursor), (vec![3, 2, 1], None));
        let none = newest.page(&PageRequest { kind: Some("match".into()), ..page_request(2) }).unwrap();
        assert_eq!((none.notifications.len(), none.next_cursor), (0, None));
        assert_eq!(
            numbers(&newest.page(&PageRequest { after: Some(id(1)), ..page_request(2) }).unwrap()),
            Vec::<u64>::new()
        );
    }
}
