//! The cost of a call besides its work. Measured inside the host's own code
//! (`host/runtime/benches/call_overhead.rs`), because no socket could see microseconds; here it only becomes
//! a row.

use std::process::Command;

use serde_json::Value;
use switchboard_tests::paths;

use crate::figures::{By, Figures, Row, Spread};

const CALLS: usize = 10_000;

/// None, with a note to the reader, if the example was not built.
pub(crate) fn row() -> Option<Row> {
    let (program, guest) =
        (paths::sibling("examples/call_overhead"), paths::guests().join("send-shaped.wasm"));
    let output = Command::new(&program).arg(guest).arg(CALLS.to_string()).output();
    let document: Value = match output {
        Ok(output) if output.status.success() => serde_json::from_slice(&output.stdout).unwrap_or_default(),
        Ok(output) => {
            eprintln!("call overhead: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Err(error) => {
            eprintln!("call overhead: {}: {error}; scripts/bench builds it", program.display());
            return None;
        }
    };
    let side = |name: &str| {
        let us = |of: &str| document[name][of].as_f64();
        let spread = Spread { p50_us: us("p50")?, p99_us: us("p99")?, max_us: us("max")? };
        Some(Figures { spread: Some(spread), ..Figures::default() })
    };
    Some(Row {
        name: "call overhead: 3 host calls, fresh instance".into(),
        figures: side("guest_us")?,
        control_name: "the same work in plain Rust".into(),
        control: side("native_us")?,
        peers: None,
        by: By::P50,
        to_reach: "over native: p50 ≤ 15, p99 ≤ 60 µs",
    })
}
