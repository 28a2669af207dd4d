//! The reader of the outbox that all consumers of one node share. It has the newest events of each shard
//! (`tail`). Events that this node committed come from memory (`committed`), if they follow the last one. All
//! others are read from Postgres, once for all consumers. A consumer that is further behind reads through a
//! connection of its own until it has reached the tail, so that it delays no other consumer.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::committed::ShardsRead;
use super::feed::Feed;
use super::tail::{Split, Tails};
use super::{Committed, Cursor, Heads, Page, WakeCounts};
use crate::Error;

/// Clones share the reader.
#[derive(Clone)]
pub struct NodeFeed(Arc<Shared>);

struct Shared {
    login: tokio_postgres::Config,
    committed: Committed,
    /// Held during a read of Postgres: the others need what it brings.
    reader: Mutex<Reader>,
}

struct Reader {
    tails: Tails,
    feed: Feed,
}

/// The heads and wakes that a consumer knows of when it asks for pages.
#[derive(Clone, Copy, Debug, Default)]
pub struct News {
    pub heads: Heads,
    pub wakes: WakeCounts,
}

/// The next pages of a consumer.
pub struct Pages {
    /// One page for each cursor that moves. A page may have no events.
    pub pages: Vec<Page>,
    /// False while positions are missing, or pages of further events can be read.
    pub is_through: bool,
}

/// The access of one consumer.
pub struct ConsumerFeed {
    node: NodeFeed,
    shards: Arc<ShardsRead>,
    /// Open while the consumer is behind the tail.
    own: Option<Feed>,
}

impl NodeFeed {
    pub(in super::super) fn new(login: tokio_postgres::Config, committed: Committed) -> Self {
        let reader = Reader { tails: Tails::default(), feed: Feed::new(login.clone()) };
        Self(Arc::new(Shared { login, committed, reader: Mutex::new(reader) }))
    }

    pub fn consumer(&self) -> ConsumerFeed {
        ConsumerFeed { node: self.clone(), shards: self.0.committed.reader(), own: None }
    }
}

impl ConsumerFeed {
    /// Returns the next page of each cursor that moves, with about `most` events in all. It reads Postgres
    /// only for shards of which the node knows no next event.
    pub async fn next(&mut self, cursors: &[&Cursor], news: &News, most: usize) -> Result<Pages, Error> {
        self.shards.set(cursors);
        let mut reader = self.node.0.reader.lock().await;
        let read = reader.read_due(cursors, news, most, &self.node.0.committed).await;
        let Split { mut pages, behind } = reader.tails.split(cursors, most);
        match read {
            Ok(()) => {}
            Err(error) if pages.is_empty() => return Err(error),
            // These pages do not need the read. The error is reported when there are no others.
            Err(_) => return Ok(Pages { pages, is_through: false }),
        }
        let head = |shard: i16| news.heads[shard as usize];
        let is_through = behind.is_empty()
            && cursors.iter().all(|cursor| reader.tails.is_through(cursor.shard, head(cursor.shard)));
        drop(reader);
        if behind.is_empty() {
            self.own = None;
        } else {
            let own = self.own.get_or_insert_with(|| Feed::new(self.node.0.login.clone()));
            match own.read_up_to(&behind, &news.heads, most.div_ceil(behind.len())).await {
                Ok(read) => {
                    let read = read.into_iter().zip(&behind);
                    let moved = read.filter(|(page, (cursor, _))| page.after != **cursor);
                    pages.extend(moved.map(|(page, _)| page));
                }
                Err(error) if pages.is_empty() => return Err(error),
                Err(_) => {}
            }
        }
        Ok(Pages { pages, is_through })
    }
}

impl Reader {
    /// Reads the shards whose tails have no next event for these cursors, if Postgres may have one.
    async fn read_due(
        &mut self,
        cursors: &[&Cursor],
        news: &News,
        most: usize,
        committed: &Committed,
    ) -> Result<(), Error> {
        let now = Instant::now();
        let mut taken = 0;
        for cursor in cursors {
            self.tails.reach(cursor);
            taken += self.tails.take_committed(cursor.shard, committed);
        }
        count("memory", taken);
        let at_end = cursors.iter().filter(|cursor| self.tails.is_at_end(cursor));
        let at_end: Vec<i16> = at_end.map(|cursor| cursor.shard).collect();
        at_end.iter().for_each(|shard| self.tails.trim(*shard));
        let due = at_end.into_iter().filter(|shard| self.tails.is_due(*shard, news, now));
        let ends: Vec<Cursor> = due.filter_map(|shard| self.tails.end(shard)).cloned().collect();
        if ends.is_empty() {
            return Ok(());
        }
        let most = most.div_ceil(ends.len());
        let pages = self.feed.read(&ends.iter().collect::<Vec<_>>(), &news.heads, most).await?;
        count("postgres", pages.iter().map(|page| page.events.len()).sum());
        for page in pages {
            let is_full = page.events.len() >= most;
            self.tails.append(page, is_full, now, news);
        }
        Ok(())
    }
}

/// Counts events that joined the tails.
fn count(from: &'static str, events: usize) {
    if events > 0 {
        metrics::counter!("switchboard_outbox_taken_total", "from" => from).increment(events as u64);
    }
}

#[cfg(test)]
mod tests;
