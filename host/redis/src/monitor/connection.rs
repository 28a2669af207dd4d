//! The connection on which the monitor checks a server, and what makes it unusable.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, ProtocolVersion, RedisError, Value,
};
use tokio::time::timeout;

use crate::Error;
use crate::endpoint::RedisEndpoint;
use crate::fault::{self, Fault};
use crate::link::reason;
use crate::tracking::Changes;
use switchboard_core::limits;

/// A connection of the driver to one server.
pub(super) struct Connection {
    pub(super) info: ConnectionInfo,
    pub(super) redis: MultiplexedConnection,
    pub(super) tracking: Tracking,
    /// The run id of the server, once it is known: it cannot change on one connection.
    pub(super) run_id: Option<Arc<str>>,
}

/// Whether the server reports changes of the guard on this connection.
pub(super) enum Tracking {
    Untried(Changes),
    Works(Changes),
    /// It does not, for this reason.
    Refused(String),
}

/// Why a check did not find a server that takes commands.
pub(super) enum CheckError {
    /// The connection cannot be used; connect again.
    Reconnect(String),
    /// The server is the right one, but refuses for now; stay connected.
    Refused(String),
}

/// Without the valid generation, no key may be used.
impl From<Error> for CheckError {
    fn from(error: Error) -> Self {
        Self::Refused(error.to_string())
    }
}

/// Opens a connection with RESP3, in which a server can report changes of keys. Servers and proxies that know
/// only RESP2 get that.
pub(super) async fn connect(endpoint: &RedisEndpoint) -> Result<Connection, String> {
    let info = endpoint.find().await?;
    let changes = Changes::default();
    let login = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let with_pushes = settings().set_push_sender(changes.counter());
    let (redis, tracking) = match open(info.clone().set_redis_settings(login), &with_pushes).await {
        Ok(redis) => (redis, Tracking::Untried(changes)),
        Err(error) if is_about_resp3(&error) => {
            let why = format!("it refuses RESP3 ({})", reason(&error));
            let login = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
            let redis = open(info.clone().set_redis_settings(login), &settings()).await;
            (redis.map_err(|error| reason(&error))?, Tracking::Refused(why))
        }
        Err(error) => return Err(reason(&error)),
    };
    Ok(Connection { info, redis, tracking, run_id: None })
}

fn settings() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(limits::REDIS_SILENCE_MAX))
        // No response time-out, because each call has its own deadline.
        .set_response_timeout(None)
        .set_pipeline_buffer_size(limits::REDIS_QUEUE_MAX)
}

async fn open(
    info: ConnectionInfo,
    settings: &AsyncConnectionConfig,
) -> Result<MultiplexedConnection, RedisError> {
    Client::open(info)?.get_multiplexed_async_connection_with_config(settings).await
}

/// Whether a connection may have failed because it began with `HELLO 3`. A proxy may end the connection
/// instead of answering. Any other error would be the same with RESP2: a server that is not there, or has too
/// many clients.
fn is_about_resp3(error: &RedisError) -> bool {
    match error.code() {
        Some(code) => {
            let is_full = error.detail().is_some_and(|text| text.contains("max number of clients"));
            Fault::of_code(code) != Fault::Server && !is_full
        }
        None => {
            let is_dropped = error.is_connection_dropped() && !error.is_connection_refusal();
            error.kind() == ErrorKind::RESP3NotSupported || is_dropped
        }
    }
}

/// Runs one command.
pub(super) async fn one(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, CheckError> {
    match timeout(limits::REDIS_SILENCE_MAX, connection.send_packed_command(command)).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => match error.code() {
            Some(code) => Err(check_error(code)),
            None => Err(CheckError::Reconnect(reason(&error))),
        },
        Err(_) => Err(CheckError::Reconnect("the server did not answer in time".to_owned())),
    }
}

pub(super) fn check_error(code: &str) -> CheckError {
    match Fault::of_code(code) {
        Fault::Server => CheckError::Reconnect(fault::explained(code)),
        Fault::Refusal | Fault::Full | Fault::Moved | Fault::Caller => {
            CheckError::Refused(fault::explained(code))
        }
    }
}
