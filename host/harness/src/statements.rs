//! Every SQL statement that the tests hold, planned against a migrated database as the handler's role: types, names and
//! grants hold, whatever the trace says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Row};

use super::clock;
use super::suite::Subject;
use super::world::Place;
use crate::manifest::ROLE_PREFIX;
use crate::trace::{Exchange, Scenario};

#[derive(Debug, Default)]
pub struct Statements {
    pub planned: usize,
    /// What Postgres says of a statement, and whose it is.
    pub refused: Vec<String>,
}

/// In which database a statement is planned: one with the tables that its scenario makes, where it makes any.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Furniture {
    directory: PathBuf,
    sql: Vec<String>,
}

/// The handler's role and the statement, with a test that uses it. What Postgres itself refuses in every test is meant so.
type Planned = BTreeMap<(String, String), String>;

fn of(subjects: &[Subject]) -> BTreeMap<Furniture, Planned> {
    let mut found = BTreeMap::<_, Planned>::new();
    for subject in subjects {
        let Some(role) = &subject.file.manifest.grants.postgres else { continue };
        let mut seen = BTreeSet::new();
        for case in &subject.cases {
            let sql = case.trace.scenario.iter().flat_map(|scenario| scenario.sql.clone()).collect();
            let directory = case.path.parent().unwrap_or(Path::new(".")).to_owned();
            let planned = found.entry(Furniture { directory, sql }).or_default();
            let answered = case.trace.exchanges.iter().filter(|exchange| !is_refused(exchange));
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

pub async fn check(place: &Place, subjects: &[Subject]) -> Result<Statements, String> {
    let mut checked = Statements::default();
    for (furniture, planned) in of(subjects) {
        let scenario = Scenario { sql: furniture.sql, ..Scenario::default() };
        let world = place.world(&scenario, &furniture.directory).await?;
        for ((role, statement), test) in planned {
            checked.planned += 1;
            if let Some(keyword) = clock::server_clock_in(&statement) {
                checked.refused.push(format!(
                    "{test}, as {role}: `{keyword}` reads the server's clock, so the recording depends on the day on \
                     which it was made; write now()"
                ));
            }
            if let Err(error) = plan(world.owner(), &role, &statement).await {
                let first =
                    statement.lines().find(|line| !line.trim_start().starts_with("--")).unwrap_or_default();
                checked.refused.push(format!("{test}, as {role}: {error}\n  {}", first.trim()));
            }
        }
        world.end().await?;
    }
    Ok(checked)
}

/// Explaining a prepared statement checks what running it would: the plan is made, and the permissions of every table.
async fn plan(pool: &sqlx::PgPool, role: &str, statement: &str) -> Result<(), String> {
    let mut connection = pool.acquire().await.map_err(|error| error.to_string())?;
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
    // The connection goes back to its pool as it was, or not at all.
    if sqlx::raw_sql("reset role; deallocate all").execute(&mut *connection).await.is_err() {
        let _ = connection.close().await;
    }
    planned.map_err(|error| match error.as_database_error() {
        Some(error) => error.message().to_owned(),
        None => error.to_string(),
    })
}
