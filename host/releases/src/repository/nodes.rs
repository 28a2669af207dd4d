//! The nodes of the fleet, and their reports about their handlers. The poll of each node writes its heartbeat
//! (`switchboard_postgres::poll`).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{Repository, RepositoryError, digest, failed_to};
use switchboard_core::ids::{Digest, NodeId};
use switchboard_core::limits;
use switchboard_postgres::storable;

/// A node's report about one handler. Without a digest and an error, the handler is retired and removed on
/// this node.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub name: String,
    pub generation: i64,
    pub digest: Option<Digest>,
    pub error: Option<String>,
}

/// A node that sent a heartbeat within the last hour, as the admin API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    pub id: Uuid,
    pub address: String,
    pub version: String,
    pub started_at: String,
    pub heartbeat_age_ms: i64,
    pub connections: i64,
    /// Whether the last heartbeat is younger than [`limits::NODE_SILENT_AFTER`].
    pub live: bool,
    pub handlers: Vec<NodeHandler>,
}

/// A node's report about one handler, as the admin API shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeHandler {
    #[serde(rename = "handler")]
    pub name: String,
    pub generation: i64,
    #[serde(rename = "release")]
    pub digest: Option<Digest>,
    pub error: Option<String>,
    /// The settings that the node's file or environment overrides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<String>,
}

/// A node, and its report after one switch of one handler (a deploy or a retirement, for example).
#[derive(Clone, Debug, PartialEq)]
pub struct NodeAnswer {
    pub node: Uuid,
    pub address: String,
    /// None: the node has not reported this generation, or a later one, yet.
    pub report: Option<Report>,
}

/// The prefix of the name of the connection on which a node listens for switches; the node's id follows. When
/// a node's process dies, the connection ends at once; when a node is only slow, the connection stays.
const LISTENER: &str = "switchboard node ";

pub(super) fn listener(node: NodeId) -> String {
    format!("{LISTENER}{}", node.uuid())
}

impl Repository {
    /// Removes a node that ends normally, so that no deploy waits for it.
    pub async fn leave(&self, node: NodeId) -> Result<(), RepositoryError> {
        sqlx::query("delete from switchboard.nodes where id = $1")
            .bind(node.uuid())
            .execute(&self.pool)
            .await
            .map_err(failed_to("remove a node"))?;
        Ok(())
    }

    /// Stores a report, with the keys of the settings that the node overrides. The node must have sent a
    /// heartbeat. An older report does not replace a newer one.
    pub async fn report(
        &self,
        node: NodeId,
        report: &Report,
        overrides: &[String],
    ) -> Result<(), RepositoryError> {
        // The error may contain names in the release.
        let error = report.error.as_deref().map(storable);
        sqlx::query(
            "insert into switchboard.node_handlers as kept (node, name, generation, digest, error, overrides)
             values ($1, $2, $3, $4, $5, $6)
             on conflict (node, name) do update
             set generation = excluded.generation, digest = excluded.digest, error = excluded.error,
                 overrides = excluded.overrides, at = now()
             where kept.generation <= excluded.generation",
        )
        .bind(node.uuid())
        .bind(&report.name)
        .bind(report.generation)
        .bind(report.digest.as_ref().map(|digest| digest.bytes().as_slice()))
        .bind(error.as_deref())
        .bind(overrides)
        .execute(&self.pool)
        .await
        .map_err(failed_to("store a node's report"))?;
        Ok(())
    }

    /// Returns each node's answer to a switch of a handler that raised the generation to this one. The
    /// deployer reads the answers again and again; `waited` is the time since its first read.
    ///
    /// It includes the nodes that were live at the first read or joined since: their last heartbeat is
    /// younger than [`limits::NODE_SILENT_AFTER`] and `waited` together. It leaves out a node that ended: one
    /// without a heartbeat for [`limits::NODE_GONE_AFTER`] whose connection for switches has ended too.
    pub async fn answers(
        &self,
        name: &str,
        generation: i64,
        waited: Duration,
    ) -> Result<Vec<NodeAnswer>, RepositoryError> {
        sqlx::query(
            "select node.id, node.address, report.generation, report.digest, report.error
             from switchboard.nodes as node left join switchboard.node_handlers as report
               on report.node = node.id and report.name = $1 and report.generation >= $2
             where node.heartbeat_at > now() - make_interval(secs => $3)
               and (node.heartbeat_at > now() - make_interval(secs => $4)
                    or exists (select from pg_stat_activity where application_name = $5::text || node.id::text))
             order by node.started_at, node.id",
        )
        .bind(name)
        .bind(generation)
        .bind((limits::NODE_SILENT_AFTER + waited).as_secs_f64())
        .bind(limits::NODE_GONE_AFTER.as_secs_f64())
        .bind(LISTENER)
        .try_map(|row: PgRow| {
            let answered: Option<i64> = row.try_get("generation")?;
            let report = match answered {
                None => None,
                Some(generation) => Some(Report {
                    name: name.to_owned(),
                    generation,
                    digest: row.try_get::<Option<Vec<u8>>, _>("digest")?.map(digest).transpose()?,
                    error: row.try_get("error")?,
                }),
            };
            Ok(NodeAnswer { node: row.try_get("id")?, address: row.try_get("address")?, report })
        })
        .fetch_all(&self.pool)
        .await
        .map_err(failed_to("read the answers of the nodes"))
    }

    /// Returns the number of live nodes.
    pub async fn live_nodes(&self) -> Result<i64, RepositoryError> {
        sqlx::query_scalar(
            "select count(*) from switchboard.nodes where heartbeat_at > now() - make_interval(secs => $1)",
        )
        .bind(limits::NODE_SILENT_AFTER.as_secs_f64())
        .fetch_one(&self.pool)
        .await
        .map_err(failed_to("count the nodes"))
    }

    /// Returns the nodes of the last hour, the oldest first, each with the reports about its handlers.
    pub async fn nodes(&self) -> Result<Vec<Node>, RepositoryError> {
        let mut nodes = sqlx::query(
            "select id, address, version, switchboard.rfc3339(started_at) as started_at, connections,
                    (extract(epoch from now() - heartbeat_at) * 1000)::bigint as age_ms
             from switchboard.nodes order by nodes.started_at, id",
        )
        .try_map(|row: PgRow| {
            let heartbeat_age_ms = row.try_get("age_ms")?;
            Ok(Node {
                id: row.try_get("id")?,
                address: row.try_get("address")?,
                version: row.try_get("version")?,
                started_at: row.try_get("started_at")?,
                heartbeat_age_ms,
                connections: row.try_get("connections")?,
                live: i128::from(heartbeat_age_ms) < limits::NODE_SILENT_AFTER.as_millis() as i128,
                handlers: Vec::new(),
            })
        })
        .fetch_all(&self.pool)
        .await
        .map_err(failed_to("list the nodes"))?;
        let handlers = sqlx::query(
            // A node's answer to a retirement, which has neither, is not a handler.
            "select node, name, generation, digest, error, overrides from switchboard.node_handlers
             where digest is not null or error is not null order by name",
        )
        .try_map(|row: PgRow| {
            let handler = NodeHandler {
                name: row.try_get("name")?,
                generation: row.try_get("generation")?,
                digest: row.try_get::<Option<Vec<u8>>, _>("digest")?.map(digest).transpose()?,
                error: row.try_get("error")?,
                overrides: row.try_get("overrides")?,
            };
            Ok((row.try_get::<Uuid, _>("node")?, handler))
        })
        .fetch_all(&self.pool)
        .await
        .map_err(failed_to("list the handlers of the nodes"))?;
        for (node, handler) in handlers {
            if let Some(node) = nodes.iter_mut().find(|known| known.id == node) {
                node.handlers.push(handler);
            }
        }
        Ok(nodes)
    }
}
