//! The clock of a test's database. Recordings contain answers of Postgres at the scenario's `now`, and
//! Postgres would answer differently at another time. So every database of the harness has its own clock,
//! which stands still at that `now`. Statements of handlers, migrations and SQL files of scenarios call this
//! clock's `now()` and similar functions instead of those of Postgres: the harness qualifies their names. Any
//! Postgres in which the harness may make databases can do this.
//!
//! `current_timestamp` and similar words are keywords of the grammar and cannot be replaced.

use super::props::NOW_MS;

/// The schema of these functions.
const SCHEMA: &str = "switchboard_harness_clock";
/// Each of these functions returns the scenario's `now`.
const FUNCTIONS: [&str; 4] = ["now", "clock_timestamp", "statement_timestamp", "transaction_timestamp"];
/// Keywords that read the server's clock, whatever the search path is.
const SERVER_CLOCK: [&str; 6] =
    ["current_timestamp", "current_date", "current_time", "localtimestamp", "localtime", "timeofday"];

/// Part of the template's name, so that a template that was made in another way is not used.
pub(super) const FORM: &str = "c1";

/// Sets the clock of a database to `now_ms`. The connection is that of the database's owner.
pub(super) fn stand_at(now_ms: u64) -> String {
    let mut sql = format!("create schema if not exists {SCHEMA}; grant usage on schema {SCHEMA} to public;");
    for function in FUNCTIONS {
        sql += &format!(
            "create or replace function {SCHEMA}.{function}() returns timestamptz language sql stable parallel safe \
             as $$ select pg_catalog.to_timestamp({now_ms} / 1000.0) $$;"
        );
    }
    // The host would have made partitions of the outbox by then. The template has those of the default time.
    if now_ms != NOW_MS {
        sql += "select switchboard.ensure_outbox(2);";
    }
    sql
}

/// Converts SQL for a database with a clock of its own.
pub(crate) fn qualified(sql: &str) -> String {
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

/// The keyword of a statement that makes its answer depend on the real date.
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
