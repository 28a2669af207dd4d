//! Gives the Redis keyspace access to the fleet's row in Postgres, which holds the valid generation of keys.

use sqlx::PgPool;

use switchboard_postgres::fleet::{self, Fleet};
use switchboard_redis::{GenerationFuture, Generations, Keyspace};

/// The keyspace of this fleet.
pub fn keyspace(fleet: &Fleet, postgres: PgPool) -> Keyspace {
    Keyspace::of(&fleet.name, fleet.redis_generation, InPostgres(postgres))
}

struct InPostgres(PgPool);

impl Generations for InPostgres {
    fn read(&self) -> GenerationFuture<'_> {
        Box::pin(async { fleet::redis_generation(&self.0).await.map_err(unknown) })
    }

    fn raise(&self, expected: i64, known: i64) -> GenerationFuture<'_> {
        Box::pin(
            async move { fleet::raise_redis_generation(&self.0, expected, known).await.map_err(unknown) },
        )
    }
}

fn unknown(error: sqlx::Error) -> String {
    format!("cannot read the valid generation of Redis keys from Postgres: {error}")
}
