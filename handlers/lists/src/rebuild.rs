//! Rebuilds the whole read model in steps: first every conversation, then every user's list. Each step
//! returns the cursor of the next one, so the caller needs no other state. Traffic continues during the
//! rebuild.

use std::collections::BTreeSet;

use sdk::{Id, Problem};
use serde_json::{Value, json};

use crate::list::{self, ReadError};
use crate::{model, store};

/// The size of one step, which takes at most a few hundred milliseconds.
const CONVERSATIONS_AT_ONCE: usize = 200;
const PEOPLE_AT_ONCE: usize = 100;

/// Keys of the read model that the steps do not write. The host deletes them, and readers restore them from
/// Postgres.
const FORGOTTEN: [&str; 7] =
    ["counts:*", "unread:*", "page:*", "participants:*", "profile:*", "notifications:*", "search:*"];

/// The point at which a step begins.
#[derive(Debug, PartialEq)]
pub(crate) struct Step {
    done: u64,
    total: u64,
    next: Next,
}

#[derive(Debug, PartialEq)]
enum Next {
    Conversations(Id),
    People(String),
    End,
}

impl Step {
    pub(crate) fn first(total: u64) -> Self {
        Self { done: 0, total, next: Next::Conversations(Id::floor(0)) }
    }

    pub(crate) fn parse(cursor: &str) -> Option<Self> {
        let mut words = cursor.splitn(4, ' ');
        let (done, total) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let next = match (words.next()?, words.next()?) {
            ("conversations", id) => Next::Conversations(Id::parse(id)?),
            ("people", user) => Next::People(user.to_owned()),
            _ => return None,
        };
        Some(Self { done, total, next })
    }

    fn cursor(&self) -> Option<String> {
        let (what, after) = match &self.next {
            Next::Conversations(id) => ("conversations", id.to_string()),
            Next::People(user) => ("people", user.clone()),
            Next::End => return None,
        };
        Some(format!("{} {} {what} {after}", self.done, self.total))
    }

    /// The response. That of the first step also names the keys that the host has to delete.
    pub(crate) fn answer(&self, is_first: bool) -> Value {
        // The steps also visit what was created meanwhile, so `done` may exceed the initial total.
        let mut answer =
            json!({ "done": self.done, "total": self.total.max(self.done), "cursor": self.cursor() });
        if is_first {
            answer["forget"] = json!(FORGOTTEN);
        }
        answer
    }
}

pub(crate) fn run(step: Step) -> Result<Step, Problem> {
    let Step { done, total, next } = step;
    let ran = match next {
        Next::Conversations(after) => conversations(after),
        Next::People(after) => people(&after),
        Next::End => Ok((0, Next::End)),
    };
    match ran {
        Ok((count, next)) => Ok(Step { done: done + count, total, next }),
        Err(ReadError::Problem(problem)) => Err(problem),
        Err(ReadError::RedisUnavailable(_)) => Err(Problem::unavailable()),
    }
}

fn conversations(after: Id) -> Result<(u64, Next), ReadError> {
    let ids = store::conversations(after, CONVERSATIONS_AT_ONCE)?;
    let Some(last) = ids.last() else { return Ok((0, Next::People(String::new()))) };
    let claim = model::claim_metas(&ids, true)?;
    let metas = store::metas(&ids)?;
    for meta in &metas {
        model::fill_meta(&claim, meta)?;
    }
    let there: BTreeSet<Id> = metas.iter().map(|meta| meta.id).collect();
    model::forget_metas(ids.iter().copied().filter(|id| !there.contains(id)))?;
    Ok((ids.len() as u64, Next::Conversations(*last)))
}

fn people(after: &str) -> Result<(u64, Next), ReadError> {
    let people = store::people(after, PEOPLE_AT_ONCE)?;
    for user in &people {
        list::copy_list(user, true)?;
    }
    let next = people.last().map_or(Next::End, |last| Next::People(last.clone()));
    Ok((people.len() as u64, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_contains_the_point_where_the_next_step_begins() {
        let id = Id::parse("019a9fd9-277b-7fff-bfff-ffffffffffff").unwrap();
        for next in [Next::Conversations(id), Next::People("ana von b".into()), Next::People(String::new())] {
            let step = Step { done: 3, total: 9, next };
            assert_eq!(Step::parse(&step.cursor().unwrap()), Some(step));
        }
        let end = Step { done: 11, total: 9, next: Next::End };
        assert_eq!(end.answer(false), json!({ "done": 11, "total": 11, "cursor": null }));
        assert_eq!(end.answer(true)["forget"], json!(FORGOTTEN));
        for bad in ["", "1", "1 2 people", "1 2 cats x", "x 2 people a", "1 2 conversations x"] {
            assert_eq!(Step::parse(bad), None, "{bad}");
        }
    }
}
