//! Collects figures, puts them beside their control, prints a table, and writes JSON. It does not judge them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::process::Cpu;

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
    /// The same of Postgres, with all its processes.
    pub postgres_cpu_us: Option<f64>,
    /// Resident memory of the server for one connection.
    pub resident_kib: Option<f64>,
    /// The count for one operation. The name of the row says of what.
    pub count: Option<f64>,
    /// Number of errors: an error answer, or a wrong order.
    pub wrong: u64,
    /// Further figures, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub further: BTreeMap<String, f64>,
    /// Figures second by second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seconds: Vec<u64>,
}

impl Figures {
    /// The median of each figure over several rounds. Errors are summed, and seconds follow each other.
    pub(crate) fn median<'a>(rounds: impl IntoIterator<Item = &'a Self>) -> Self {
        let rounds: Vec<_> = rounds.into_iter().collect();
        let of = |pick: &dyn Fn(&Self) -> Option<f64>| median(rounds.iter().filter_map(|round| pick(round)));
        let spread = |pick: fn(&Spread) -> f64| of(&|round| round.spread.as_ref().map(pick));
        let names = rounds.iter().flat_map(|round| round.further.keys());
        Self {
            per_second: of(&|round| round.per_second),
            spread: spread(|spread| spread.p50_us).zip(spread(|spread| spread.p99_us)).map(
                |(p50_us, p99_us)| {
                    let all = rounds.iter().filter_map(|round| round.spread);
                    Spread { p50_us, p99_us, max_us: all.map(|spread| spread.max_us).fold(0.0, f64::max) }
                },
            ),
            server_cpu_us: of(&|round| round.server_cpu_us),
            postgres_cpu_us: of(&|round| round.postgres_cpu_us),
            resident_kib: of(&|round| round.resident_kib),
            count: of(&|round| round.count),
            wrong: rounds.iter().map(|round| round.wrong).sum(),
            further: names
                .filter_map(|name| Some((name.clone(), of(&|round| round.further.get(name).copied())?)))
                .collect(),
            seconds: rounds.iter().flat_map(|round| &round.seconds).copied().collect(),
        }
    }

    /// Adds the processor time of so many operations.
    pub(crate) fn with_cpu(self, cpu: Cpu, operations: f64) -> Self {
        Self {
            server_cpu_us: cpu.server_us(operations),
            postgres_cpu_us: cpu.postgres_us(operations),
            ..self
        }
    }

    pub(crate) fn with_further(mut self, name: &str, value: f64) -> Self {
        self.further.insert(name.to_owned(), value);
        self
    }
}

/// The lower of the two middle ones of an even number.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// The figure for the comparison of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum By {
    PerSecond,
    P50,
    P99,
    Resident,
    Count,
}

/// A peer that did the same.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PeerFigures {
    pub name: String,
    pub figures: Figures,
}

/// One line of the table, beside its control and its peers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub name: String,
    pub figures: Figures,
    pub control_name: String,
    pub control: Figures,
    /// `None` if no peer does the same. Empty without `--peers`.
    pub peers: Option<Vec<PeerFigures>>,
    pub by: By,
    /// The target, for the reader; no test asserts it.
    pub to_reach: &'static str,
}

impl Row {
    /// The node's figure, divided by that of another side.
    pub(crate) fn ratio_to(&self, other: &Figures) -> Option<f64> {
        Some(self.value(&self.figures)? / self.value(other)?).filter(|ratio| ratio.is_finite())
    }

    /// The value of that figure.
    pub(crate) fn value(&self, of: &Figures) -> Option<f64> {
        match self.by {
            By::PerSecond => of.per_second,
            By::P50 => of.spread.map(|spread| spread.p50_us),
            By::P99 => of.spread.map(|spread| spread.p99_us),
            By::Resident => of.resident_kib,
            By::Count => of.count,
        }
    }

    /// All sides, as lines of the table. The ratio on the line of another side is the node's to it.
    pub(crate) fn print(&self) {
        print_line(&self.name, &self.figures, "", self.to_reach);
        self.print_other(&self.control_name, &self.control);
        for peer in self.peers.iter().flatten() {
            self.print_other(&peer.name, &peer.figures);
        }
        if self.peers.as_ref().is_some_and(Vec::is_empty) {
            println!("  Bun, ws on Node: not measured without --peers");
        }
    }

    fn print_other(&self, name: &str, figures: &Figures) {
        let ratio = self.ratio_to(figures).map_or(String::new(), |ratio| format!("{ratio:.2}"));
        print_line(&format!("  {name}"), figures, &ratio, "");
    }
}

pub(crate) fn print_header() {
    println!(
        "{:<54}{:>11}{:>10}{:>10}{:>10}{:>9}{:>9}{:>9}{:>8}{:>8}{:>9}  to reach",
        "", "per second", "p50 ms", "p99 ms", "max ms", "cpu µs", "pg µs", "KiB", "count", "wrong", "ratio"
    );
}

pub(crate) fn print_line(name: &str, figures: &Figures, ratio: &str, to_reach: &str) {
    let ms = |pick: fn(&Spread) -> f64| {
        figures.spread.as_ref().map_or(String::new(), |spread| format!("{:.3}", pick(spread) / 1000.0))
    };
    let plain = |value: Option<f64>, digits: usize| value.map_or(String::new(), |v| format!("{v:.digits$}"));
    let line = format!(
        "{name:<54}{:>11}{:>10}{:>10}{:>10}{:>9}{:>9}{:>9}{:>8}{:>8}{ratio:>9}  {to_reach}",
        plain(figures.per_second, 0),
        ms(|spread| spread.p50_us),
        ms(|spread| spread.p99_us),
        ms(|spread| spread.max_us),
        plain(figures.server_cpu_us, 2),
        plain(figures.postgres_cpu_us, 2),
        plain(figures.resident_kib, 1),
        plain(figures.count, 2),
        figures.wrong,
    );
    println!("{}", line.trim_end());
    if !figures.further.is_empty() {
        let further: Vec<_> =
            figures.further.iter().map(|(name, value)| format!("{name}: {value:.2}")).collect();
        println!("      {}", further.join(", "));
    }
    for (n, chunk) in figures.seconds.chunks(15).enumerate() {
        let seconds: Vec<_> = chunk.iter().map(u64::to_string).collect();
        println!("      second {:>3}: {}", n * 15, seconds.join(" "));
    }
}

/// The conditions of a run, which every figure of it needs.
#[derive(Serialize)]
pub(crate) struct Conditions {
    pub profile: String,
    pub quick: bool,
    pub flush: bool,
    pub rounds: usize,
    pub cores: usize,
}

/// All rows of a run, with its conditions.
pub(crate) fn write(file: &Path, conditions: &Conditions, rows: &[Row]) -> io::Result<()> {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let mut value = serde_json::to_value(row).unwrap_or_default();
            value["ratio"] = serde_json::json!(row.ratio_to(&row.control));
            for (n, peer) in row.peers.iter().flatten().enumerate() {
                value["peers"][n]["ratio"] = serde_json::json!(row.ratio_to(&peer.figures));
            }
            value
        })
        .collect();
    let mut run = serde_json::to_value(conditions)?;
    run["rows"] = rows.into();
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(file, serde_json::to_vec_pretty(&run)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_of_the_rounds_that_have_the_figure() {
        let round = |per_second: f64, p50_us: f64, wrong| {
            let spread = Some(Spread { p50_us, p99_us: 10.0 * p50_us, max_us: 100.0 * p50_us });
            Figures { per_second: Some(per_second), spread, wrong, ..Figures::default() }
                .with_further("share", per_second / 10.0)
        };
        let rounds = [round(30.0, 3.0, 1), round(10.0, 5.0, 0), round(20.0, 4.0, 2)];
        let median = Figures::median(&rounds);
        assert_eq!(median.per_second, Some(20.0));
        let spread = median.spread.expect("every round has one");
        assert_eq!((spread.p50_us, spread.p99_us, spread.max_us), (4.0, 40.0, 500.0));
        assert_eq!((median.wrong, median.further["share"]), (3, 2.0));
        assert_eq!((median.resident_kib, Figures::median(&[]).per_second), (None, None));
    }
}
