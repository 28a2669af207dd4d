//! Log lines, metrics and spans. The first two exist once in a process, because the crates `tracing` and
//! `metrics` have one global subscriber and one global recorder: a second start (several nodes in one test
//! process) shares the first. Spans belong to a node: its [`Tracer`] is passed on as a value. No line and no
//! span may contain payloads or secrets.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

use lines::Lines;

pub use error::Error;
pub use lines::in_one_line;
pub use spans::Tracer;

use switchboard_core::config::Config;
use switchboard_core::ids::NodeId;
use switchboard_core::limits;
use switchboard_core::shutdown::ShutdownGuard;

mod error;
mod filter;
pub mod histogram;
mod lines;
mod otlp;
pub mod spans;

/// Calls take from ten microseconds (a fresh instance) to a minute (the longest deadline).
pub const SECONDS: [f64; 20] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];
const BYTES: [f64; 9] =
    [64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];
/// Buckets for batches and other counts.
const COUNTS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// The telemetry of a node.
pub struct Telemetry {
    pub metrics: Metrics,
    pub tracer: Tracer,
}

/// The metrics of the process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Renders the Prometheus text format.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Runs until the process ends.
    pub async fn upkeep(self, mut guard: ShutdownGuard) {
        let mut tick = tokio::time::interval(limits::METRICS_UPKEEP_EVERY);
        loop {
            tokio::select! {
                _ = tick.tick() => self.0.run_upkeep(),
                () = guard.begun() => return,
            }
        }
    }
}

/// Starts logs, metrics and spans. The name of a histogram ends with its unit, which determines its buckets:
/// `_seconds`, `_bytes`, and a number for any other end.
///
/// # Errors
/// If `config.log` is not a filter.
pub fn start(config: &Config, node: NodeId) -> Result<Telemetry, Error> {
    static STARTED: OnceLock<PrometheusHandle> = OnceLock::new();
    let filter = filter::parse(&config.log)?;
    let handle = STARTED.get_or_init(|| {
        log_to_stderr(filter, config.log_json, node);
        record_metrics(node)
    });
    Ok(Telemetry { metrics: Metrics(handle.clone()), tracer: otlp::start(config, node)? })
}

/// Starts to write log lines to standard error. An existing subscriber (that of a test) stays.
fn log_to_stderr(filter: Targets, json: bool, node: NodeId) {
    let filtered = tracing_subscriber::registry().with(filter);
    let _ = if json {
        let writer = Lines::json(format!("{{\"node\":\"{node}\","));
        filtered.with(fmt::layer().json().flatten_event(true).with_writer(writer)).try_init()
    } else {
        let ansi = io::stderr().is_terminal();
        filtered.with(fmt::layer().with_ansi(ansi).with_writer(Lines::text(ansi))).try_init()
    };
}

fn record_metrics(node: NodeId) -> PrometheusHandle {
    let recorder = [
        (Matcher::Suffix("_seconds".to_owned()), SECONDS.as_slice()),
        (Matcher::Suffix("_bytes".to_owned()), &BYTES),
    ]
    .into_iter()
    .try_fold(PrometheusBuilder::new(), |builder, (names, buckets)| {
        builder.set_buckets_for_metric(names, buckets)
    })
    .and_then(|builder| builder.set_buckets(&COUNTS))
    .expect("the bucket lists above are not empty")
    .add_global_label("node", node.to_string())
    .build_recorder();
    let handle = recorder.handle();
    let _ = metrics::set_global_recorder(recorder);
    handle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_rendered_with_its_node() {
        // Another test of this process may have started first, with its own node.
        let Telemetry { metrics, .. } = start(&Config::default(), NodeId::random()).unwrap();
        metrics::histogram!("switchboard_test_seconds").record(0.002);
        metrics::counter!("switchboard_test_total").increment(1);

        let page = metrics.render();
        assert!(page.contains("switchboard_test_total{node=\""), "{page}");
        assert!(page.contains("le=\"0.0025\"} 1"), "{page}");
    }

    #[test]
    fn a_filter_that_is_none_is_named() {
        let config = Config { log: "switchboard=loud".to_owned(), ..Config::default() };
        assert!(start(&config, NodeId::random()).err().unwrap().to_string().contains("`log`"));
    }
}
