//! Log filters name the crates of the host. The host was one crate before, and filters in use name its
//! modules. Those filters keep working.

use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::Error;

/// Modules of the one crate, and where they are now.
const MODULES: [(&str, &str); 24] = [
    ("admin", "switchboard_server::admin"),
    ("app", "switchboard_server::app"),
    ("cli", "switchboard"),
    ("config", "switchboard_core::config"),
    ("fanout", "switchboard_fanout"),
    ("fetch", "switchboard_http::fetch"),
    ("gateway", "switchboard_server::gateway"),
    ("harness", "switchboard_harness"),
    ("http_server", "switchboard_http::http_server"),
    ("interfaces", "switchboard_runtime::interfaces"),
    ("manifest", "switchboard_core::manifest"),
    ("postgres", "switchboard_postgres"),
    ("quota", "switchboard_core::quota"),
    ("redis", "switchboard_redis"),
    ("releases", "switchboard_releases"),
    ("revocations", "switchboard_server::revocations"),
    ("runtime", "switchboard_runtime"),
    ("session", "switchboard_protocol::session"),
    ("shares", "switchboard_core::shares"),
    ("shutdown", "switchboard_core::shutdown"),
    ("telemetry", "switchboard_telemetry"),
    ("trace", "switchboard_recording"),
    ("triggers", "switchboard_server::triggers"),
    ("wire", "switchboard_protocol::wire"),
];

/// Dependencies that write the contents of their calls below the level `info`: parameters of statements, and
/// headers with tokens.
const WITH_CONTENTS: [&str; 2] = ["hyper", "tokio_postgres"];

/// Reads a filter: levels (`info`), and levels of crates and their modules (`switchboard_fanout=debug`),
/// separated by commas. A filter such as `debug` does not cover the dependencies that write contents; a
/// filter that names one of them does.
///
/// # Errors
/// If a part is neither.
pub(super) fn parse(filter: &str) -> Result<Targets, Error> {
    let filter = of_crates(filter);
    let parts: Vec<_> = filter.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let targets: Targets = parts.join(",").parse().map_err(Error::Log)?;
    if targets.default_level().is_none_or(|level| level <= LevelFilter::INFO) {
        return Ok(targets);
    }
    let unnamed = WITH_CONTENTS.iter().filter(|name| !parts.iter().any(|part| part.starts_with(**name)));
    Ok(unnamed.fold(targets, |targets, name| targets.with_target(*name, LevelFilter::INFO)))
}

/// The filter with the names of crates where it names modules of the one crate.
fn of_crates(filter: &str) -> String {
    MODULES.iter().fold(filter.to_owned(), |filter, (module, now)| {
        filter.replace(&format!("switchboard::{module}"), now)
    })
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_filter_of_the_one_crate_keeps_working() {
        for (filter, now) in [
            ("info,switchboard::fanout=debug", "info,switchboard_fanout=debug"),
            ("switchboard::fanout::bus=trace", "switchboard_fanout::bus=trace"),
            ("warn,switchboard::gateway::auth=debug", "warn,switchboard_server::gateway::auth=debug"),
            ("switchboard=debug,switchboard_fanout=info", "switchboard=debug,switchboard_fanout=info"),
        ] {
            assert_eq!(of_crates(filter), now);
        }
    }

    #[test]
    fn the_contents_of_calls_are_logged_only_where_the_filter_names_the_dependency() {
        let logs = |filter: &str, target: &str| parse(filter).unwrap().would_enable(target, &Level::DEBUG);
        assert!(logs("debug", "switchboard_postgres") && !logs("debug", "tokio_postgres::query"));
        assert!(!logs("trace,switchboard_redis=info", "hyper::proto"));
        assert!(logs("debug,tokio_postgres=debug", "tokio_postgres::query"));
        assert!(logs("warn,hyper=trace", "hyper::proto") && !logs("warn,hyper=trace", "tokio_postgres"));
        assert!(!parse("warn").unwrap().would_enable("tokio_postgres", &Level::INFO));
    }

    #[test]
    fn a_filter_gives_each_crate_its_level() {
        let filter = parse("warn, switchboard_fanout=debug,switchboard::redis=off,").unwrap();
        for (target, level, is_logged) in [
            ("switchboard_fanout::bus", Level::DEBUG, true),
            ("switchboard_fanout::bus", Level::TRACE, false),
            ("switchboard_redis", Level::ERROR, false),
            ("hyper", Level::WARN, true),
            ("hyper", Level::INFO, false),
        ] {
            assert_eq!(filter.would_enable(target, &level), is_logged, "{target} {level}");
        }
        assert!(parse("").unwrap().would_enable("hyper", &Level::ERROR));
        assert!(parse("switchboard=loud").is_err());
    }
}
