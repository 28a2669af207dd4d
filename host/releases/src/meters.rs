//! The metrics of the loaded releases' calls, in the Prometheus text format. Each release counts its own
//! calls, and the page is rendered when it is asked for. So the series of a release end with it: ten thousand
//! deploys do not make a page of a million lines.

use std::fmt::Write;
use std::sync::Arc;

use super::registry::RoutingTable;
use switchboard_core::ids::Digest;
use switchboard_runtime::{Observable, releases_loaded};
use switchboard_telemetry::SECONDS;
use switchboard_telemetry::histogram::Counts;

struct ReleaseSeries<R> {
    /// The labels `node`, `handler` and `release`, with which every sample begins.
    labels: String,
    role: &'static str,
    release: Arc<R>,
}

pub(super) fn page<R: Observable>(
    node: &str,
    current: &RoutingTable<R>,
    loaded: Vec<(Digest, String, Arc<R>)>,
) -> String {
    let mut lines: Vec<ReleaseSeries<R>> = Vec::new();
    let mut add = |name: &str, digest: Digest, role, release: &Arc<R>| {
        // One release may be known in several roles. The first one is its present role.
        if !lines.iter().any(|line| Arc::ptr_eq(&line.release, release)) {
            let labels = format!("node=\"{node}\",handler=\"{name}\",release=\"{}\"", digest.short());
            lines.push(ReleaseSeries { labels, role, release: release.clone() });
        }
    };
    for entry in current.handlers() {
        add(&entry.name, entry.digest, "running", &entry.running);
        if let Some(canary) = &entry.canary {
            add(&entry.name, canary.candidate.digest, "canary", &canary.candidate.release);
        }
        if let Some(shadow) = &entry.shadow {
            add(&entry.name, shadow.digest, "shadow", &shadow.release);
        }
    }
    for (digest, name, release) in &loaded {
        add(name, *digest, "kept", release);
    }
    // One page may not contain a series twice: a release may have been loaded again beside its former self.
    lines.sort_by(|a, b| a.labels.cmp(&b.labels));
    lines.dedup_by(|b, a| a.labels == b.labels);
    render(node, &lines)
}

fn render<R: Observable>(node: &str, lines: &[ReleaseSeries<R>]) -> String {
    let mut page = Page(String::new());
    page.family("switchboard_releases_loaded", "gauge");
    page.sample("switchboard_releases_loaded", &format!("node=\"{node}\""), releases_loaded());
    page.family("switchboard_release_info", "gauge");
    for line in lines {
        page.sample("switchboard_release_info", &format!("{},role=\"{}\"", line.labels, line.role), 1);
    }
    page.family("switchboard_calls_total", "counter");
    for ReleaseSeries { labels, release, .. } in lines {
        for (trigger, outcome, calls) in release.stats().outcomes() {
            let labels = format!("{labels},trigger=\"{trigger}\",outcome=\"{outcome}\"");
            page.sample("switchboard_calls_total", &labels, calls);
        }
    }
    page.family("switchboard_call_errors_total", "counter");
    for ReleaseSeries { labels, release, .. } in lines {
        for (blame, calls) in release.stats().errors_by_blame() {
            page.sample("switchboard_call_errors_total", &format!("{labels},blame=\"{blame}\""), calls);
        }
    }
    page.family("switchboard_call_cpu_seconds_total", "counter");
    for ReleaseSeries { labels, release, .. } in lines {
        page.sample("switchboard_call_cpu_seconds_total", labels, release.stats().cpu().as_secs_f64());
    }
    page.family("switchboard_call_memory_high_bytes", "gauge");
    for ReleaseSeries { labels, release, .. } in lines {
        page.sample("switchboard_call_memory_high_bytes", labels, release.stats().memory_high_bytes());
    }
    page.family("switchboard_call_seconds", "histogram");
    for ReleaseSeries { labels, release, .. } in lines {
        for (trigger, took) in release.stats().took() {
            page.histogram("switchboard_call_seconds", &format!("{labels},trigger=\"{trigger}\""), &took);
        }
    }
    page.family("switchboard_host_calls_total", "counter");
    let host_calls: Vec<_> = lines.iter().map(|line| (&line.labels, line.release.host_calls())).collect();
    for (labels, calls) in &host_calls {
        for (function, counts) in calls {
            let labels = format!("{labels},function=\"{function}\"");
            page.sample("switchboard_host_calls_total", &labels, counts.count());
        }
    }
    page.family("switchboard_host_call_seconds", "histogram");
    for (labels, calls) in &host_calls {
        for (function, counts) in calls {
            page.histogram(
                "switchboard_host_call_seconds",
                &format!("{labels},function=\"{function}\""),
                counts,
            );
        }
    }
    page.0
}

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str) {
        let _ = writeln!(self.0, "# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
    }

    fn histogram(&mut self, name: &str, labels: &str, counts: &Counts) {
        let bounds = SECONDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        let mut below = 0;
        for (bound, here) in bounds.zip(counts.buckets) {
            below += here;
            self.sample(&format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), below);
        }
        self.sample(&format!("{name}_sum"), labels, counts.sum_ns as f64 / 1e9);
        self.sample(&format!("{name}_count"), labels, below);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::registry::{Candidate, Entry};
    use switchboard_runtime::{Caller, Ending, Kind, Trigger, Used};
    use switchboard_testing::manifests::Declared;

    #[test]
    fn each_release_has_its_own_series_and_one_that_is_gone_has_none() {
        let (running, canary, kept) =
            (Declared::called("echo"), Declared::called("echo"), Declared::called("echo"));
        let used = Used { cpu: Duration::from_millis(2), memory_bytes: 65_536 };
        running.stats().record(Trigger::Http, Caller::Host, Duration::from_millis(3), Ending::Answered, used);
        canary.stats().record(
            Trigger::Frame,
            Caller::Host,
            Duration::from_millis(3),
            Ending::Failed(Kind::Trap),
            used,
        );
        let [of_running, of_canary, of_kept] = [b"a", b"b", b"c"].map(|text| Digest::of(text));
        let mut entry = Entry::new("echo", of_running, 1, running);
        let candidate = Candidate { digest: of_canary, release: canary, percent: 10 };
        entry.set_canary(candidate, Default::default(), None);
        let table = RoutingTable::of([Arc::new(entry)]).unwrap();

        let page = page("n1", &table, vec![(of_kept, "echo".to_owned(), kept)]);
        let (running, canary, kept) = (of_running.short(), of_canary.short(), of_kept.short());
        for line in [
            format!(
                "switchboard_calls_total{{node=\"n1\",handler=\"echo\",release=\"{running}\",trigger=\"http\",outcome=\"returned\"}} 1"
            ),
            format!(
                "switchboard_calls_total{{node=\"n1\",handler=\"echo\",release=\"{canary}\",trigger=\"frame\",outcome=\"trap\"}} 1"
            ),
            format!(
                "switchboard_call_errors_total{{node=\"n1\",handler=\"echo\",release=\"{canary}\",blame=\"guest\"}} 1"
            ),
            format!(
                "switchboard_call_cpu_seconds_total{{node=\"n1\",handler=\"echo\",release=\"{running}\"}} 0.002"
            ),
            format!(
                "switchboard_call_memory_high_bytes{{node=\"n1\",handler=\"echo\",release=\"{running}\"}} 65536"
            ),
            format!(
                "switchboard_call_seconds_bucket{{node=\"n1\",handler=\"echo\",release=\"{running}\",trigger=\"http\",le=\"0.005\"}} 1"
            ),
            format!(
                "switchboard_call_seconds_bucket{{node=\"n1\",handler=\"echo\",release=\"{running}\",trigger=\"http\",le=\"+Inf\"}} 1"
            ),
            format!(
                "switchboard_release_info{{node=\"n1\",handler=\"echo\",release=\"{kept}\",role=\"kept\"}} 1"
            ),
        ] {
            assert!(page.lines().any(|had| had == line), "no `{line}` in\n{page}");
        }
        let families = page.lines().filter(|line| line.starts_with("# TYPE switchboard_calls_total"));
        assert_eq!(families.count(), 1);
    }
}
