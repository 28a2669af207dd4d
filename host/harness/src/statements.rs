//! Plans every SQL statement of the tests in a migrated database with the handler's role. So types, names and
//! grants are checked independently of the recordings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::case::Subject;
use super::world::Services;
use super::{Error, clock};
use switchboard_core::manifest::ROLE_PREFIX;
use switchboard_recording::{Exchange, Scenario};

#[derive(Debug, Default)]
pub struct Statements {
    pub planned: usize,
    /// The error of Postgres for a statement, with its handler.
    pub refused: Vec<String>,
}

/// The database for the plan of a statement: if its scenario makes tables, one with these tables.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Fixtures {
    directory: PathBuf,
    sql: Vec<String>,
}

/// The handler's role and the statement, with a test that uses it. A statement that Postgres refuses in every
/// test is intended.
type Planned = BTreeMap<(String, String), String>;

fn of(subjects: &[Subject]) -> BTreeMap<Fixtures, Planned> {
    let mut found = BTreeMap::<_, Planned>::new();
    for subject in subjects {
        let Some(role) = &subject.file.manifest.grants.postgres else { continue };
        let mut seen = BTreeSet::new();
        for case in &subject.cases {
            let sql = case.recording.scenario.iter().flat_map(|scenario| scenario.sql.clone()).collect();
            let directory = case.path.parent().unwrap_or(Path::new(".")).to_owned();
            let planned = found.entry(Fixtures { directory, sql }).or_default();
            let answered = case.recording.exchanges.iter().filter(|exchange| !is_refused(exchange));
            for exchange in answered {
                let one = exchange.args.get("statement").and_then(Value::as_str);
                let many = exchange.args.get("statements").and_then(Value::as_array);
                for statement in one.into_iter().chain(many.into_iter().flatten().filter_map(Value::as_str)) {
                    if seen.insert(statement) {
                        planned.insert((role.clone(), statement.to_owned()), case.title());
                    }
                }
            }
        }
    }
    found.retain(|_, planned| !planned.is_empty());
    found
}

fn is_refused(exchange: &Exchange) -> bool {
    exchange.answer.as_ref().is_some_and(|answer| answer.get("Err").is_some())
}

pub async fn check(services: &Services, subjects: &[Subject]) -> Result<Statements, Error> {
    let mut checked = Statements::default();
    for (fixtures, planned) in of(subjects) {
        let scenario = Scenario { sql: fixtures.sql, ..Scenario::default() };
        let world = services.world(&scenario, &fixtures.directory).await?;
        let mut owner = world.connect_as_owner().await?;
        for ((role, statement), test) in planned {
            checked.planned += 1;
            if let Some(keyword) = clock::server_clock_in(&statement) {
                checked.refused.push(format!(
                    "{test}, as {role}: `{keyword}` reads the server's clock, so the recording depends on the day on \
                     which it was made; write now()"
                ));
            }
            if let Err(error) = plan(&mut owner, &role, &statement).await {
                let first =
                    statement.lines().find(|line| !line.trim_start().starts_with("--")).unwrap_or_default();
                checked.refused.push(format!("{test}, as {role}: {error}\n  {}", first.trim()));
            }
        }
        let _ = owner.close().await;
        world.end().await?;
    }
    Ok(checked)
}

/// Explaining a prepared statement checks the same as running it: the plan, and the permissions of every
/// table.
async fn plan(connection: &mut PgConnection, role: &str, statement: &str) -> Result<(), String> {
    let planned = async {
        let run = |sql: String| AssertSqlSafe(sql);
        sqlx::raw_sql(run(format!("set role \"{ROLE_PREFIX}{role}\""))).execute(&mut *connection).await?;
        sqlx::raw_sql(run(format!("prepare planned as {}", clock::qualified(statement))))
            .execute(&mut *connection)
            .await?;
        let count = "select cardinality(parameter_types) from pg_prepared_statements where name = 'planned'";
        let row = sqlx::raw_sql(run(count.to_owned())).fetch_one(&mut *connection).await?;
        let count: i32 = row.try_get(0)?;
        let nulls = vec!["null"; usize::try_from(count).unwrap_or(0)].join(", ");
        let nulls = if nulls.is_empty() { nulls } else { format!("({nulls})") };
        sqlx::raw_sql(run(format!("explain execute planned{nulls}"))).execute(&mut *connection).await?;
        Ok::<_, sqlx::Error>(())
    };
    let planned = planned.await;
    let reset = sqlx::raw_sql("reset role; deallocate all").execute(connection).await;
    planned.and(reset.map(drop)).map_err(|error| match error.as_database_error() {
        Some(error) => error.message().to_owned(),
        None => error.to_string(),
    })
}
