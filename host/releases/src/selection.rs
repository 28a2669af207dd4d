//! Whom a canary answers beside its share of the users: named users, a role or a group, and testers. The
//! selection is stored with the canary, and ends with it.

use std::fmt;

use serde::{Deserialize, Serialize};

use switchboard_core::hash::fnv1a;
use switchboard_core::ids::{Digest, UserId};
use switchboard_core::limits;

/// The selection of a canary. The default selects nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// These users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    users: Vec<String>,
    /// Users whose token has this role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    /// Users whose token names this group in its claim `groups`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// Clients that send the header of testers with a value of this digest. The value is kept nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tester: Option<Digest>,
}

/// The known properties of the caller who caused a call.
#[derive(Clone, Copy, Debug)]
pub struct CallOrigin<'a> {
    /// The user; for a call without a user, any text that stays the same for what must reach one release.
    pub subject: &'a str,
    /// The roles in the user's token.
    pub roles: &'a [String],
    /// The hashes (FNV-1a) of the groups in the user's token.
    pub groups: &'a [u64],
    /// The value of the header of testers.
    pub tester: Option<&'a str>,
}

impl<'a> CallOrigin<'a> {
    /// A call of which nothing else is known.
    pub fn of(subject: &'a str) -> Self {
        Self { subject, roles: &[], groups: &[], tester: None }
    }
}

/// Why a selection is refused: the parameter, and its rule.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct SelectionError {
    pub parameter: &'static str,
    pub rule: String,
}

impl Selection {
    /// Checks a selection. `tester` is the value of the header.
    ///
    /// # Errors
    /// More than [`limits::SELECTION_USERS_MAX`] users, a user id that no token can have, a role, a group
    /// or a value that is too short or too long.
    pub fn new(
        users: Vec<String>,
        role: Option<String>,
        group: Option<String>,
        tester: Option<&str>,
    ) -> Result<Self, SelectionError> {
        let wrong = |parameter, rule| Err(SelectionError { parameter, rule });
        if users.len() > limits::SELECTION_USERS_MAX {
            let rule = format!("a canary has at most {} users by name", limits::SELECTION_USERS_MAX);
            return wrong("canary_user", rule);
        }
        if let Some(user) = users.iter().find(|user| UserId::parse(user).is_none()) {
            return wrong("canary_user", format!("`{user}` is not a user id"));
        }
        for (parameter, name) in [("canary_role", &role), ("canary_group", &group)] {
            let most = limits::SELECTION_GROUP_BYTES_MAX;
            let fits = |name: &str| (1..=most).contains(&name.len()) && !name.chars().any(char::is_control);
            if name.as_deref().is_some_and(|name| !fits(name)) {
                return wrong(parameter, format!("`{parameter}` has 1 to {most} bytes without line breaks"));
            }
        }
        let is_value = |text: &str| {
            (limits::SELECTION_TESTER_BYTES_MIN..=limits::SELECTION_TESTER_BYTES_MAX).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if tester.is_some_and(|value| !is_value(value)) {
            let rule = format!(
                "`canary_tester` has {} to {} visible ASCII characters",
                limits::SELECTION_TESTER_BYTES_MIN,
                limits::SELECTION_TESTER_BYTES_MAX
            );
            return wrong("canary_tester", rule);
        }
        Ok(Self { users, role, group, tester: tester.map(|value| Digest::of(value.as_bytes())) })
    }

    /// Whether it selects nobody.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it selects this call. Always the same for the same user, roles and header.
    pub fn selects(&self, origin: &CallOrigin<'_>) -> bool {
        let is_tester = |expected: Digest| {
            let value = origin.tester.filter(|value| value.len() <= limits::SELECTION_TESTER_BYTES_MAX);
            value.is_some_and(|value| Digest::of(value.as_bytes()) == expected)
        };
        self.users.iter().any(|user| user == origin.subject)
            || self.role.as_ref().is_some_and(|role| origin.roles.contains(role))
            || self.group.as_ref().is_some_and(|group| origin.groups.contains(&fnv1a(group.bytes())))
            || self.tester.is_some_and(is_tester)
    }
}

/// `users ana, bo, role beta, group staff, testers`.
impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users = match &self.users[..] {
            [] => None,
            [user] => Some(format!("user {user}")),
            many => Some(format!("users {}", many.join(", "))),
        };
        let role = self.role.as_ref().map(|role| format!("role {role}"));
        let group = self.group.as_ref().map(|group| format!("group {group}"));
        let testers = self.tester.map(|_| "testers".to_owned());
        let parts: Vec<_> = [users, role, group, testers].into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection() -> Selection {
        let users = vec!["ana".to_owned(), "bo".to_owned()];
        let (role, group) = (Some("beta".to_owned()), Some("staff".to_owned()));
        Selection::new(users, role, group, Some("correct-horse")).unwrap()
    }

    #[test]
    fn users_roles_and_testers_are_selected_and_nobody_else() {
        let selection = selection();
        let beta = ["member".to_owned(), "beta".to_owned()];
        for (subject, roles, tester, is_selected) in [
            ("ana", &beta[..0], None, true),
            ("bo", &beta[..0], Some("wrong-horse"), true),
            ("cy", &beta[..1], None, false),
            ("cy", &beta[..], None, true),
            ("cy", &beta[..0], Some("correct-horse"), true),
            ("cy", &beta[..0], Some("correct-horse "), false),
            ("cy", &beta[..0], Some(""), false),
        ] {
            let origin = CallOrigin { subject, roles, groups: &[], tester };
            assert_eq!(selection.selects(&origin), is_selected, "{origin:?}");
            assert!(!Selection::default().selects(&origin));
        }
        for (group, is_selected) in [("staff", true), ("beta", false)] {
            let groups = [1, fnv1a(group.bytes())];
            let origin = CallOrigin { groups: &groups, ..CallOrigin::of("cy") };
            assert_eq!(selection.selects(&origin), is_selected, "{group}");
        }
    }

    #[test]
    fn a_selection_keeps_no_value_of_testers() {
        let stored = serde_json::to_string(&selection()).unwrap();
        assert!(!stored.contains("horse") && !selection().to_string().contains("horse"), "{stored}");
        assert_eq!(serde_json::from_str::<Selection>(&stored).unwrap(), selection());
        assert_eq!(serde_json::from_str::<Selection>("{}").unwrap(), Selection::default());
        assert_eq!(selection().to_string(), "users ana, bo, role beta, group staff, testers");
    }

    #[test]
    fn a_wrong_selection_is_refused_with_its_parameter() {
        let parameter = |users: Vec<String>, role: Option<&str>, tester: Option<&str>| {
            Selection::new(users, role.map(str::to_owned), None, tester).unwrap_err().parameter
        };
        let many = vec!["ana".to_owned(); limits::SELECTION_USERS_MAX + 1];
        assert_eq!(parameter(many, None, None), "canary_user");
        assert_eq!(parameter(vec![String::new()], None, None), "canary_user");
        for role in ["", "a\0b", "a\nb"] {
            assert_eq!(parameter(Vec::new(), Some(role), None), "canary_role");
        }
        let long = "x".repeat(limits::SELECTION_GROUP_BYTES_MAX + 1);
        let refused = Selection::new(Vec::new(), None, Some(long.clone()), None).unwrap_err();
        assert_eq!(refused.parameter, "canary_group");
        for tester in ["short", "with a space in it", long.as_str()] {
            assert_eq!(parameter(Vec::new(), None, Some(tester)), "canary_tester");
        }
        assert!(Selection::new(Vec::new(), None, None, None).unwrap().is_empty());
    }
}
