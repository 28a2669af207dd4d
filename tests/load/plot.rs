//! One picture of a run: each row a group of bars, the node's above those of its control and its peers, and a
//! line where there are seconds. SVG by hand: a table drawn with rectangles needs no library.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::figures::{By, Conditions, Figures, Row};

const WIDTH: f64 = 960.0;
const NAMES: f64 = 330.0;
const BARS: f64 = 430.0;
const BAR: f64 = 20.0;
const GAP: f64 = 16.0;
const LINES: f64 = 112.0;
const OURS: &str = "#2563eb";
const CONTROL: &str = "#9ca3af";
const PEER: &str = "#f59e0b";

pub(crate) fn write(file: &Path, conditions: &Conditions, rows: &[Row]) -> io::Result<()> {
    let heights = rows.iter().map(|row| {
        let lines = if row.figures.seconds.is_empty() { 0.0 } else { LINES };
        sides(row).len() as f64 * BAR + GAP + lines
    });
    let height = heights.sum::<f64>() + 50.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let Conditions { profile, cores, flush, rounds, .. } = conditions;
    let disk = if *flush { "waits" } else { "does not wait" };
    let _ = writeln!(
        svg,
        "<text x=\"8\" y=\"20\">{profile} profile, {cores} cores; COMMIT {disk} for the disk; medians of {rounds} \
         rounds beside peers</text>"
    );
    let mut y = 40.0;
    for row in rows {
        bars(&mut svg, y, row);
        y += sides(row).len() as f64 * BAR + GAP;
        if !row.figures.seconds.is_empty() {
            seconds(&mut svg, y, row);
            y += LINES;
        }
    }
    svg += "</svg>\n";
    fs::write(file, svg)
}

/// The node, its control and its peers: name, figures, colour.
fn sides(row: &Row) -> Vec<(&str, &Figures, &'static str)> {
    let peers = row.peers.iter().flatten().map(|peer| (peer.name.as_str(), &peer.figures, PEER));
    let ours = [(row.name.as_str(), &row.figures, OURS), (row.control_name.as_str(), &row.control, CONTROL)];
    ours.into_iter().chain(peers).collect()
}

fn bars(svg: &mut String, y: f64, row: &Row) {
    let values = sides(row).into_iter().map(|(name, figures, colour)| (name, row.value(figures), colour));
    let values: Vec<_> = values.collect();
    let longest = values.iter().filter_map(|(_, value, _)| *value).fold(f64::MIN_POSITIVE, f64::max);
    for (n, (name, value, colour)) in values.into_iter().enumerate() {
        let top = y + BAR * n as f64;
        let length = value.unwrap_or(0.0) / longest * BARS;
        let text = value.map_or("—".to_owned(), |value| label(row.by, value));
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{NAMES}\" y=\"{top}\" width=\"{length:.1}\" height=\"16\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{text}</text>",
            NAMES - 8.0,
            top + 13.0,
            escaped(name),
            NAMES + length + 6.0,
            top + 13.0,
        );
    }
}

fn label(by: By, value: f64) -> String {
    match by {
        By::PerSecond => format!("{value:.0}/s"),
        By::P50 => format!("p50 {:.3} ms", value / 1000.0),
        By::P99 => format!("p99 {:.3} ms", value / 1000.0),
        By::Resident => format!("{value:.1} KiB"),
        By::Count => format!("{value:.2}"),
    }
}

/// Both sides, second by second, from zero.
fn seconds(svg: &mut String, y: f64, row: &Row) {
    let most = row.figures.seconds.iter().chain(&row.control.seconds).max().copied().unwrap_or(1).max(1);
    let height = LINES - 30.0;
    let line = |figures: &Figures| {
        let step = BARS / (figures.seconds.len().max(2) - 1) as f64;
        let place = |(n, count): (usize, &u64)| {
            let (x, up) = (NAMES + n as f64 * step, *count as f64 / most as f64 * height);
            format!("{x:.1},{:.1}", y + height - up)
        };
        figures.seconds.iter().enumerate().map(place).collect::<Vec<_>>().join(" ")
    };
    for (figures, colour) in [(&row.control, CONTROL), (&row.figures, OURS)] {
        let points = line(figures);
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"
        );
    }
    let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\">{most}/s</text>", NAMES + BARS + 6.0, y + 10.0);
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
