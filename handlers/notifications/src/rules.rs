//! What may be asked of a person's notifications, and which of it the newest hundred answer. Pure: no host calls, so plain
//! `cargo test` runs it.

use chat::notification;
use sdk::{Id, Problem, cursor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub const LIMIT_DEFAULT: u64 = 20;
pub const LIMIT_MAX: u64 = 100;

/// A page that somebody asks for, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    pub only_unread: bool,
    pub kind: Option<String>,
    /// Exclusive: the last of the page before.
    pub after: Option<Id>,
    pub limit: u64,
}

impl Wish {
    /// `unread`, `type` and `cursor` as the query string has them.
    pub fn parse(
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
pub struct Page {
    /// JSON as every answer and push has it.
    pub notifications: Vec<String>,
    pub next_cursor: Option<Id>,
    /// All of the person's, whatever the page shows.
    pub unread: u64,
}

/// What Postgres was asked for: one more than the page has, when there is a next one.
pub fn page(texts: Vec<String>, unread: u64, limit: u64) -> Result<Page, Problem> {
    let more = texts.len() as u64 > limit;
    let mut notifications = texts;
    notifications.truncate(limit as usize);
    let next_cursor = match notifications.last() {
        Some(last) if more => Some(head(last).ok_or_else(Problem::internal)?.id),
        _ => None,
    };
    Ok(Page { notifications, next_cursor, unread })
}

/// A person's newest notifications, as they are cached.
#[derive(Serialize, Deserialize)]
pub struct Newest<'a> {
    unread: u64,
    /// There are no older ones.
    complete: bool,
    #[serde(borrow)]
    notifications: Vec<&'a RawValue>,
}

/// What of a notification decides where it belongs.
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
    /// Of an array of at most `most` and one more, where there is one.
    pub fn of(array: &'a str, unread: u64, most: usize) -> Option<Self> {
        let mut notifications: Vec<&RawValue> = serde_json::from_str(array).ok()?;
        let complete = notifications.len() <= most;
        notifications.truncate(most);
        Some(Self { unread, complete, notifications })
    }

    pub fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("plain data becomes JSON")
    }

    /// The page, if it lies within the newest, with what tells whether there is a next one.
    pub fn page(&self, wish: &Wish) -> Option<Page> {
        let mut found = Vec::new();
        for notification in &self.notifications {
            let text = notification.get();
            let head = head(text)?;
            let fits = wish.after.is_none_or(|after| head.id < after)
                && !(wish.only_unread && head.is_read)
                && wish.kind.as_deref().is_none_or(|kind| kind == head.kind);
            if fits {
                found.push(text.to_owned());
            }
            if found.len() as u64 > wish.limit {
                break;
            }
        }
        if found.len() as u64 <= wish.limit && !self.complete {
            return None;
        }
        page(found, self.unread, wish.limit).ok()
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

    fn wish(limit: u64) -> Wish {
        Wish { only_unread: false, kind: None, after: None, limit }
    }

    fn numbers(page: &Page) -> Vec<u64> {
        page.notifications.iter().map(|text| head(text).unwrap().id.ms() - 1000).collect()
    }

    #[test]
    fn what_is_asked_is_checked() {
        let ours = id(3).to_string();
        let full = Wish::parse(Some("true"), Some("mention"), Some(&ours), 20).unwrap();
        assert_eq!(
            full,
            Wish { only_unread: true, kind: Some("mention".into()), after: Some(id(3)), limit: 20 }
        );
        for (unread, kind, cursor, field) in [
            (Some("maybe"), None, None, "unread"),
            (None, Some("gossip"), None, "type"),
            (None, Some(""), None, "type"),
            (None, None, Some("x"), "cursor"),
            (None, None, Some(""), "cursor"),
        ] {
            assert_eq!(Wish::parse(unread, kind, cursor, 20).unwrap_err().field.as_deref(), Some(field));
        }
        assert!(!Wish::parse(Some("false"), None, None, 20).unwrap().only_unread);
    }

    #[test]
    fn the_newest_answer_what_lies_within_them() {
        let array = array(9, 10);
        let newest = Newest::of(&array, 7, 9).unwrap();
        let kept = newest.text();
        let newest = Newest::parse(&kept).unwrap();
        let first = newest.page(&wish(4)).unwrap();
        assert_eq!((numbers(&first), first.next_cursor, first.unread), (vec![9, 8, 7, 6], Some(id(6)), 7));
        let second = newest.page(&Wish { after: Some(id(6)), ..wish(4) }).unwrap();
        assert_eq!((numbers(&second), second.next_cursor), (vec![5, 4, 3, 2], Some(id(2))));
        // What follows may be older than the newest.
        assert_eq!(newest.page(&Wish { after: Some(id(2)), ..wish(4) }), None);
        assert_eq!(newest.page(&wish(9)), None);
        let mentions =
            newest.page(&Wish { kind: Some("mention".into()), only_unread: true, ..wish(2) }).unwrap();
        assert_eq!((numbers(&mentions), mentions.next_cursor), (vec![7, 5], Some(id(5))));
        assert_eq!(newest.page(&Wish { kind: Some("match".into()), ..wish(2) }), None);
    }

    #[test]
    fn where_there_are_no_older_ones_everything_is_answered() {
        let array = array(3, 3);
        let newest = Newest::of(&array, 2, 9).unwrap();
        let all = newest.page(&wish(3)).unwrap();
        assert_eq!((numbers(&all), all.next_cursor), (vec![3, 2, 1], None));
        let none = newest.page(&Wish { kind: Some("match".into()), ..wish(2) }).unwrap();
        assert_eq!((none.notifications.len(), none.next_cursor), (0, None));
        assert_eq!(
            numbers(&newest.page(&Wish { after: Some(id(1)), ..wish(2) }).unwrap()),
            Vec::<u64>::new()
        );
    }
}
