//! Reads pages of the outbox from Postgres. A feed has a connection of its own, because clients wait for what
//! it reads. It uses the handlers' driver, which takes half as long as the pool's for so small a statement
//! (`docs/decisions/tokio-postgres-for-handlers.md`).

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, NoTls, Row, Statement};

use super::super::settings::{self, Purpose};
use super::{Cursor, Heads, Page, Stored};
use crate::Error;
use switchboard_core::limits;

/// Reads the events that became visible after each of several cursors, at most `$6` events for each shard,
/// and the oldest running transaction.
///
/// Holes and the events above `high` are read under one snapshot. If they were read one after the other, an
/// event could come before another event that its writer waited for.
const READ: &str = "
    with seen as materialized (
        select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as xmin
    )
    select seen.xmin, e.shard, e.position, e.id, e.event_type, e.key, e.payload::text as payload,
           (extract(epoch from e.created_at) * 1000)::bigint as created_ms
    from seen left join lateral (
        select late.* from unnest($3::smallint[], $4::bigint[], $5::bigint[]) as hole (shard, low, high)
        cross join lateral (
            select * from switchboard.outbox as o
            where o.shard = hole.shard and o.position between hole.low and hole.high
            order by o.position limit $6) as late
        union all
        select next.* from unnest($1::smallint[], $2::bigint[]) as cursor (shard, high)
        cross join lateral (
            select * from switchboard.outbox as o
            where o.shard = cursor.shard and o.position > cursor.high
            order by o.position limit $6) as next
    ) as e on true
    order by e.shard, e.position";

/// A new transaction id, higher than all before. The call uses up one id.
const NEXT_TRANSACTION: &str = "select pg_current_xact_id()::text::bigint";

pub(crate) struct Feed {
    login: tokio_postgres::Config,
    connection: Option<FeedConnection>,
}

/// An open connection with its statements prepared.
struct FeedConnection {
    client: Client,
    driver: JoinHandle<()>,
    read: Statement,
    next_transaction: Statement,
}

impl Feed {
    /// The connection is opened at the first read, and again after it was lost.
    pub(in super::super) fn new(mut login: tokio_postgres::Config) -> Self {
        // A standby is behind the primary: the cursor would pass over events that the standby does not show
        // yet.
        login.application_name("switchboard").target_session_attrs(TargetSessionAttrs::ReadWrite);
        Self { login, connection: None }
    }

    /// Reads the next page of each cursor. `heads` must have been read before.
    pub(crate) async fn read(
        &mut self,
        cursors: &[&Cursor],
        heads: &Heads,
        most: usize,
    ) -> Result<Vec<Page>, Error> {
        let wanted: Vec<_> = cursors.iter().map(|cursor| (*cursor, i64::MAX)).collect();
        self.read_up_to(&wanted, heads, most).await
    }

    /// Like `read`, but each cursor moves at most to the position beside it.
    pub(super) async fn read_up_to(
        &mut self,
        cursors: &[(&Cursor, i64)],
        heads: &Heads,
        most: usize,
    ) -> Result<Vec<Page>, Error> {
        let read_timeout = limits::OUTBOX_READ_WAIT;
        let pages = timeout(read_timeout, async {
            let connection = match &self.connection {
                Some(connection) => connection,
                None => self.connection.insert(FeedConnection::open(&self.login).await?),
            };
            connection.pages(cursors, heads, most).await
        });
        let pages = pages.await.map_err(|_| Error::Late).and_then(|pages| pages.map_err(Error::Read));
        if pages.is_err() {
            self.connection = None;
        }
        pages
    }
}

impl FeedConnection {
    async fn open(login: &tokio_postgres::Config) -> Result<Self, tokio_postgres::Error> {
        let (client, driver) = login.connect(NoTls).await?;
        let driver = tokio::spawn(async move {
            // The caller that waits for an answer gets the error.
            let _ = driver.await;
        });
        client.batch_execute(settings::statements(Purpose::Handler)).await?;
        let read = client.prepare(READ).await?;
        let next_transaction = client.prepare(NEXT_TRANSACTION).await?;
        Ok(Self { client, driver, read, next_transaction })
    }

    async fn pages(
        &self,
        wanted: &[(&Cursor, i64)],
        heads: &Heads,
        most: usize,
    ) -> Result<Vec<Page>, tokio_postgres::Error> {
        let cursors = wanted.iter().map(|(cursor, _)| *cursor);
        let (shards, highs): (Vec<i16>, Vec<i64>) =
            cursors.clone().map(|cursor| (cursor.shard, cursor.high)).unzip();
        let holes = cursors.clone().flat_map(|cursor| cursor.holes.bounds().map(|hole| (cursor.shard, hole)));
        let (hole_shards, holes): (Vec<i16>, Vec<(i64, i64)>) = holes.unzip();
        let (lows, his): (Vec<i64>, Vec<i64>) = holes.into_iter().unzip();
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&shards, &highs, &hole_shards, &lows, &his, &(most as i64)];
        let rows = self.client.query(&self.read, &params).await?;

        let mut xmin = 0;
        let mut events: HashMap<i16, Vec<Stored>> = HashMap::new();
        for row in rows {
            xmin = row.try_get("xmin")?;
            // Where there is no event, one row carries only the snapshot.
            if row.try_get::<_, Option<i64>>("position")?.is_some() {
                let event = stored(&row)?;
                events.entry(event.shard).or_default().push(event);
            }
        }
        let mut pages = Vec::with_capacity(wanted.len());
        for &(cursor, up_to) in wanted {
            let events = events.remove(&cursor.shard).unwrap_or_default();
            pages.push(page(cursor, events, up_to, heads, xmin, most));
        }
        if pages.iter().zip(cursors).any(|(page, cursor)| page.after.holes.want_horizon(&cursor.holes)) {
            let horizon = self.client.query_one(&self.next_transaction, &[]).await?.try_get(0)?;
            pages.iter_mut().for_each(|page| page.after.holes.set_horizon(horizon));
        }
        Ok(pages)
    }
}

impl Drop for FeedConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn page(cursor: &Cursor, mut events: Vec<Stored>, up_to: i64, heads: &Heads, xmin: i64, most: usize) -> Page {
    events.truncate(most);
    // A full page does not show what is behind it, unless it shows an event beyond the last wanted one.
    let shows_all = events.len() < most || events.last().is_some_and(|event| event.position > up_to);
    events.retain(|event| event.position <= up_to);
    let mut after = cursor.clone();
    let head = shows_all.then_some(heads[cursor.shard as usize].min(up_to));
    let positions = events.iter().map(|event| event.position);
    let kept = after.holes.advance(&mut after.high, positions, head, xmin, limits::OUTBOX_HOLES_MAX);
    events.truncate(kept);
    Page { events: events.into_iter().map(Arc::new).collect(), after }
}

fn stored(row: &Row) -> Result<Stored, tokio_postgres::Error> {
    Ok(Stored {
        shard: row.try_get("shard")?,
        position: row.try_get("position")?,
        id: row.try_get("id")?,
        event_type: row.try_get("event_type")?,
        key: row.try_get("key")?,
        payload: row.try_get("payload")?,
        created_ms: row.try_get("created_ms")?,
    })
}
