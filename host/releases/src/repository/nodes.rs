//! What nodes say of themselves and of their handlers, as the fleet remembers it.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{Error, Repository, digest, trying};
use crate::ids::{Digest, NodeId};
use crate::limits;

/// What a node says of itself, once a second.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    pub node: NodeId,
    pub admin: SocketAddr,
    pub connections: u64,
}

/// What a node says of one handler. Neither digest nor error: the handler is retired, and gone from this node.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub name: String,
    pub generation: i64,
    pub digest: Option<Digest>,
    pub error: Option<String>,
}

/// A node that was heard of lately.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    pub id: Uuid,
    pub address: String,
    pub version: String,
    pub started_at: String,
    pub heartbeat_age_ms: i64,
    pub connections: i64,
    pub live: bool,
    pub handlers: Vec<NodeHandler>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeHandler {
    #[serde(rename = "handler")]
    pub name: String,
    pub generation: i64,
    #[serde(rename = "release")]
    pub digest: Option<Digest>,
    pub error: Option<String>,
}

/// A live node's answer to one switch of one handler.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub node: Uuid,
    pub address: String,
    /// None: it has not answered this generation yet.
    pub report: Option<Report>,
}

/// With its id behind it: the name of the connection on which a node hears of switches. A process that dies takes it along
/// at once; a node that is merely slow keeps it.
const LISTENER: &str = "switchboard node ";

pub(super) fn listener(node: NodeId) -> String {
    format!("{LISTENER}{}", node.uuid())
}

impl Repository {
    /// True when the fleet did not know the node: its reports, if it had made any, are gone. Also forgets the nodes that
    /// have not been heard of for an hour.
    pub async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<bool, Error> {
        sqlx::query_scalar(
            "with gone as (delete from switchboard.nodes where heartbeat_at < now() - interval '1 hour' and id <> $1)
             insert into switchboard.nodes (id, address, version, connections) values ($1, $2, $3, $4)
             on conflict (id) do update set heartbeat_at = now(), connections = excluded.connections
             returning xmax = 0",
        )
        .bind(heartbeat.node.uuid())
        .bind(heartbeat.admin.to_string())
        .bind(env!("CARGO_PKG_VERSION"))
        .bind(i64::try_from(heartbeat.connections).unwrap_or(i64::MAX))
        .fetch_one(&self.pool)
        .await
        .map_err(trying("note a heartbeat"))
    }

    /// A node that ends in order is not waited for.
    pub async fn leave(&self, node: NodeId) -> Result<(), Error> {
        sqlx::query("delete from switchboard.nodes where id = $1")
            .bind(node.uuid())
            .execute(&self.pool)
            .await
            .map_err(trying("let a node leave"))?;
        Ok(())
    }

    /// The node must have had a heartbeat. An older report does not replace a newer one.
    pub async fn report(&self, node: NodeId, report: &Report) -> Result<(), Error> {
        sqlx::query(
            "insert into switchboard.node_handlers as kept (node, name, generation, digest, error)
             values ($1, $2, $3, $4, $5)
             on conflict (node, name) do update
             set generation = excluded.generation, digest = excluded.digest, error = excluded.error, at = now()
             where kept.generation <= excluded.generation",
        )
        .bind(node.uuid())
        .bind(&report.name)
        .bind(report.generation)
        .bind(report.digest.as_ref().map(|digest| digest.bytes().as_slice()))
        .bind(&report.error)
        .execute(&self.pool)
        .await
        .map_err(trying("keep a node's report"))?;
        Ok(())
    }

    /// What every node says to a switch of a handler that was live so long ago, when the wait began, or has come since;
    /// without those that ended meanwhile.
    pub async fn answers(&self, name: &str, generation: i64, waited: Duration) -> Result<Vec<Answer>, Error> {
        sqlx::query(
            "select n.id, n.address, h.generation, h.digest, h.error
             from switchboard.nodes n left join switchboard.node_handlers h
               on h.node = n.id and h.name = $1 and h.generation >= $2
             where n.heartbeat_at > now() - make_interval(secs => $3)
               and (n.heartbeat_at > now() - make_interval(secs => $4)
                    or exists (select from pg_stat_activity where application_name = $5::text || n.id::text))
             order by n.started_at, n.id",
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
            Ok(Answer { node: row.try_get("id")?, address: row.try_get("address")?, report })
        })
        .fetch_all(&self.pool)
        .await
        .map_err(trying("ask the nodes"))
    }

    /// Everyone heard of in the last hour, the oldest first, each with what it says of its handlers.
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
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
        .map_err(trying("list the nodes"))?;
        let handlers = sqlx::query(
            // A node's answer to a retirement, which has neither, is no handler.
            "select node, name, generation, digest, error from switchboard.node_handlers
             where digest is not null or error is not null order by name",
        )
        .try_map(|row: PgRow| {
            let handler = NodeHandler {
                name: row.try_get("name")?,
                generation: row.try_get("generation")?,
                digest: row.try_get::<Option<Vec<u8>>, _>("digest")?.map(digest).transpose()?,
                error: row.try_get("error")?,
            };
            Ok((row.try_get::<Uuid, _>("node")?, handler))
        })
        .fetch_all(&self.pool)
        .await
        .map_err(trying("list the nodes"))?;
        for (node, handler) in handlers {
            if let Some(node) = nodes.iter_mut().find(|known| known.id == node) {
                node.handlers.push(handler);
            }
        }
        Ok(nodes)
    }
}
