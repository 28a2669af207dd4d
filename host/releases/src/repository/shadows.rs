//! The results of shadows: each node's counts, and their sum over all nodes.

use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::{Repository, RepositoryError, digest, failed_to};
use switchboard_core::ids::{Digest, NodeId};
use switchboard_core::limits;
use switchboard_postgres::storable;

/// How the calls of a shadow compare with those of the running release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShadowReport {
    #[serde(rename = "release", default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Calls with the same host calls in the same order, and the same answer.
    pub same: u64,
    /// Calls that ended at the first different host call, or with a different answer.
    pub differing: u64,
    /// Sampled calls that the shadow did not get: its worker was busy, or they were too large to record.
    pub dropped: u64,
    /// The first differences, as sentences.
    pub examples: Vec<String>,
}

impl Repository {
    /// Stores this node's counts since the shadow began.
    pub async fn shadowed(
        &self,
        node: NodeId,
        name: &str,
        digest: Digest,
        seen: &ShadowReport,
    ) -> Result<(), RepositoryError> {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        // An example may contain texts of the handler.
        let examples: Vec<_> = seen.examples.iter().map(|example| storable(example)).collect();
        sqlx::query(
            "insert into switchboard.shadow_reports (name, digest, node, same, differing, dropped, examples)
             values ($1, $2, $3, $4, $5, $6, $7)
             on conflict (name, digest, node) do update
             set same = excluded.same, differing = excluded.differing, dropped = excluded.dropped,
                 examples = excluded.examples, at = now()",
        )
        .bind(name)
        .bind(digest.bytes().as_slice())
        .bind(node.uuid())
        .bind(count(seen.same))
        .bind(count(seen.differing))
        .bind(count(seen.dropped))
        .bind(serde_json::json!(examples))
        .execute(&self.pool)
        .await
        .map_err(failed_to("store the results of a shadow"))?;
        Ok(())
    }

    /// Returns the results of each release that was a shadow of this handler, the latest first.
    pub async fn shadows(&self, name: &str) -> Result<Vec<ShadowReport>, RepositoryError> {
        sqlx::query(
            "select digest, sum(same)::bigint as same, sum(differing)::bigint as differing, sum(dropped)::bigint as dropped,
                    coalesce(jsonb_agg(example) filter (where example is not null), '[]') as examples
             from (
               select digest, same, differing, dropped, at, null::jsonb as example
               from switchboard.shadow_reports where name = $1
               union all
               select digest, 0, 0, 0, at, jsonb_array_elements(examples)
               from switchboard.shadow_reports where name = $1
             ) seen
             group by digest order by max(at) desc limit $2",
        )
        .bind(name)
        .bind(limits::RELEASES_LISTED_MAX)
        .try_map(|row: PgRow| {
            let count = |column| row.try_get::<i64, _>(column).map(|count| u64::try_from(count).unwrap_or(0));
            let examples = serde_json::from_value(row.try_get("examples")?)
                .map_err(|error| sqlx::Error::Decode(error.into()))?;
            Ok(ShadowReport {
                digest: Some(digest(row.try_get("digest")?)?),
                same: count("same")?,
                differing: count("differing")?,
                dropped: count("dropped")?,
                examples,
            })
        })
        .fetch_all(&self.pool)
        .await
        .map_err(failed_to("read the results of shadows"))
    }
}
