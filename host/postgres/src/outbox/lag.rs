//! How far each consumer is behind, for operators. No code decides anything by it.

use std::collections::BTreeMap;

use super::{Heads, Outbox};
use crate::Error;

/// One consumer of the outbox, over all shards.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Lag {
    pub consumer: String,
    /// The number of positions that it has not passed. Positions of rolled back transactions count until they
    /// are passed.
    pub behind: i64,
    /// Events that wait to be delivered again, and the events that wait behind them.
    pub retries: i64,
    /// Parked events and timers: those that the consumer gave up.
    pub failed: i64,
    /// True when no release of the consumer reads events: its handler is retired, or binds no events. Its
    /// cursors stay, and do not keep partitions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retired: bool,
    /// Events that were deleted with their partition before the consumer saw them.
    #[serde(default, skip_serializing_if = "is_none")]
    pub missed: i64,
}

fn is_none(count: &i64) -> bool {
    *count == 0
}

impl Outbox {
    /// Returns the lag of each consumer, ordered by name.
    pub async fn lag(&self) -> Result<Vec<Lag>, Error> {
        let heads = self.heads().await?;
        let cursors: Vec<(String, i16, i64, i64, bool)> = sqlx::query_as(
            "select consumer, shard, high, missed, consumer = any (switchboard.consumers_gone())
             from switchboard.cursors",
        )
        .fetch_all(&self.0)
        .await?;
        let mut lags: BTreeMap<String, Lag> = BTreeMap::new();
        for (consumer, shard, high, missed, retired) in cursors {
            let lag = of(&mut lags, consumer);
            lag.behind += behind(&heads, shard, high);
            lag.missed += missed;
            lag.retired = retired;
        }
        // A consumer whose handler is gone may have left retries or parked events. A handler with parked
        // timers may consume no events.
        let waiting: Vec<(String, i64, bool)> = sqlx::query_as(
            "select consumer, count(*), true from switchboard.retries group by consumer
             union all
             select consumer, count(*), false from switchboard.parked group by consumer
             union all
             select handler, count(*), false from switchboard.timers where parked_at is not null group by handler",
        )
        .fetch_all(&self.0)
        .await?;
        for (consumer, count, is_retry) in waiting {
            let lag = of(&mut lags, consumer);
            *(if is_retry { &mut lag.retries } else { &mut lag.failed }) += count;
        }
        Ok(lags.into_values().collect())
    }
}

fn of(lags: &mut BTreeMap<String, Lag>, consumer: String) -> &mut Lag {
    lags.entry(consumer.clone()).or_insert_with(|| Lag { consumer, ..Lag::default() })
}

fn behind(heads: &Heads, shard: i16, high: i64) -> i64 {
    let head = usize::try_from(shard).ok().and_then(|shard| heads.get(shard));
    head.map_or(0, |head| (head - high).max(0))
}
