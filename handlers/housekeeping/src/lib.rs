//! Maintains the tables of the application. It creates monthly partitions ahead of time, drops partitions
//! that are past their retention, deletes old message keys, and merges new words into the search index. It
//! has no rights on tables, and only calls SQL functions that do this work (`migrations/app`).

mod rules;

use rules::Settings;
use sdk::schedule::{self, Tick};
use sdk::{Problem, config, log, params, postgres};

const ENSURE: &str = "select app.ensure_partitions($1::int)";
const DROP: &str = "select app.drop_months($1::text, $2::int)";
const SORT: &str = "select app.sort_words()";
const CLEAN: &str = include_str!("clean_keys.sql");

struct Housekeeping;
schedule::export!(Housekeeping);

impl schedule::Handler for Housekeeping {
    fn run(tick: Tick) -> Result<(), String> {
        let settings = Settings::of(config::number);
        let done = match tick.name.as_str() {
            "months" => months(&settings),
            "keys" => keys(&settings),
            "words" => words(),
            other => return Err(format!("no schedule `{other}`")),
        };
        // The next run repeats what failed. Nothing is urgent, because partitions are created months ahead.
        done.map_err(|problem| format!("{}: {}", tick.name, problem.detail))
    }
}

fn months(settings: &Settings) -> Result<(), Problem> {
    let moved: Option<u64> = postgres::query(ENSURE, &params![settings.months_ahead])?.cell()?;
    if let Some(moved @ 1..) = moved {
        log::warn("a month was missing, its rows moved out of DEFAULT", &[("rows", &moved.to_string())]);
    }
    for (table, months_kept) in settings.kept() {
        let dropped: Option<u64> = postgres::query(DROP, &params![table, months_kept])?.cell()?;
        if let Some(dropped @ 1..) = dropped {
            log::info(
                "months past keeping are dropped",
                &[("table", table), ("months", &dropped.to_string())],
            );
        }
    }
    Ok(())
}

/// Merges new words into the search index. Searches scan the words that are not merged yet, so that list must
/// stay short.
fn words() -> Result<(), Problem> {
    postgres::query(SORT, &[])?;
    Ok(())
}

fn keys(settings: &Settings) -> Result<(), Problem> {
    for _ in 0..rules::BATCHES_MAX {
        let cleaned = postgres::execute(CLEAN, &params![settings.key_days, rules::BATCH_ROWS])?;
        if cleaned < rules::BATCH_ROWS {
            break;
        }
    }
    Ok(())
}
