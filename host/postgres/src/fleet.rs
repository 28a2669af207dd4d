//! The identity of this fleet and the generation of its keys in Redis: one row,
//! `migrations/host/1330_fleet_identity.sql`.

use sqlx::PgPool;
use uuid::Uuid;

use crate::Error;

/// The number of hex digits of the identity in names. 48 random bits: two fleets on one Redis will not get
/// the same name by chance.
const NAME_CHARS: usize = 12;

/// The row when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Hex digits.
    pub name: String,
    pub redis_generation: i64,
}

/// The table of the fleet's identity.
#[derive(Clone)]
pub struct FleetIdentity(PgPool);

impl FleetIdentity {
    /// `pool` is the host's pool.
    pub fn new(pool: PgPool) -> Self {
        Self(pool)
    }

    /// Reads the identity. A database that is a copy of another one gets a new identity first, so that a copy
    /// never shares keys and channels with its original.
    pub async fn identify(&self) -> Result<Fleet, Error> {
        const READ: &str = "select id, redis_generation, made_for is not distinct from switchboard.database_identity() \
                            from switchboard.fleet_identity";
        const MAKE: &str = "update switchboard.fleet_identity set id = gen_random_uuid(), \
                            made_for = switchboard.database_identity() \
                            where made_for is distinct from switchboard.database_identity()";
        let read = || sqlx::query_as::<_, (Uuid, i64, bool)>(READ).fetch_one(&self.0);
        let mut row = read().await?;
        if !row.2 {
            sqlx::query(MAKE).execute(&self.0).await?;
            row = read().await?;
        }
        let mut name = row.0.simple().to_string();
        name.truncate(NAME_CHARS);
        Ok(Fleet { name, redis_generation: row.1 })
    }

    /// Reads the current generation of the keys in Redis.
    pub async fn redis_generation(&self) -> Result<i64, Error> {
        sqlx::query_scalar("select redis_generation from switchboard.fleet_identity")
            .fetch_one(&self.0)
            .await
            .map_err(Error::Statement)
    }

    /// Raises the generation above `known`, unless another node has raised it since `expected` was read:
    /// several nodes that see the same fault raise it once. Returns the generation afterwards.
    pub async fn raise_redis_generation(&self, expected: i64, known: i64) -> Result<i64, Error> {
        const RAISE: &str = "update switchboard.fleet_identity set redis_generation = greatest(redis_generation, $2) + 1 \
                             where redis_generation = $1 returning redis_generation";
        let raised = sqlx::query_scalar(RAISE).bind(expected).bind(known).fetch_optional(&self.0).await?;
        match raised {
            Some(generation) => Ok(generation),
            None => self.redis_generation().await,
        }
    }
}
