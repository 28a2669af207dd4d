//! Logs a greeting once a minute.

mod rules;

use sdk::schedule::{self, Tick};
use sdk::{config, log};

struct {Type};
schedule::export!({Type});

impl schedule::Handler for {Type} {
    fn run(tick: Tick) -> Result<(), String> {
        let word = config::text("greeting").unwrap_or_else(|| "hello".to_owned());
        log::info(&rules::greeting(&word, &tick.name), &[]);
        Ok(())
    }
}
