//! Every SQL statement that the tests hold, planned against a migrated database as the handler's role: types, names and
//! grants hold, whatever the trace says.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Row};

use super::suite::Subject;
use super::world::Place;
use crate::postgres::ROLE_PREFIX;
use crate::trace::Scenario;

#[derive(Debug, Default)]
pub struct Statements {
    pub planned: usize,
    /// What Postgres says of a statement, and whose it is.
    pub refused: Vec<String>,
}

/// The handler's role and the statement, with a test that uses it.
fn of(subjects: &[Subject]) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for subject in subjects {
        let Some(role) = &subject.file.manifest.grants.postgres else { continue };
        for case in &subject.cases {
            for exchange in &case.trace.exchanges {
                let one = exchange.args.get("statement").and_then(Value::as_str);
                let many = exchange.args.get("statements").and_then(Value::as_array);
                for statement in one.into_iter().chain(many.into_iter().flatten().filter_map(Value::as_str)) {
                    found.entry((role.clone(), statement.to_owned())).or_insert_with(|| case.title());
                }
            }
        }
    }
    found
}

pub async fn check(place: &Place, subjects: &[Subject]) -> Result<Statements, String> {
    let world = place.world(&Scenario::default(), std::path::Path::new(".")).await?;
    let mut checked = Statements::default();
    for ((role, statement), test) in of(subjects) {
        checked.planned += 1;
        if let Err(error) = plan(world.owner(), &role, &statement).await {
            let first =
                statement.lines().find(|line| !line.trim_start().starts_with("--")).unwrap_or_default();
            checked.refused.push(format!("{test}, as {role}: {error}\n  {}", first.trim()));
        }
    }
    world.end().await?;
    Ok(checked)
}

/// Explaining a prepared statement checks what running it would: the plan is made, and the permissions of every table.
async fn plan(pool: &sqlx::PgPool, role: &str, statement: &str) -> Result<(), String> {
    let mut connection = pool.acquire().await.map_err(|error| error.to_string())?;
    let planned = async {
        let run = |sql: String| AssertSqlSafe(sql);
        sqlx::raw_sql(run(format!("set role \"{ROLE_PREFIX}{role}\""))).execute(&mut *connection).await?;
        sqlx::raw_sql(run(format!("prepare planned as {statement}"))).execute(&mut *connection).await?;
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
