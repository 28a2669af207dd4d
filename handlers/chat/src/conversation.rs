//! Kinds of conversations, roles of participants, and the table of permissions. Pure: it makes no host calls.

use sdk::{Problem, text};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Two participants without an owner. No participant can be added. When one leaves, it is only hidden for
    /// them.
    Direct,
    /// Participants join by invitation.
    Group,
    /// The conversation of a class. Its participants change only through the class.
    Class,
    /// Public, or joined by invitation.
    Channel,
}

impl Kind {
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "direct" => Self::Direct,
            "group" => Self::Group,
            "class" => Self::Class,
            "channel" => Self::Channel,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
            Self::Class => "class",
            Self::Channel => "channel",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Owner,
    Admin,
    Member,
    /// Can only read.
    Observer,
}

/// A group of actions that need the same permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Read, mark, search, leave, mute for oneself.
    Read,
    /// Send messages, edit and delete own ones, send typing signals.
    Send,
    /// Add and remove members and observers; change name, settings, slug and capacity; delete anyone's
    /// message.
    Manage,
    /// Change roles, add and remove admins, hand over the ownership.
    Rule,
}

/// The permissions of each role. Every handler uses this table. A SQL statement that decides a permission
/// itself states this in a comment.
#[rustfmt::skip]
const TABLE: [(Act, [bool; 4], &str); 4] = [
    //            owner  admin  member observer   detail of the error for the other roles
    (Act::Read,   [true,  true,  true,  true ], "participants only"),
    (Act::Send,   [true,  true,  true,  false], "observers read only"),
    (Act::Manage, [true,  true,  false, false], "owner and admins only"),
    (Act::Rule,   [true,  false, false, false], "the owner only"),
];

impl Role {
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "owner" => Self::Owner,
            "admin" => Self::Admin,
            "member" => Self::Member,
            "observer" => Self::Observer,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Observer => "observer",
        }
    }

    pub fn may(self, act: Act) -> bool {
        let (_, may, _) = TABLE[act as usize];
        may[self as usize]
    }

    /// Returns `forbidden` if the role lacks the permission.
    pub fn must(self, act: Act) -> Result<(), Problem> {
        let (_, _, refusal) = TABLE[act as usize];
        if self.may(act) { Ok(()) } else { Err(Problem::forbidden(refusal)) }
    }
}

/// Checks and normalises the name of a conversation or a class.
pub fn name(raw: String, chars_max: usize) -> Result<String, Problem> {
    text::name(raw, chars_max).ok_or_else(|| {
        let rule = format!(
            "is not 1 to {chars_max} characters, of which one can be seen and none is a control character"
        );
        Problem::invalid("name", rule)
    })
}

pub const DESCRIPTION_CHARS_MAX: usize = 2000;

/// Checks and normalises the description of a conversation or a class.
pub fn description(raw: Option<String>) -> Result<Option<String>, Problem> {
    let description = raw.map(text::nfc);
    if description.as_deref().is_some_and(|text| text::length(text) > DESCRIPTION_CHARS_MAX) {
        let rule = format!("has more than {DESCRIPTION_CHARS_MAX} characters");
        return Err(Problem::invalid("description", rule));
    }
    Ok(description)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_its_permissions() {
        use Act::*;
        for (role, acts) in [
            (Role::Owner, &[Read, Send, Manage, Rule][..]),
            (Role::Admin, &[Read, Send, Manage]),
            (Role::Member, &[Read, Send]),
            (Role::Observer, &[Read]),
        ] {
            for act in [Read, Send, Manage, Rule] {
                assert_eq!(role.may(act), acts.contains(&act), "{role:?} {act:?}");
                assert_eq!(role.must(act).is_ok(), acts.contains(&act));
            }
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
    }

    #[test]
    fn the_table_has_the_order_of_the_enums() {
        for (place, (act, ..)) in TABLE.iter().enumerate() {
            assert_eq!(*act as usize, place);
        }
        let roles = [Role::Owner, Role::Admin, Role::Member, Role::Observer];
        assert!(roles.iter().enumerate().all(|(place, role)| *role as usize == place));
    }
}
