//! Words of conversations that several handlers share: kinds, roles, and the one table of who may what. Pure.

use sdk::{Problem, text};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Two people, no owner, nobody added; leaving hides it.
    Direct,
    /// By invitation.
    Group,
    /// Its participants change only through its class.
    Class,
    /// Public or by invitation.
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
    /// Reads only.
    Observer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Read, mark, search, leave, mute for oneself.
    Read,
    /// Send, edit and delete own, type.
    Send,
    /// Add and remove members and observers; rename, settings, slug, capacity; delete anyone's message.
    Manage,
    /// Change roles, make and remove admins, hand over.
    Rule,
}

/// Who may what. Every handler that decides it in code asks this table; a statement that decides it says so beside it.
#[rustfmt::skip]
const TABLE: [(Act, [bool; 4], &str); 4] = [
    //            owner  admin  member observer   what the others are told
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

    pub fn must(self, act: Act) -> Result<(), Problem> {
        let (_, _, refusal) = TABLE[act as usize];
        if self.may(act) { Ok(()) } else { Err(Problem::forbidden(refusal)) }
    }
}

/// What a conversation or a class is called: as it is stored.
pub fn name(raw: String, chars_max: usize) -> Result<String, Problem> {
    text::name(raw, chars_max).ok_or_else(|| {
        let rule = format!(
            "is not 1 to {chars_max} characters, of which one can be seen and none is a control character"
        );
        Problem::invalid("name", rule)
    })
}

pub const DESCRIPTION_CHARS_MAX: usize = 2000;

/// What it is about, likewise.
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
    fn who_may_what() {
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
    fn the_table_is_in_the_order_of_its_words() {
        for (place, (act, ..)) in TABLE.iter().enumerate() {
            assert_eq!(*act as usize, place);
        }
        let roles = [Role::Owner, Role::Admin, Role::Member, Role::Observer];
        assert!(roles.iter().enumerate().all(|(place, role)| *role as usize == place));
    }
}
