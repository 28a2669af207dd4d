//! Words of conversations that several handlers share: kinds, roles, and the one table of who may what. Pure.

use crate::Problem;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Two people, no owner, nobody added.
    Direct,
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
    /// Change roles, remove admins, hand over.
    Rule,
}

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
        match act {
            Act::Read => true,
            Act::Send => self != Self::Observer,
            Act::Manage => matches!(self, Self::Owner | Self::Admin),
            Act::Rule => self == Self::Owner,
        }
    }

    pub fn must(self, act: Act) -> Result<(), Problem> {
        if self.may(act) {
            return Ok(());
        }
        Err(Problem::forbidden(match act {
            Act::Read => "participants only",
            Act::Send => "observers read only",
            Act::Manage => "owner and admins only",
            Act::Rule => "the owner only",
        }))
    }
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
}
