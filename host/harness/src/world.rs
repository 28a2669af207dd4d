//! Real services for one test: a database, copied from a migrated template, an emptied Redis, a hub. They end
//! with the test. The clock and the random bytes are still those of the test: the database has a clock of its
//! own (`clock`).

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use uuid::Uuid;

use super::error::postgres;
use super::props::{NOW_MS, now_ms_of};
use super::{Error, Handler, clock, sandbox, test_inputs};
use switchboard_core::config::Config;
use switchboard_core::ids::{ConnectionId, NodeId, UserId};
use switchboard_core::limits;
use switchboard_fanout::{ConnectionInfo, Hub, Outlet, Wakes};
use switchboard_http::outbound::Outbound;
use switchboard_postgres::{Migrations, Postgres, migrate, owner};
use switchboard_recording::Scenario;
use switchboard_redis::{Keyspace, Redis};
use switchboard_runtime::{Backends, ReleaseFile, Runtime};
use switchboard_telemetry::Tracer;

/// The database of Redis for tests, which is emptied before each test.
const REDIS_DATABASE: u32 = 15;
/// A key in that database which marks that it may be emptied.
const REDIS_MARK: &str = "switchboard-harness";
/// The lock for making templates and copies, in the named database.
const TEMPLATE_LOCK: &str = "7171";
const SECRET: &str = "the secret of databases that live for one test";

/// The addresses of real services.
pub struct Services {
    database_url: String,
    redis_url: String,
    secret: String,
    cache: PathBuf,
    migrations: Migrations,
    template: OnceCell<String>,
    writing_functions: OnceCell<HashSet<String>>,
    /// Unchanged databases, by the SQL that filled them.
    unchanged: Mutex<HashMap<Fixtures, String>>,
}

/// SQL files, in order, and the time of the database's clock.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Fixtures {
    files: Vec<PathBuf>,
    now_ms: u64,
}
type Opened = (Postgres, Hub, Arc<Runtime>);

/// The services of one test.
pub struct World {
    pub(super) runtime: Arc<Runtime>,
    postgres: Postgres,
    hub: Hub,
    name: String,
    fixtures: Fixtures,
    server: String,
}

type Result<T, E = Error> = std::result::Result<T, E>;

impl Services {
    /// `database_url` names a server on which databases may be made and dropped. `secret` is that of a node
    /// on the same server, whose roles must keep their passwords.
    pub fn new(
        database_url: &str,
        redis_url: &str,
        secret: Option<&str>,
        cache: &Path,
        migrations: Migrations,
    ) -> Result<Self> {
        Ok(Self {
            database_url: database_url.to_owned(),
            redis_url: with_path(redis_url, &REDIS_DATABASE.to_string())?,
            secret: secret.unwrap_or(SECRET).to_owned(),
            cache: cache.to_owned(),
            migrations,
            template: OnceCell::new(),
            writing_functions: OnceCell::new(),
            unchanged: Mutex::default(),
        })
    }

    /// Makes a new world, filled by the scenario. Its SQL files are in `directory`.
    pub async fn world(&self, scenario: &Scenario, directory: &Path) -> Result<World> {
        let fixtures = Fixtures::of(scenario, directory)?;
        let name = self.new_database().await?;
        let fill = async {
            let config = self.config(&name)?;
            fill(&config, &self.migrations, &fixtures).await?;
            self.open(&config, scenario).await
        };
        let opened = fill.await;
        self.opened(opened, name, fixtures).await
    }

    /// The same for a test that only reads. Making and dropping a database takes half a second, so an
    /// `unchanged` one is used again.
    pub async fn world_to_read(&self, scenario: &Scenario, directory: &Path) -> Result<World> {
        let fixtures = Fixtures::of(scenario, directory)?;
        let Some(name) = self.unchanged().remove(&fixtures) else {
            return self.world(scenario, directory).await;
        };
        let opened = self.open(&self.config(&name)?, scenario).await;
        self.opened(opened, name, fixtures).await
    }

    async fn opened(&self, opened: Result<Opened>, name: String, fixtures: Fixtures) -> Result<World> {
        match opened {
            Ok((postgres, hub, runtime)) => {
                Ok(World { runtime, postgres, hub, name, fixtures, server: self.database_url.clone() })
            }
            Err(why) => {
                drop_database(&self.database_url, &name).await?;
                Err(why)
            }
        }
    }

    /// Ends the world and keeps its database for the next reader.
    pub async fn keep_unchanged(&self, world: &World) -> Result<()> {
        world.close().await;
        // Connections of handlers end when their pools are dropped, which may be after the next test begins.
        let mut admin = connect(&self.database_url).await?;
        let lingering = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{}'",
            world.name
        );
        run(&mut admin, &lingering).await?;
        let _ = admin.close().await;
        let before = self.unchanged().insert(world.fixtures.clone(), world.name.clone());
        match before {
            Some(name) => drop_database(&self.database_url, &name).await,
            None => Ok(()),
        }
    }

    /// Functions of the migrations, `schema.name`, that may change data: Postgres enforces that the others do
    /// not.
    pub async fn writing_functions(&self) -> Result<&HashSet<String>> {
        const VOLATILE: &str = "select nspname || '.' || proname from pg_proc join pg_namespace on pronamespace = \
                                pg_namespace.oid where provolatile = 'v' and nspname not in ('pg_catalog', \
                                'information_schema')";
        let look = async || {
            let template = self.template.get_or_try_init(|| self.make_template()).await?;
            let mut owner = connect(&with_path(&self.database_url, template)?).await?;
            let found: sqlx::Result<Vec<String>> = sqlx::query_scalar(VOLATILE).fetch_all(&mut owner).await;
            let _ = owner.close().await;
            Ok(found.map_err(postgres("list the functions that write"))?.into_iter().collect())
        };
        self.writing_functions.get_or_try_init(look).await
    }

    /// Drops all databases except the template.
    pub async fn end(&self) -> Result<()> {
        let names = std::mem::take(&mut *self.unchanged()).into_values().collect::<Vec<_>>();
        for name in names {
            drop_database(&self.database_url, &name).await?;
        }
        Ok(())
    }

    fn unchanged(&self) -> MutexGuard<'_, HashMap<Fixtures, String>> {
        self.unchanged.lock()
    }

    async fn new_database(&self) -> Result<String> {
        let template = self.template.get_or_try_init(|| self.make_template()).await?;
        let name = format!("switchboard_harness_{}", Uuid::now_v7().simple());
        let mut admin = connect(&self.database_url).await?;
        run(&mut admin, &format!("select pg_advisory_lock({TEMPLATE_LOCK})")).await?;
        run(&mut admin, &format!("create database {name} template {template}")).await?;
        // Privileges on the database itself are not copied with it.
        run(&mut admin, &format!("revoke temporary on database {name} from public")).await?;
        run(&mut admin, &format!("select pg_advisory_unlock({TEMPLATE_LOCK})")).await?;
        let _ = admin.close().await;
        Ok(name)
    }

    async fn open(&self, config: &Config, scenario: &Scenario) -> Result<Opened> {
        let postgres = Postgres::connect(config).await.map_err(postgres("open the database of a test"))?;
        let redis = Redis::connect(config, Keyspace::bare())?;
        tokio::time::timeout(limits::TEST_SERVICE_WAIT, redis.up())
            .await
            .map_err(|_| Error::NotReady("Redis", limits::TEST_SERVICE_WAIT))?;
        empty(&redis).await?;
        let wakes = Wakes::default();
        let hub =
            Hub::start(&redis, "switchboard-harness", NodeId::random(), wakes.clone(), Tracer::default());
        for args in &scenario.redis {
            command(&redis, args).await?;
        }
        let mut looks = tokio::time::interval(Duration::from_millis(2));
        let begun = Instant::now();
        while !hub.is_up() {
            looks.tick().await;
            if begun.elapsed() > limits::TEST_SERVICE_WAIT {
                return Err(Error::NotReady("the bus", limits::TEST_SERVICE_WAIT));
            }
        }
        let mut backends = Backends::new(postgres.clone(), redis, hub.clone(), wakes, Outbound::default());
        backends.statement = Some(clock::qualified);
        let runtime = sandbox(self.cache.clone(), backends)?;
        Ok((postgres, hub, Arc::new(runtime)))
    }

    fn config(&self, database: &str) -> Result<Config> {
        Ok(Config {
            database_url: Some(with_path(&self.database_url, database)?),
            redis_url: Some(self.redis_url.clone()),
            secret: Some(self.secret.clone()),
            postgres_connections_max: 4,
            ..Config::default()
        })
    }

    /// Makes the template, once for each content of the migrations. Passwords belong to the cluster and are
    /// set in each run.
    async fn make_template(&self) -> Result<String> {
        let name = format!("switchboard_harness_template_{}_{}", self.migrations.fingerprint(), clock::FORM);
        let mut admin = connect(&self.database_url).await?;
        run(&mut admin, &format!("select pg_advisory_lock({TEMPLATE_LOCK})")).await?;
        let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(&name)
            .fetch_one(&mut admin)
            .await
            .map_err(postgres("look for the template"))?;
        if exists {
            migrate::run_rewritten(&self.config(&name)?, &self.migrations, clock::qualified)
                .await
                .map_err(postgres("migrate the template"))?;
        } else {
            let making = format!("{name}_making");
            run(&mut admin, &format!("drop database if exists {making} with (force)")).await?;
            run(&mut admin, &format!("create database {making}")).await?;
            let mut owner = connect(&with_path(&self.database_url, &making)?).await?;
            run(&mut owner, &clock::stand_at(NOW_MS)).await?;
            let _ = owner.close().await;
            migrate::run_rewritten(&self.config(&making)?, &self.migrations, clock::qualified)
                .await
                .map_err(postgres("migrate the template"))?;
            run(&mut admin, &format!("alter database {making} rename to {name}")).await?;
        }
        run(&mut admin, &format!("select pg_advisory_unlock({TEMPLATE_LOCK})")).await?;
        let _ = admin.close().await;
        Ok(name)
    }
}

impl World {
    pub async fn load(self: &Arc<Self>, file: &ReleaseFile, scenario: &Scenario) -> Result<Handler> {
        let release = self.runtime.load(file, &test_inputs(&file.manifest, scenario)).await?;
        Ok(Handler { runtime: self.runtime.clone(), release, world: Some(self.clone()) })
    }

    /// Opens a connection as the owner of the database.
    pub async fn connect_as_owner(&self) -> Result<PgConnection> {
        connect(&with_path(&self.server, &self.name)?).await
    }

    /// A client's connection that calls may gate and send to.
    pub async fn seat(&self, connection: ConnectionId, user: &str) -> Option<Arc<Outlet>> {
        let user = UserId::parse(user)?;
        Some(self.hub.open_connection(ConnectionInfo { connection, user, session: "session".into() }).await)
    }

    /// Every row of the product and of the outbox, without values that differ in each run: ids, times,
    /// positions.
    pub async fn state(&self) -> Result<Vec<(String, String)>> {
        const TABLES: &str = "select format('%I.%I', nspname, relname) from pg_class join pg_namespace on relnamespace \
                              = pg_namespace.oid where (nspname = 'app' or (nspname, relname) = ('switchboard', \
                              'outbox')) and relkind in ('r', 'p') and not relispartition order by 1";
        const UUIDS: &str = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
        const TIMES: &str = "\\d{4}-\\d\\d-\\d\\dT[0-9:.]+(\\+00:00|Z)";
        let mut owner = self.connect_as_owner().await?;
        let tables: Vec<String> =
            sqlx::query_scalar(TABLES).fetch_all(&mut owner).await.map_err(postgres("list the tables"))?;
        let mut state = Vec::new();
        for table in tables {
            let rows = format!(
                "select coalesce(string_agg(row, E'\\n' order by row), '') from (select regexp_replace(regexp_replace(\
                 (to_jsonb(t) - 'position' - 'fingerprint' - 'search')::text, '{UUIDS}', 'U', 'g'), '{TIMES}', 'T', 'g') as row \
                 from {table} as t) as rows"
            );
            let rows: String = sqlx::query_scalar(AssertSqlSafe(rows))
                .fetch_one(&mut owner)
                .await
                .map_err(postgres("read a table"))?;
            state.push((table, rows));
        }
        let _ = owner.close().await;
        Ok(state)
    }

    /// Ends the services of the test, and drops its database.
    pub async fn end(&self) -> Result<()> {
        self.close().await;
        drop_database(&self.server, &self.name).await
    }

    async fn close(&self) {
        self.hub.stop().await;
        self.postgres.close().await;
    }
}

impl Fixtures {
    fn of(scenario: &Scenario, directory: &Path) -> Result<Self> {
        let files = scenario.sql.iter().map(|file| directory.join(file)).collect();
        Ok(Self { files, now_ms: now_ms_of(scenario)? })
    }
}

async fn fill(config: &Config, migrations: &Migrations, fixtures: &Fixtures) -> Result<()> {
    let mut owner = connect(config.database_url.as_deref().unwrap_or_default()).await?;
    run(&mut owner, &clock::stand_at(fixtures.now_ms)).await?;
    let mut roles = false;
    for path in &fixtures.files {
        let sql = std::fs::read_to_string(path).map_err(|error| Error::Read(path.clone(), error))?;
        if let Some(keyword) = clock::server_clock_in(&sql) {
            let reason = format!(
                "`{keyword}` reads the server's clock, so the recording depends on the day on which it was made; write \
                 now()"
            );
            return Err(Error::Case { path: path.clone(), reason });
        }
        roles |= sql.contains("ensure_role");
        execute(&mut owner, &clock::qualified(&sql))
            .await
            .map_err(|error| Error::Fixture { path: path.clone(), error: error.into() })?;
    }
    let _ = owner.close().await;
    if roles {
        // Make them able to log in like the roles of the migrations.
        migrate::run_rewritten(config, migrations, clock::qualified)
            .await
            .map_err(postgres("set up the roles of a scenario"))?;
    }
    Ok(())
}

async fn empty(redis: &Redis) -> Result<()> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let size = format!("{:?}", command(redis, &words(&["DBSIZE"])).await?);
    let marked = format!("{:?}", command(redis, &words(&["EXISTS", REDIS_MARK])).await?);
    if !size.contains("(0)") && !marked.contains("(1)") {
        return Err(Error::Setup(format!(
            "database {REDIS_DATABASE} of this Redis has keys that the harness did not write; empty it first"
        )));
    }
    command(redis, &words(&["FLUSHDB"])).await?;
    command(redis, &words(&["SET", REDIS_MARK, "1"])).await.map(drop)
}

async fn command(redis: &Redis, args: &[String]) -> Result<Vec<switchboard_contract::redis::Node>> {
    let done = redis.command(args, Instant::now() + limits::TEST_SERVICE_WAIT).await;
    done.map_err(|error| Error::RedisCommand { command: args.join(" "), error })
}

async fn connect(url: &str) -> Result<PgConnection> {
    owner::connect(url, "switchboard test").await.map_err(postgres("open a connection for the tests"))
}

async fn run(connection: &mut PgConnection, sql: &str) -> Result<()> {
    execute(connection, sql).await.map_err(postgres("prepare or drop the database of a test"))
}

async fn execute(connection: &mut PgConnection, sql: &str) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.map(drop)
}

async fn drop_database(server: &str, name: &str) -> Result<()> {
    let mut admin = connect(server).await?;
    run(&mut admin, &format!("drop database if exists {name} with (force)")).await?;
    let _ = admin.close().await;
    Ok(())
}

/// The URL of another database on the same server.
fn with_path(url: &str, path: &str) -> Result<String> {
    let no_url = || {
        Error::Setup(
            "a service needs a URL like postgres://user@host:5432/database or redis://host:6379".to_owned(),
        )
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(no_url)?;
    let (before, query) = rest.split_once('?').map_or((rest, None), |(before, query)| (before, Some(query)));
    let authority = before.split_once('/').map_or(before, |(authority, _)| authority);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("{scheme}://{authority}/{path}{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_of_the_same_server() {
        for (url, expected) in [
            ("postgres://me:pw@host:1/a", "postgres://me:pw@host:1/b"),
            ("postgres://host", "postgres://host/b"),
            ("postgres://host/a?sslmode=disable", "postgres://host/b?sslmode=disable"),
        ] {
            assert_eq!(with_path(url, "b").unwrap(), expected);
        }
        assert!(with_path("host", "b").is_err());
    }
}
