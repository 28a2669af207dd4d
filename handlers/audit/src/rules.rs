//! The rules for an access: who may audit, and which reason is needed. Pure: no host calls, so plain
//! `cargo test` runs it.

use sdk::{Problem, text};
use serde_json::json;

pub(crate) const LIMIT_DEFAULT: u64 = 50;
pub(crate) const LIMIT_MAX: u64 = 100;
/// The size of a page, earlier versions of messages included. If the page is larger, it is cut and `has_more`
/// is true.
pub(crate) const BYTES_MAX: u64 = 3 * 1024 * 1024;
pub(crate) const REASON_CHARS_MAX: usize = 500;

pub(crate) fn may_audit(roles: &[String]) -> Result<(), Problem> {
    if roles.iter().any(|role| role == "auditor" || role == "admin") {
        return Ok(());
    }
    Err(Problem::forbidden("auditors and admins only"))
}

/// The requested page, with cursors as in `history`, and the reason for the access.
#[derive(Debug, PartialEq)]
pub(crate) struct Access {
    pub reason: Option<String>,
    pub before: Option<u64>,
    pub after: Option<u64>,
    pub limit: u64,
    /// Shows only versions before this change. A message that was edited very often shows its latest versions
    /// first.
    pub before_change: Option<u64>,
    pub kind: Option<String>,
}

impl Access {
    pub(crate) fn check(mut self) -> Result<Self, Problem> {
        let reason = self.reason.take().map(|reason| reason.trim().to_owned()).unwrap_or_default();
        if !(1..=REASON_CHARS_MAX).contains(&text::length(&reason)) || text::has_control(&reason) {
            let rule = format!("is required: 1 to {REASON_CHARS_MAX} characters, no control characters");
            return Err(Problem::invalid("reason", rule));
        }
        self.reason = Some(reason);
        match self.kind.as_deref() {
            None | Some("text" | "system" | "join" | "leave") => Ok(self),
            Some(_) => Err(Problem::invalid("type", "is not text, system, join or leave")),
        }
    }

    /// The page as it is recorded, in JSON.
    pub(crate) fn page(&self) -> String {
        json!({ "before_seq": self.before, "after_seq": self.after, "limit": self.limit, "type": self.kind,
            "before_change": self.before_change })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(reason: Option<&str>, kind: Option<&str>) -> Access {
        Access {
            reason: reason.map(str::to_owned),
            before: Some(9),
            after: None,
            limit: 50,
            before_change: None,
            kind: kind.map(str::to_owned),
        }
    }

    #[test]
    fn only_auditors_and_admins_may_audit() {
        let roles = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(may_audit(&roles(&["x", "auditor"])).is_ok() && may_audit(&roles(&["admin"])).is_ok());
        for others in [&[][..], &["service"], &["Admin"], &["auditors"]] {
            assert_eq!(may_audit(&roles(others)).unwrap_err().status, 403);
        }
    }

    #[test]
    fn an_access_needs_a_reason() {
        let checked = access(Some("  case 7 "), Some("text")).check().unwrap();
        assert_eq!(checked.reason.as_deref(), Some("case 7"));
        assert_eq!(
            checked.page(),
            r#"{"after_seq":null,"before_change":null,"before_seq":9,"limit":50,"type":"text"}"#
        );
        assert!(access(Some(&"ü".repeat(500)), None).check().is_ok());
        for bad in [None, Some(""), Some("   "), Some("a\nb"), Some(&*"x".repeat(501))] {
            assert_eq!(access(bad, None).check().unwrap_err().field.as_deref(), Some("reason"));
        }
        assert_eq!(access(Some("x"), Some("y")).check().unwrap_err().field.as_deref(), Some("type"));
    }
}
