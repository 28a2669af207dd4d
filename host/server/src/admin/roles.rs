//! The role that each endpoint needs. It is decided by method and path, so that a new endpoint needs the role
//! admin until it is listed here.

use std::fmt;

use hyper::Method;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Read,
    /// Also change releases, live settings and secrets, and retry or drop parked events, and cancel timers.
    Deploy,
    /// Also close connections, revoke tokens and manage admin tokens.
    Admin,
}

impl Role {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "read" => Self::Read,
            "deploy" => Self::Deploy,
            "admin" => Self::Admin,
            _ => return None,
        })
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Deploy => "deploy",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

pub(super) fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

pub(super) fn needed(method: &Method, path: &str) -> Role {
    let segments: Vec<&str> = path.strip_prefix("/admin/v1/").unwrap_or_default().split('/').collect();
    match (is_read(method), &segments[..]) {
        // A recording holds a whole call, with the data of a user.
        (true, ["history", _, "trace"]) => Role::Deploy,
        // Log lines and failures name users, and what handlers say about their calls.
        (true, ["tail"]) => Role::Deploy,
        (true, _) => Role::Read,
        (false, ["releases"])
        | (false, ["handlers", _, "promote" | "rollback" | "unshadow" | "retire" | "config"])
        | (false, ["handlers", _, "timers", "cancel"])
        | (false, ["events", _, "retry" | "drop"])
        | (false, ["secrets", _] | ["secrets", _, "remove"]) => Role::Deploy,
        // Also for routes that handlers bind.
        (false, _) => Role::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_something_needs_more_than_reading() {
        for (method, path, role) in [
            ("GET", "/admin/v1/nodes", Role::Read),
            ("HEAD", "/admin/v1/audit", Role::Read),
            ("GET", "/admin/v1/history", Role::Read),
            ("GET", "/admin/v1/handlers/echo/shadow", Role::Read),
            ("GET", "/admin/v1/history/7/trace", Role::Deploy),
            ("HEAD", "/admin/v1/history/7/trace", Role::Deploy),
            ("GET", "/admin/v1/tail", Role::Deploy),
            ("POST", "/admin/v1/releases", Role::Deploy),
            ("POST", "/admin/v1/handlers/echo/rollback", Role::Deploy),
            ("POST", "/admin/v1/handlers/echo/promote", Role::Deploy),
            ("POST", "/admin/v1/handlers/echo/unshadow", Role::Deploy),
            ("POST", "/admin/v1/handlers/echo/retire", Role::Deploy),
            ("GET", "/admin/v1/handlers/echo/config", Role::Read),
            ("GET", "/admin/v1/handlers/echo/config/history", Role::Read),
            ("POST", "/admin/v1/handlers/echo/config", Role::Deploy),
            ("POST", "/admin/v1/events/1/retry", Role::Deploy),
            ("POST", "/admin/v1/events/1/drop", Role::Deploy),
            ("GET", "/admin/v1/secrets", Role::Read),
            ("POST", "/admin/v1/secrets/TOKEN", Role::Deploy),
            ("POST", "/admin/v1/secrets/TOKEN/remove", Role::Deploy),
            ("POST", "/admin/v1/secrets", Role::Admin),
            ("POST", "/admin/v1/rebuild", Role::Admin),
            ("POST", "/admin/v1/releases-of-a-handler", Role::Admin),
            ("POST", "/admin/v1/releases/0123ab", Role::Admin),
            ("POST", "/admin/v1/handlers/echo/anything-new", Role::Admin),
            ("POST", "/admin/v1/events/1/drop/more", Role::Admin),
            ("POST", "/elsewhere", Role::Admin),
            ("POST", "/admin/v1/disconnect", Role::Admin),
            ("POST", "/admin/v1/revocations", Role::Admin),
            ("POST", "/admin/v1/tokens", Role::Admin),
            ("POST", "/admin/v1/anything-new", Role::Admin),
            ("DELETE", "/admin/v1/nodes", Role::Admin),
        ] {
            assert_eq!(needed(&method.parse().unwrap(), path), role, "{method} {path}");
        }
        assert!(Role::Read < Role::Deploy && Role::Deploy < Role::Admin);
        for role in [Role::Read, Role::Deploy, Role::Admin] {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("Admin"), None);
    }
}
