//! The newest part of each shard, as one node has read it: events in their order, and the cursor after each.
//! All consumers of the node take their pages from it. Pure: no IO and no clock; the caller passes the time.
//!
//! A cursor is *connected* when it equals one of the cursors of the tail. The consumer can then follow the
//! tail, because the same reads that led the tail from there to its end lead its own cursor there. Any other
//! consumer must read Postgres until its cursor is connected.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Committed, Cursor, News, Page, Stored};
use switchboard_core::limits;

/// The tails of all shards. A shard without one was not read by a consumer of this node yet.
#[derive(Default)]
pub(super) struct Tails([Option<Tail>; limits::OUTBOX_SHARDS as usize]);

struct Tail {
    /// The cursor before the first entry. It has no consumer, and no epoch of an owner.
    start: Cursor,
    entries: VecDeque<Entry>,
    /// Bytes of the events. They are above [`limits::OUTBOX_TAIL_BYTES_MAX`] only by the last page, until a
    /// consumer has passed it.
    bytes: usize,
    /// The last read of Postgres.
    read: Option<LastRead>,
    /// Set while committed events wait beside the tail because positions before them are missing: how many
    /// were ever added.
    waiting: Option<u64>,
}

struct Entry {
    /// `None` for a step that only moved the cursor, for instance over a hole that was forgotten.
    event: Option<Arc<Stored>>,
    after: Cursor,
}

/// The heads and wakes that were known before a read began.
#[derive(Clone, Copy)]
struct LastRead {
    at: Instant,
    head: i64,
    wakes: u64,
    /// How many committed events were ever added beside the tail.
    committed: u64,
    /// True when the page was full, so that there may be more events.
    was_full: bool,
}

/// The pages that the tails have for the cursors of one consumer.
pub(super) struct Split<'a> {
    /// The pages of the cursors that are connected and not at the end.
    pub(super) pages: Vec<Page>,
    /// The cursors that are not connected, each with the last position up to which its consumer reads
    /// Postgres.
    pub(super) behind: Vec<(&'a Cursor, i64)>,
}

impl Tails {
    /// Begins a new tail at a cursor that is ahead of the tail of its shard, or belongs to a newer history.
    pub(super) fn reach(&mut self, cursor: &Cursor) {
        let tail = &mut self.0[cursor.shard as usize];
        if tail.as_ref().is_none_or(|tail| tail.is_before(cursor)) {
            *tail = Some(Tail::new(cursor));
        }
    }

    /// True when the cursor has passed exactly what the tail of its shard has passed.
    pub(super) fn is_at_end(&self, cursor: &Cursor) -> bool {
        self.0[cursor.shard as usize].as_ref().is_some_and(|tail| tail.end().is_at(cursor))
    }

    /// Drops the oldest events of a shard above the bound. A consumer that is among them reads Postgres.
    pub(super) fn trim(&mut self, shard: i16) {
        if let Some(tail) = &mut self.0[shard as usize] {
            tail.trim();
        }
    }

    /// Returns pages with at most `most` events in all, or one event for each shard.
    pub(super) fn split<'a>(&self, cursors: &[&'a Cursor], most: usize) -> Split<'a> {
        let (mut next, mut behind) = (Vec::new(), Vec::new());
        for &cursor in cursors {
            let Some(tail) = &self.0[cursor.shard as usize] else { continue };
            match tail.find(cursor) {
                Some(index) if index < tail.entries.len() => next.push((cursor, tail, index)),
                Some(_) => {}
                None => behind.push((cursor, tail.end().high.max(cursor.high))),
            }
        }
        let each = most.div_ceil(next.len().max(1));
        let pages = next.into_iter().map(|(cursor, tail, index)| tail.page(cursor, index, each)).collect();
        Split { pages, behind }
    }

    /// True when every position up to `head` was seen.
    pub(super) fn is_through(&self, shard: i16, head: i64) -> bool {
        self.0[shard as usize].as_ref().is_none_or(|tail| tail.end().is_through(head))
    }

    /// True when Postgres may have more than the tail: a wake, a head, a full page or a committed event shows
    /// it, or positions are missing and were not looked for within [`limits::OUTBOX_TICK`].
    pub(super) fn is_due(&self, shard: i16, news: &News, now: Instant) -> bool {
        let Some(tail) = &self.0[shard as usize] else { return false };
        let (head, wakes) = (news.heads[shard as usize], news.wakes[shard as usize]);
        let Some(read) = tail.read else { return true };
        read.was_full
            || wakes > read.wakes
            || tail.waiting.is_some_and(|added| added > read.committed)
            || head > read.head.max(tail.end().high)
            || !tail.end().is_through(head) && now >= read.at + limits::OUTBOX_TICK
    }

    /// The end of a tail, from which Postgres is read.
    pub(super) fn end(&self, shard: i16) -> Option<&Cursor> {
        self.0[shard as usize].as_ref().map(Tail::end)
    }

    /// Takes the committed events that continue the tail of a shard. Returns their number.
    pub(super) fn take_committed(&mut self, shard: i16, committed: &Committed) -> usize {
        let Some(tail) = &mut self.0[shard as usize] else { return 0 };
        let (events, waiting) = committed.take(tail.end());
        tail.waiting = waiting;
        let count = events.len();
        if count > 0 {
            tail.trim();
            events.into_iter().for_each(|event| tail.push(Arc::new(event)));
        }
        count
    }

    /// Adds a page that was read from the end of its tail. `at` and `news` are of before the read.
    pub(super) fn append(&mut self, page: Page, is_full: bool, at: Instant, news: &News) {
        let shard = page.after.shard as usize;
        let Some(tail) = &mut self.0[shard] else { return };
        let (head, wakes) = (news.heads[shard], news.wakes[shard]);
        let committed = tail.waiting.unwrap_or(0);
        tail.read = Some(LastRead { at, head, wakes, committed, was_full: is_full });
        tail.trim();
        for event in page.events {
            tail.push(event);
        }
        if *tail.end() != page.after {
            tail.entries.push_back(Entry { event: None, after: page.after });
        }
    }
}

impl Tail {
    fn new(cursor: &Cursor) -> Self {
        let start = Cursor { consumer: String::new(), epoch: 0, ..cursor.clone() };
        Self { start, entries: VecDeque::new(), bytes: 0, read: None, waiting: None }
    }

    fn end(&self) -> &Cursor {
        self.entries.back().map_or(&self.start, |entry| &entry.after)
    }

    /// The index of the first entry that the cursor has not passed. Most cursors are at the end.
    fn find(&self, cursor: &Cursor) -> Option<usize> {
        let before = self.entries.iter().rposition(|entry| entry.after.is_at(cursor));
        before.map(|at| at + 1).or_else(|| self.start.is_at(cursor).then_some(0))
    }

    /// True when the cursor has passed everything that the tail has, and more.
    fn is_before(&self, cursor: &Cursor) -> bool {
        let end = self.end();
        let seen = |cursor: &Cursor| (cursor.history, cursor.high, -cursor.holes.missing());
        seen(cursor) > seen(end)
    }

    /// The entries from `index` on, with at most `most` events.
    fn page(&self, cursor: &Cursor, index: usize, most: usize) -> Page {
        let (mut events, mut after) = (Vec::new(), cursor.clone());
        for entry in self.entries.range(index..) {
            if let Some(event) = &entry.event {
                if events.len() == most {
                    break;
                }
                events.push(event.clone());
            }
            after.move_to(&entry.after);
        }
        Page { events, after }
    }

    fn push(&mut self, event: Arc<Stored>) {
        let mut after = self.end().clone();
        after.pass_position(event.position);
        self.bytes += event.size();
        self.entries.push_back(Entry { event: Some(event), after });
    }

    /// Drops the oldest entries above the bound.
    fn trim(&mut self) {
        while (self.bytes > limits::OUTBOX_TAIL_BYTES_MAX
            || self.entries.len() > limits::OUTBOX_TAIL_ENTRIES_MAX)
            && let Some(entry) = self.entries.pop_front()
        {
            self.bytes -= entry.event.map_or(0, |event| event.size());
            self.start = entry.after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(high: i64) -> Cursor {
        let consumer = "reader".to_owned();
        Cursor { consumer, shard: 0, epoch: 7, history: 1, high, holes: super::super::Holes::default() }
    }

    fn event(position: i64) -> Arc<Stored> {
        let text = "x".to_owned();
        let (id, event_type, key, payload) = (uuid::Uuid::nil(), text.clone(), text.clone(), text);
        Arc::new(Stored { shard: 0, position, id, event_type, key, payload, created_ms: 0 })
    }

    /// A read from the end that shows these positions.
    fn read(tails: &mut Tails, positions: &[i64], news: &News) {
        let mut after = tails.end(0).unwrap().clone();
        let events: Vec<_> = positions.iter().copied().map(event).collect();
        after.pass(&events);
        tails.append(Page { events, after }, false, Instant::now(), news);
    }

    fn positions(split: &Split<'_>) -> Vec<i64> {
        split.pages.iter().flat_map(|page| &page.events).map(|event| event.position).collect()
    }

    #[test]
    fn a_consumer_follows_from_any_cursor_of_the_tail() {
        let (mut tails, ana) = (Tails::default(), cursor(4));
        tails.reach(&ana);
        read(&mut tails, &[5, 6, 9], &News::default());
        let split = tails.split(&[&ana], 2);
        assert_eq!(positions(&split), [5, 6]);
        let after = split.pages[0].after.clone();
        assert_eq!((after.epoch, &*after.consumer), (7, "reader"), "the cursor stays that of its consumer");
        // It handled only one of them.
        let mut bo = ana.clone();
        bo.pass(&[event(5)]);
        assert_eq!(positions(&tails.split(&[&bo], 10)), [6, 9]);
        assert_eq!(positions(&tails.split(&[&after], 10)), [9]);
        let end = tails.split(&[&after], 10).pages[0].after.clone();
        assert!(tails.is_at_end(&end) && tails.split(&[&end], 10).pages.is_empty());
        // A hole was filled; the event comes after those that were passed before it.
        read(&mut tails, &[8], &News::default());
        assert_eq!(positions(&tails.split(&[&end], 10)), [8]);
        assert_eq!(positions(&tails.split(&[&bo], 10)), [6, 9, 8]);
    }

    #[test]
    fn a_cursor_that_is_not_of_the_tail_reads_postgres_up_to_its_end() {
        let mut tails = Tails::default();
        tails.reach(&cursor(4));
        read(&mut tails, &[5, 6], &News::default());
        let behind = cursor(2);
        tails.reach(&behind);
        let split = tails.split(&[&behind], 10);
        assert!(split.pages.is_empty());
        assert_eq!(split.behind.iter().map(|(_, up_to)| *up_to).collect::<Vec<_>>(), [6]);
        // A cursor that is ahead, or of a newer history, begins a new tail.
        for ahead in [cursor(9), Cursor { history: 2, ..cursor(3) }] {
            tails.reach(&ahead);
            assert!(tails.is_at_end(&ahead) && tails.split(&[&ahead], 10).behind.is_empty());
        }
    }

    #[test]
    fn postgres_is_read_when_something_shows_that_it_has_more() {
        let (mut tails, now) = (Tails::default(), Instant::now());
        let mut news = News::default();
        assert!(!tails.is_due(0, &news, now), "no consumer");
        tails.reach(&cursor(4));
        assert!(tails.is_due(0, &news, now), "never read");
        read(&mut tails, &[5], &news);
        assert!(!tails.is_due(0, &news, now));
        news.wakes[0] = 1;
        assert!(tails.is_due(0, &news, now));
        read(&mut tails, &[6], &news);
        assert!(!tails.is_due(0, &news, now));
        news.heads[0] = 6;
        assert!(!tails.is_due(0, &news, now), "seen already");
        news.heads[0] = 7;
        assert!(tails.is_due(0, &news, now));
        read(&mut tails, &[8], &news);
        let later = Instant::now() + limits::OUTBOX_TICK;
        assert!(!tails.is_due(0, &news, now) && tails.is_due(0, &news, later), "7 is missing");
        read(&mut tails, &[7], &news);
        assert!(!tails.is_due(0, &news, later));
    }

    #[test]
    fn a_long_tail_loses_its_oldest_events() {
        let mut tails = Tails::default();
        tails.reach(&cursor(0));
        let many = limits::OUTBOX_TAIL_ENTRIES_MAX as i64;
        read(&mut tails, &(1..=many + 1).collect::<Vec<_>>(), &News::default());
        assert_eq!(tails.split(&[&cursor(0)], 1).pages.len(), 1, "the last page is complete");
        read(&mut tails, &[many + 2], &News::default());
        assert_eq!(tails.split(&[&cursor(0)], 1).behind.len(), 1);
        assert_eq!(positions(&tails.split(&[&cursor(1)], 1)), [2]);
    }

    #[test]
    fn a_large_page_is_dropped_when_it_is_passed() {
        let mut tails = Tails::default();
        tails.reach(&cursor(0));
        let large = |position| {
            let payload = "x".repeat(limits::OUTBOX_TAIL_BYTES_MAX);
            Arc::new(Stored { payload, ..Stored::clone(&event(position)) })
        };
        let mut after = cursor(0);
        let events = vec![large(1), large(2)];
        after.pass(&events);
        tails.append(Page { events, after: after.clone() }, false, Instant::now(), &News::default());
        assert_eq!(positions(&tails.split(&[&cursor(0)], 2)), [1, 2]);
        tails.trim(0);
        let bytes = tails.0[0].as_ref().unwrap().bytes;
        assert!(bytes <= limits::OUTBOX_TAIL_BYTES_MAX, "{bytes}");
        assert!(tails.is_at_end(&after), "it goes on from there");
        read(&mut tails, &[3], &News::default());
        assert_eq!(positions(&tails.split(&[&after], 2)), [3]);
    }
}
