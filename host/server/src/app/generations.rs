//! Gives the Redis keyspace access to the fleet's row in Postgres, which holds the valid generation of keys.

use switchboard_postgres as postgres;
use switchboard_postgres::fleet::{Fleet, FleetIdentity};
use switchboard_postgres::poll::Poll;
use switchboard_redis::{Error, GenerationFuture, Generations, Keyspace};

/// The keyspace of this fleet. `poll` is the node's poll; a command of the CLI has none.
pub fn keyspace(fleet: &Fleet, identity: FleetIdentity, poll: Option<Poll>) -> Keyspace {
    Keyspace::of(&fleet.name, fleet.redis_generation, InPostgres { identity, poll })
}

struct InPostgres {
    identity: FleetIdentity,
    poll: Option<Poll>,
}

impl Generations for InPostgres {
    fn read(&self) -> GenerationFuture<'_> {
        Box::pin(async { self.identity.redis_generation().await.map_err(unknown) })
    }

    fn last_polled(&self) -> Option<i64> {
        Some(self.poll.as_ref()?.last()?.redis_generation)
    }

    fn raise(&self, expected: i64, known: i64) -> GenerationFuture<'_> {
        Box::pin(async move { self.identity.raise_redis_generation(expected, known).await.map_err(unknown) })
    }
}

fn unknown(error: postgres::Error) -> Error {
    Error::Generation(Box::new(error))
}
