//! One picture of a run: each row a pair of bars, the host's above its control's, and a line where there are
//! seconds. SVG by hand: a table drawn with rectangles needs no library.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::figures::{By, Figures, Row};

const WIDTH: f64 = 960.0;
const NAMES: f64 = 330.0;
const BARS: f64 = 430.0;
const ROW: f64 = 56.0;
const OURS: &str = "#2563eb";
const CONTROL: &str = "#9ca3af";

pub(crate) fn write(file: &Path, rows: &[Row]) -> io::Result<()> {
    let lines = rows.iter().filter(|row| !row.figures.seconds.is_empty()).count();
    let height = ROW * (rows.len() + 2 * lines) as f64 + 20.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut y = 20.0;
    for row in rows {
        bars(&mut svg, y, row);
        y += ROW;
        if !row.figures.seconds.is_empty() {
            seconds(&mut svg, y, row);
            y += 2.0 * ROW;
        }
    }
    svg += "</svg>\n";
    fs::write(file, svg)
}

fn bars(svg: &mut String, y: f64, row: &Row) {
    let (ours, control) = (row.value(&row.figures), row.value(&row.control));
    let longest = ours.unwrap_or(0.0).max(control.unwrap_or(0.0)).max(f64::MIN_POSITIVE);
    for (n, (name, value, colour)) in
        [(&row.name, ours, OURS), (&row.control_name, control, CONTROL)].into_iter().enumerate()
    {
        let top = y + 20.0 * n as f64;
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
    }
}

/// Both sides, second by second, from zero.
fn seconds(svg: &mut String, y: f64, row: &Row) {
    let most = row.figures.seconds.iter().chain(&row.control.seconds).max().copied().unwrap_or(1).max(1);
    let height = 2.0 * ROW - 30.0;
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
