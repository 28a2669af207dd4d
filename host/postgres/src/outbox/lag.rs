//! How far each consumer is behind, for operators. Nothing is decided by it.

use std::collections::BTreeMap;

use sqlx::postgres::PgPool;

use super::{Heads, heads};

/// One reader of the outbox, over all shards.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Lag {
    pub consumer: String,
    /// Positions that it has not passed. Those of transactions that were rolled back count too, until it has.
    pub behind: i64,
    /// Events that wait to be delivered again, and those that wait behind them.
    pub retries: i64,
    /// Events that it gave up.
    pub failed: i64,
    /// No release consumes for it any more: its handler is retired, or binds no events. Its cursors stay, and hold nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retired: bool,
    /// Events that were cleaned away meanwhile and that it never saw.
    #[serde(default, skip_serializing_if = "is_none")]
    pub missed: i64,
}

fn is_none(count: &i64) -> bool {
    *count == 0
}

/// By name.
pub async fn lag(pool: &PgPool) -> sqlx::Result<Vec<Lag>> {
    let heads = heads(pool).await?;
    let cursors: Vec<(String, i16, i64, i64, bool)> = sqlx::query_as(
        "select consumer, shard, high, missed, consumer = any (switchboard.consumers_gone())
         from switchboard.cursors",
    )
    .fetch_all(pool)
    .await?;
    let mut lags: BTreeMap<String, Lag> = BTreeMap::new();
    for (consumer, shard, high, missed, retired) in cursors {
        let lag = of(&mut lags, consumer);
        lag.behind += behind(&heads, shard, high);
        lag.missed += missed;
        lag.retired = retired;
    }
    // A consumer whose handler is gone may have left some.
    let waiting: Vec<(String, i64, bool)> = sqlx::query_as(
        "select consumer, count(*), true from switchboard.retries group by consumer
         union all
         select consumer, count(*), false from switchboard.parked group by consumer",
    )
    .fetch_all(pool)
    .await?;
    for (consumer, count, is_retry) in waiting {
        let lag = of(&mut lags, consumer);
        *(if is_retry { &mut lag.retries } else { &mut lag.failed }) = count;
    }
    Ok(lags.into_values().collect())
}

fn of(lags: &mut BTreeMap<String, Lag>, consumer: String) -> &mut Lag {
    lags.entry(consumer.clone()).or_insert_with(|| Lag { consumer, ..Lag::default() })
}

fn behind(heads: &Heads, shard: i16, high: i64) -> i64 {
    let head = usize::try_from(shard).ok().and_then(|shard| heads.get(shard));
    head.map_or(0, |head| (head - high).max(0))
}
