//! The paths of the admin listener.

use hyper::Method;

use super::console::Part;

/// The endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Healthz,
    Readyz,
    Metrics,
    Console(Part),
    Releases,
    Deploy,
    /// A release's file, by the beginning of its digest.
    ReleaseFile(String),
    Rollback(String),
    Promote(String),
    /// Retires a handler in the fleet.
    Retire(String),
    /// The live settings of a handler.
    Settings(String),
    ChangeSettings(String),
    SettingsHistory(String),
    /// The results of the handler's shadows.
    Shadows(String),
    Unshadow(String),
    History,
    /// The recording of the first failed call of a withdrawn canary, by the generation of the withdrawal.
    FirstFailure(String),
    Nodes,
    Consumers,
    Events,
    RetryEvent(String),
    DropEvent(String),
    /// The timers of handlers.
    Timers,
    CancelTimers(String),
    Disconnect,
    /// Delete keys in Redis.
    Forget,
    /// A route that a handler binds.
    Handler,
    Revoke,
    Tokens,
    MakeToken,
    RevokeToken(String),
    Audit,
    /// Live calls and log lines of all nodes.
    Tail,
    /// The secrets of the fleet, without their values.
    Secrets,
    SetSecret(String),
    RemoveSecret(String),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Endpoint(Endpoint),
    MethodNotAllowed { allow: &'static str },
    Nothing,
}

pub(super) fn find(method: &Method, path: &str) -> Found {
    const READ: &str = "GET, HEAD";
    const WRITE: &str = "POST";
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let is_write = *method == Method::POST;
    let read =
        |endpoint| if is_read { Found::Endpoint(endpoint) } else { Found::MethodNotAllowed { allow: READ } };
    let write = |endpoint| {
        if is_write { Found::Endpoint(endpoint) } else { Found::MethodNotAllowed { allow: WRITE } }
    };

    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match *segments {
        ["healthz"] => read(Endpoint::Healthz),
        ["readyz"] => read(Endpoint::Readyz),
        ["metrics"] => read(Endpoint::Metrics),
        [""] | ["console"] => read(Endpoint::Console(Part::Page)),
        ["console", "console.js"] => read(Endpoint::Console(Part::Script)),
        ["console", "console.css"] => read(Endpoint::Console(Part::Style)),
        ["admin", "v1", ref rest @ ..] => match *rest {
            ["releases"] if is_read => read(Endpoint::Releases),
            ["releases"] if is_write => write(Endpoint::Deploy),
            ["releases"] => Found::MethodNotAllowed { allow: "GET, HEAD, POST" },
            ["releases", digest] => read(Endpoint::ReleaseFile(digest.to_owned())),
            ["handlers", name, "rollback"] => write(Endpoint::Rollback(name.to_owned())),
            ["handlers", name, "retire"] => write(Endpoint::Retire(name.to_owned())),
            ["handlers", name, "promote"] => write(Endpoint::Promote(name.to_owned())),
            ["handlers", name, "config"] if is_read => read(Endpoint::Settings(name.to_owned())),
            ["handlers", name, "config"] if is_write => write(Endpoint::ChangeSettings(name.to_owned())),
            ["handlers", _, "config"] => Found::MethodNotAllowed { allow: "GET, HEAD, POST" },
            ["handlers", name, "config", "history"] => read(Endpoint::SettingsHistory(name.to_owned())),
            ["handlers", name, "shadow"] => read(Endpoint::Shadows(name.to_owned())),
            ["handlers", name, "unshadow"] => write(Endpoint::Unshadow(name.to_owned())),
            ["history", generation, "trace"] => read(Endpoint::FirstFailure(generation.to_owned())),
            ["history"] => read(Endpoint::History),
            ["nodes"] => read(Endpoint::Nodes),
            ["consumers"] => read(Endpoint::Consumers),
            ["events"] => read(Endpoint::Events),
            ["events", id, "retry"] => write(Endpoint::RetryEvent(id.to_owned())),
            ["events", id, "drop"] => write(Endpoint::DropEvent(id.to_owned())),
            ["timers"] => read(Endpoint::Timers),
            ["handlers", name, "timers", "cancel"] => write(Endpoint::CancelTimers(name.to_owned())),
            ["disconnect"] => write(Endpoint::Disconnect),
            ["redis", "forget"] => write(Endpoint::Forget),
            ["revocations"] => write(Endpoint::Revoke),
            ["tokens"] if is_read => read(Endpoint::Tokens),
            ["tokens"] if is_write => write(Endpoint::MakeToken),
            ["tokens"] => Found::MethodNotAllowed { allow: "GET, HEAD, POST" },
            ["tokens", name, "revoke"] => write(Endpoint::RevokeToken(name.to_owned())),
            ["audit"] => read(Endpoint::Audit),
            ["tail"] => read(Endpoint::Tail),
            ["secrets"] => read(Endpoint::Secrets),
            ["secrets", name] => write(Endpoint::SetSecret(name.to_owned())),
            ["secrets", name, "remove"] => write(Endpoint::RemoveSecret(name.to_owned())),
            [] => Found::Nothing,
            _ => Found::Endpoint(Endpoint::Handler),
        },
        _ => Found::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_for_its_methods() {
        let rollback = Endpoint::Rollback("echo".to_owned());
        assert_eq!(find(&Method::POST, "/admin/v1/handlers/echo/rollback"), Found::Endpoint(rollback));
        let changes = Endpoint::ChangeSettings("echo".to_owned());
        assert_eq!(find(&Method::POST, "/admin/v1/handlers/echo/config"), Found::Endpoint(changes));
        let settings = Endpoint::Settings("echo".to_owned());
        assert_eq!(find(&Method::GET, "/admin/v1/handlers/echo/config"), Found::Endpoint(settings));
        assert_eq!(
            find(&Method::POST, "/admin/v1/handlers/echo/config/history"),
            Found::MethodNotAllowed { allow: "GET, HEAD" }
        );
        assert_eq!(find(&Method::GET, "/admin/v1/releases"), Found::Endpoint(Endpoint::Releases));
        assert_eq!(find(&Method::POST, "/admin/v1/releases"), Found::Endpoint(Endpoint::Deploy));
        assert_eq!(
            find(&Method::DELETE, "/admin/v1/releases"),
            Found::MethodNotAllowed { allow: "GET, HEAD, POST" }
        );
        let secret = Endpoint::SetSecret("TOKEN".to_owned());
        assert_eq!(find(&Method::POST, "/admin/v1/secrets/TOKEN"), Found::Endpoint(secret));
        // Nothing answers with a value.
        let no_value = Found::MethodNotAllowed { allow: "POST" };
        assert_eq!(find(&Method::GET, "/admin/v1/secrets/TOKEN"), no_value);
        assert_eq!(find(&Method::POST, "/readyz"), Found::MethodNotAllowed { allow: "GET, HEAD" });
        for nothing in [
            "",
            "/x",
            "/console/x",
            "/admin",
            "/admin/v1",
            "/admin/v1/releases/",
            "/admin/v2/nodes",
            "/healthz/x",
        ] {
            let found = find(&Method::GET, nothing);
            let is_nothing = matches!(found, Found::Nothing) || nothing.ends_with("releases/");
            assert!(is_nothing, "{nothing}: {found:?}");
        }
        assert_eq!(find(&Method::POST, "/admin/v1/rebuild"), Found::Endpoint(Endpoint::Handler));
    }
}
