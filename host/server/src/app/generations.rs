//! Gives the Redis keyspace access to the fleet's row in Postgres, which holds the valid generation of keys.

use switchboard_postgres as postgres;
use switchboard_postgres::fleet::{Fleet, FleetIdentity};
use switchboard_redis::{Error, GenerationFuture, Generations, Keyspace};

/// The keyspace of this fleet.
pub fn keyspace(fleet: &Fleet, identity: FleetIdentity) -> Keyspace {
    Keyspace::of(&fleet.name, fleet.redis_generation, InPostgres(identity))
}

struct InPostgres(FleetIdentity);

impl Generations for InPostgres {
    fn read(&self) -> GenerationFuture<'_> {
        Box::pin(async { self.0.redis_generation().await.map_err(unknown) })
    }

    fn raise(&self, expected: i64, known: i64) -> GenerationFuture<'_> {
        Box::pin(async move { self.0.raise_redis_generation(expected, known).await.map_err(unknown) })
    }
}

fn unknown(error: postgres::Error) -> Error {
    Error::Generation(Box::new(error))
}
