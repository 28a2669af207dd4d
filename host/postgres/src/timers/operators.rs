//! The operators' view of timers: list and cancel. The parked ones are in the list of failed events too
//! (`outbox/parked.rs`).

use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use uuid::Uuid;

use super::Timers;
use crate::Error;
use switchboard_core::limits;

/// A timer as an operator sees it. Its payload is not shown: it may hold what users wrote.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ListedTimer {
    pub id: Uuid,
    pub handler: String,
    pub key: String,
    /// `waiting`, `firing` (a node has claimed it) or `parked`.
    pub state: String,
    pub due_at: String,
    /// When it fires next. Of a claimed timer: when another node may fire it.
    pub next_at: String,
    pub attempts: i32,
    pub error: Option<String>,
}

impl FromRow<'_, PgRow> for ListedTimer {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            handler: row.try_get("handler")?,
            key: row.try_get("key")?,
            state: row.try_get("state")?,
            due_at: row.try_get("due_at")?,
            next_at: row.try_get("next_at")?,
            attempts: row.try_get("attempts")?,
            error: row.try_get("error")?,
        })
    }
}

impl Timers {
    /// Returns the timers of a handler, or of all, those that fire first at the beginning.
    pub async fn listed(&self, handler: Option<&str>) -> Result<Vec<ListedTimer>, Error> {
        Ok(sqlx::query_as(
            "select id, handler, key, attempts, error,
                    case when parked_at is not null then 'parked' when owner is not null then 'firing'
                         else 'waiting' end as state,
                    switchboard.rfc3339(t.due_at) as due_at, switchboard.rfc3339(t.next_at) as next_at
             from switchboard.timers t where $1::text is null or handler = $1
             order by t.next_at, handler, key limit $2",
        )
        .bind(handler)
        .bind(limits::TIMERS_LISTED_MAX)
        .fetch_all(&self.pool)
        .await?)
    }

    /// Removes all timers of a handler. Returns their number.
    pub async fn cancel_all(&self, handler: &str) -> Result<u64, Error> {
        let gone = sqlx::query(
            // In the order in which outcomes are stored, so that the two statements do not block each other.
            "with locked as materialized (
               select handler, key from switchboard.timers where handler = $1 order by key for update
             )
             delete from switchboard.timers t using locked l where t.handler = l.handler and t.key = l.key",
        );
        Ok(gone.bind(handler).execute(&self.pool).await?.rows_affected())
    }
}
