//! The deletion of keys of earlier generations, a step at a time.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value};
use tokio::time::timeout;

use super::connection::one;
use super::{Memory, Monitor};
use crate::packed;
use switchboard_core::limits;

impl Monitor {
    /// Runs one step of deleting keys of earlier generations.
    pub(super) async fn clean(&self, connection: &mut MultiplexedConnection, memory: &mut Memory) {
        let (Some(cursor), Some(namespace)) = (memory.cleaning.take(), self.keyspace.namespace()) else {
            return;
        };
        let generation = self.keyspace.names().generation;
        let scan = [
            "SCAN",
            &cursor,
            "MATCH",
            &format!("{namespace}:*"),
            "COUNT",
            &limits::REDIS_SCAN_KEYS.to_string(),
        ];
        let Ok(Value::Array(found)) = one(connection, &packed(&scan)).await else { return };
        let [Value::BulkString(next), Value::Array(keys)] = &found[..] else { return };
        let old = keys.iter().filter_map(|key| match key {
            Value::BulkString(key) => std::str::from_utf8(key).ok(),
            _ => None,
        });
        let old = old.filter(|key| is_older(key, namespace, generation)).map(|key| packed(&["UNLINK", key]));
        let old: Vec<Cmd> = old.collect();
        if !old.is_empty() {
            let mut pipeline = Pipeline::with_capacity(old.len());
            let count = old.len();
            for unlink in old {
                pipeline.add_command(unlink);
            }
            let _ = timeout(limits::REDIS_SILENCE_MAX, connection.send_packed_commands(&pipeline, 0, count))
                .await;
        }
        memory.cleaning = (next != b"0").then(|| String::from_utf8_lossy(next).into_owned());
    }
}

/// True for a key of an earlier generation of this fleet.
fn is_older(key: &str, namespace: &str, generation: i64) -> bool {
    let rest = key.strip_prefix(namespace).and_then(|rest| rest.strip_prefix(':'));
    let of = rest.and_then(|rest| rest.split_once(':')).and_then(|(of, _)| of.parse::<i64>().ok());
    of.is_some_and(|of| of < generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_of_earlier_generations_of_this_fleet_are_old() {
        for (key, expected) in [
            ("sb:f:3:list:ana", true),
            ("sb:f:4:list:ana", false),
            ("sb:f:5:list:ana", false),
            ("sb:f:guard:{0}", false),
            ("sb:f:beat:{0}", false),
            ("sb:fa:3:list:ana", false),
            ("sb:g:3:list:ana", false),
            ("list:ana", false),
        ] {
            assert_eq!(is_older(key, "sb:f", 4), expected, "{key}");
        }
    }
}
