//! The clock of a test's database. Recordings hold what Postgres answered at the scenario's `now`, and a later Postgres would
//! answer otherwise. So every database of the harness has its own clock, which stands still at that `now`. Statements of
//! handlers, migrations and SQL files of scenarios call that clock's `now()` and the like in the place of Postgres' own: the
//! harness qualifies their names. Any Postgres in which the harness may make databases can do this.
//!
//! `current_timestamp` and its relatives are keywords of the grammar, and nothing can take their place.

use super::props::NOW_MS;

/// The functions live in this schema.
const SCHEMA: &str = "switchboard_harness_clock";
/// Each of these answers the scenario's `now`.
const FUNCTIONS: [&str; 4] = ["now", "clock_timestamp", "statement_timestamp", "transaction_timestamp"];
/// They read the server's clock whatever the search path says.
const SERVER_CLOCK: [&str; 6] =
    ["current_timestamp", "current_date", "current_time", "localtimestamp", "localtime", "timeofday"];

/// Part of the template's name, so that a template made in another way is not taken for this one.
pub(super) const FORM: &str = "c1";

/// For the owner of a database, connected to it: its clock stands at `now_ms`.
pub(super) fn stand_at(now_ms: u64) -> String {
    let mut sql = format!("create schema if not exists {SCHEMA}; grant usage on schema {SCHEMA} to public;");
    for function in FUNCTIONS {
        sql += &format!(
            "create or replace function {SCHEMA}.{function}() returns timestamptz language sql stable parallel safe \
             as $$ select pg_catalog.to_timestamp({now_ms} / 1000.0) $$;"
        );
    }
    // Partitions that housekeeping would have made by then; those of the usual moment are in the template.
    if now_ms != NOW_MS {
        sql += "select app.ensure_partitions(); select switchboard.ensure_outbox(2);";
    }
    sql
}

/// SQL for a database with a clock of its own.
pub fn qualified(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some((at, function)) = next_call(rest) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if !before.ends_with(|before: char| before.is_alphanumeric() || "_.\"".contains(before)) {
            out.push_str(SCHEMA);
            out.push('.');
        }
        let (call, after) = from.split_at(function.len() + 2);
        out.push_str(call);
        rest = after;
    }
    out + rest
}

fn next_call(sql: &str) -> Option<(usize, &'static str)> {
    let calls =
        FUNCTIONS.iter().filter_map(|function| Some((sql.find(&format!("{function}()"))?, *function)));
    calls.min_by_key(|(at, _)| *at)
}

/// The keyword of a statement whose answer depends on the day on which it is asked.
pub(super) fn server_clock_in(statement: &str) -> Option<&'static str> {
    let code = statement.lines().map(|line| line.split_once("--").map_or(line, |(code, _)| code));
    let words = code.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let mut found =
        words.filter_map(|word| SERVER_CLOCK.into_iter().find(|name| name.eq_ignore_ascii_case(word)));
    found.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_the_clock_are_qualified_and_nothing_else() {
        for (sql, expected) in [
            ("at timestamptz default now()", "at timestamptz default switchboard_harness_clock.now()"),
            ("a := clock_timestamp();", "a := switchboard_harness_clock.clock_timestamp();"),
            ("pg_catalog.now(), app.now(), snow()", "pg_catalog.now(), app.now(), snow()"),
            ("now() - now()", "switchboard_harness_clock.now() - switchboard_harness_clock.now()"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(qualified(sql), expected);
        }
    }

    #[test]
    fn keywords_of_the_servers_clock_are_found() {
        for (statement, found) in [
            ("select Current_Date", Some("current_date")),
            ("-- current_date is another thing\nselect now()", None),
            ("select current_dates, now()", None),
        ] {
            assert_eq!(server_clock_in(statement), found, "{statement}");
        }
    }
}
