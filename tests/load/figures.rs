//! Collects figures, puts them beside their control, prints a table, and writes JSON. It does not judge them.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

/// Durations of single operations, in microseconds.
#[derive(Clone, Default)]
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took.as_micros().try_into().unwrap_or(u32::MAX));
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn spread(mut self) -> Option<Spread> {
        self.0.sort_unstable();
        let at = |share: f64| f64::from(self.0[((self.0.len() - 1) as f64 * share) as usize]);
        (!self.0.is_empty()).then(|| Spread { p50_us: at(0.5), p99_us: at(0.99), max_us: at(1.0) })
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

/// The measurements of one side.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figures {
    pub per_second: Option<f64>,
    #[serde(flatten)]
    pub spread: Option<Spread>,
    /// Processor time of the server for one operation, in microseconds.
    pub server_cpu_us: Option<f64>,
    /// Resident memory of the server for one connection.
    pub resident_kib: Option<f64>,
    /// Number of errors: an error answer, or a wrong order.
    pub wrong: u64,
    /// Figures second by second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seconds: Vec<u64>,
}

/// The figure for the comparison of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum By {
    PerSecond,
    P50,
    P99,
    Resident,
}

/// One line of the table, beside its control.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub name: String,
    pub figures: Figures,
    pub control_name: String,
    pub control: Figures,
    pub by: By,
    /// The target, for the reader; no test asserts it.
    pub to_reach: &'static str,
}

impl Row {
    pub(crate) fn ratio(&self) -> Option<f64> {
        Some(self.value(&self.figures)? / self.value(&self.control)?).filter(|ratio| ratio.is_finite())
    }

    /// The value of that figure.
    pub(crate) fn value(&self, of: &Figures) -> Option<f64> {
        match self.by {
            By::PerSecond => of.per_second,
            By::P50 => of.spread.map(|spread| spread.p50_us),
            By::P99 => of.spread.map(|spread| spread.p99_us),
            By::Resident => of.resident_kib,
        }
    }

    /// Both sides, as lines of the table.
    pub(crate) fn print(&self) {
        let ratio = self.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}"));
        print_line(&self.name, &self.figures, &ratio, self.to_reach);
        print_line(&format!("  {}", self.control_name), &self.control, "", "");
    }
}

pub(crate) fn print_header() {
    println!(
        "{:<44}{:>11}{:>10}{:>10}{:>10}{:>9}{:>9}{:>7}{:>7}  to reach",
        "", "per second", "p50 ms", "p99 ms", "max ms", "cpu µs", "KiB", "wrong", "ratio"
    );
}

pub(crate) fn print_line(name: &str, figures: &Figures, ratio: &str, to_reach: &str) {
    let ms = |pick: fn(&Spread) -> f64| {
        figures.spread.as_ref().map_or(String::new(), |spread| format!("{:.3}", pick(spread) / 1000.0))
    };
    let plain = |value: Option<f64>, digits: usize| value.map_or(String::new(), |v| format!("{v:.digits$}"));
    let line = format!(
        "{name:<44}{:>11}{:>10}{:>10}{:>10}{:>9}{:>9}{:>7}{ratio:>7}  {to_reach}",
        plain(figures.per_second, 0),
        ms(|spread| spread.p50_us),
        ms(|spread| spread.p99_us),
        ms(|spread| spread.max_us),
        plain(figures.server_cpu_us, 2),
        plain(figures.resident_kib, 1),
        figures.wrong,
    );
    println!("{}", line.trim_end());
    for (n, chunk) in figures.seconds.chunks(15).enumerate() {
        let seconds: Vec<_> = chunk.iter().map(u64::to_string).collect();
        println!("      second {:>3}: {}", n * 15, seconds.join(" "));
    }
}

/// All rows of a run, with the facts about the machine.
pub(crate) fn write(file: &Path, profile: &str, quick: bool, flush: bool, rows: &[Row]) -> io::Result<()> {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let mut value = serde_json::to_value(row).unwrap_or_default();
            value["ratio"] = serde_json::json!(row.ratio());
            value
        })
        .collect();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let run =
        serde_json::json!({"profile": profile, "quick": quick, "flush": flush, "cores": cores, "rows": rows});
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(file, serde_json::to_vec_pretty(&run)?)
}
