//! Who may come, go and change in a conversation, from what stands there under its lock. Pure: the table of roles is
//! `conversation.rs`, this is what the kinds make of it.

use crate::conversation::{Act, Kind, Role};
use crate::problem;
use sdk::Problem;

/// What a conversation without a capacity of its own holds. A larger one would make every join slow: under the
/// conversation's lock the participants are counted.
pub const PARTICIPANTS_MAX: u64 = 100_000;

/// A conversation, who asks, and whom it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub kind: Kind,
    pub public: bool,
    pub archived: bool,
    pub capacity: Option<u64>,
    /// Participants now.
    pub present: u64,
    /// The role of who asks, where they are a participant.
    pub asker: Option<Role>,
    /// The role of whom it is about, likewise.
    pub subject: Option<Role>,
    /// They are one person.
    pub oneself: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Coming {
    /// They were there; nothing changes.
    Already,
    As(Role),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Going {
    /// With this role, as everyone can read.
    Leaves(Role),
    /// The last one out of what nobody can come back to: it ends.
    Ends(Role),
    /// A direct conversation is put away until its next message; nobody else is told.
    Hides,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Turn {
    Nothing,
    /// The subject gets this role.
    Gets(Role),
    /// The subject becomes the owner, and the owner an admin.
    HandsOver,
}

/// What is said where nothing is seen. Who stands before a public channel knows that it is there, and only that; whatever
/// else somebody does not see looks like what does not exist.
pub fn unseen(before_a_public_channel: bool, thing: &str) -> Problem {
    if before_a_public_channel { Problem::forbidden("participants only") } else { Problem::not_found(thing) }
}

impl State {
    /// The role of who asks. What is public is known to everyone, everything else only to who is in it.
    pub fn asker(&self) -> Result<Role, Problem> {
        match self.asker {
            Some(role) => Ok(role),
            None => Err(unseen(self.is_open(), "conversation")),
        }
    }

    /// Anyone signed in may join.
    pub fn is_open(&self) -> bool {
        self.kind == Kind::Channel && self.public
    }

    /// Who asks comes in.
    pub fn join(&self) -> Result<Coming, Problem> {
        match self.asker {
            Some(_) => Ok(Coming::Already),
            None if !self.is_open() => Err(unseen(false, "conversation")),
            None => {
                self.has_a_place()?;
                // An empty channel has lost its owner: never is one without, once somebody is in it.
                Ok(Coming::As(if self.present == 0 { Role::Owner } else { Role::Member }))
            }
        }
    }

    /// Who asks brings somebody in, with a role that is not `owner`.
    pub fn add(&self, role: Role) -> Result<Coming, Problem> {
        if self.oneself && self.asker.is_none() && self.is_open() {
            // Naming oneself is joining, and a joiner does not choose.
            return if role == Role::Member {
                self.join()
            } else {
                Err(Problem::forbidden("joining makes members"))
            };
        }
        let asker = self.asker()?;
        self.changes_here()?;
        asker.must(Act::Manage)?;
        if role == Role::Admin {
            asker.must(Act::Rule)?;
        }
        if self.subject.is_some() {
            return Ok(Coming::Already);
        }
        self.has_a_place()?;
        Ok(Coming::As(role))
    }

    /// Who asks goes.
    pub fn leave(&self) -> Result<Going, Problem> {
        let role = self.asker()?;
        match self.kind {
            Kind::Direct => return Ok(Going::Hides),
            Kind::Class => return Err(problem::managed_by_class()),
            Kind::Group | Kind::Channel => {}
        }
        match (role, self.present > 1) {
            (Role::Owner, true) => Err(problem::owner_must_hand_over()),
            (_, false) if !self.is_open() => Ok(Going::Ends(role)),
            _ => Ok(Going::Leaves(role)),
        }
    }

    /// Who asks makes somebody else go.
    pub fn remove(&self) -> Result<Going, Problem> {
        if self.oneself {
            return self.leave();
        }
        let asker = self.asker()?;
        self.changes_here()?;
        asker.must(Act::Manage)?;
        let subject = self.subject()?;
        match subject {
            Role::Owner => return Err(Problem::forbidden("the owner is not removed")),
            Role::Admin => asker.must(Act::Rule)?,
            Role::Member | Role::Observer => {}
        }
        Ok(Going::Leaves(subject))
    }

    /// Who asks gives somebody a role.
    pub fn turn(&self, role: Role) -> Result<Turn, Problem> {
        let asker = self.asker()?;
        self.changes_here()?;
        asker.must(Act::Rule)?;
        match (self.subject()?, role) {
            (had, role) if had == role => Ok(Turn::Nothing),
            (Role::Owner, _) => Err(problem::owner_must_hand_over()),
            (_, Role::Owner) => Ok(Turn::HandsOver),
            _ => Ok(Turn::Gets(role)),
        }
    }

    /// Who asks changes what it is called, and how it is set.
    pub fn configure(&self) -> Result<(), Problem> {
        let asker = self.asker()?;
        asker.must(Act::Manage)?;
        // Of a direct conversation both are members, so nobody comes this far.
        if self.archived { Err(problem::archived()) } else { Ok(()) }
    }

    pub fn subject(&self) -> Result<Role, Problem> {
        self.subject.ok_or_else(|| Problem::not_found("participant"))
    }

    /// One more fits in.
    pub fn has_a_place(&self) -> Result<(), Problem> {
        if self.archived {
            return Err(problem::archived());
        }
        if self.present >= self.capacity.unwrap_or(PARTICIPANTS_MAX) {
            return Err(problem::conversation_full());
        }
        Ok(())
    }

    /// People of this kind come, go and change one by one.
    fn changes_here(&self) -> Result<(), Problem> {
        match self.kind {
            Kind::Direct => Err(Problem::forbidden("a direct conversation is always of its two people")),
            Kind::Class => Err(problem::managed_by_class()),
            Kind::Group | Kind::Channel if self.archived => Err(problem::archived()),
            Kind::Group | Kind::Channel => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Role::{Admin, Member, Observer, Owner};

    fn state(kind: Kind, asker: Option<Role>, subject: Option<Role>) -> State {
        State {
            kind,
            public: false,
            archived: false,
            capacity: None,
            present: 3,
            asker,
            subject,
            oneself: false,
        }
    }

    fn group(asker: Role, subject: Option<Role>) -> State {
        state(Kind::Group, Some(asker), subject)
    }

    fn myself(kind: Kind, role: Option<Role>) -> State {
        State { oneself: true, ..state(kind, role, role) }
    }

    fn open(role: Option<Role>) -> State {
        State { public: true, ..myself(Kind::Channel, role) }
    }

    fn code<T>(verdict: Result<T, Problem>) -> String {
        verdict.map_or_else(|problem| problem.code, |_| "ok".to_owned())
    }

    #[test]
    fn who_is_not_there_learns_only_of_what_is_public() {
        for kind in [Kind::Direct, Kind::Group, Kind::Class, Kind::Channel] {
            let stranger = state(kind, None, Some(Member));
            for verdict in [
                code(stranger.add(Member)),
                code(stranger.remove()),
                code(stranger.turn(Admin)),
                code(stranger.configure()),
            ] {
                assert_eq!(verdict, "not_found", "{kind:?}");
            }
            assert_eq!(
                (code(stranger.join()), code(myself(kind, None).leave())),
                ("not_found".into(), "not_found".into())
            );
        }
        let stranger = State { oneself: false, ..open(None) };
        assert_eq!(
            (code(stranger.add(Member)), code(stranger.configure())),
            ("forbidden".into(), "forbidden".into())
        );
    }

    #[test]
    fn joining_is_for_public_channels() {
        assert_eq!(open(None).join(), Ok(Coming::As(Member)));
        assert_eq!(open(Some(Observer)).join(), Ok(Coming::Already));
        assert_eq!(State { present: 0, ..open(None) }.join(), Ok(Coming::As(Owner)));
        assert_eq!(myself(Kind::Group, Some(Member)).join(), Ok(Coming::Already));
        assert_eq!(code(State { capacity: Some(3), ..open(None) }.join()), "conversation_full");
        assert_eq!(State { capacity: Some(4), ..open(None) }.join(), Ok(Coming::As(Member)));
        assert_eq!(code(State { present: PARTICIPANTS_MAX, ..open(None) }.join()), "conversation_full");
        assert_eq!(code(State { archived: true, ..open(None) }.join()), "archived");
    }

    #[test]
    fn adding_oneself_is_joining_and_makes_no_admin() {
        assert_eq!(open(None).add(Member), Ok(Coming::As(Member)));
        assert_eq!(
            (code(open(None).add(Admin)), code(open(None).add(Observer))),
            ("forbidden".into(), "forbidden".into())
        );
        assert_eq!(code(myself(Kind::Group, None).add(Member)), "not_found");
    }

    #[test]
    fn adding_is_for_owner_and_admins_and_admins_are_made_by_the_owner() {
        for (asker, role, expected) in [
            (Owner, Member, "ok"),
            (Owner, Observer, "ok"),
            (Owner, Admin, "ok"),
            (Admin, Member, "ok"),
            (Admin, Observer, "ok"),
            (Admin, Admin, "forbidden"),
            (Member, Member, "forbidden"),
            (Observer, Member, "forbidden"),
        ] {
            assert_eq!(code(group(asker, None).add(role)), expected, "{asker:?} adds {role:?}");
        }
        assert_eq!(group(Admin, Some(Observer)).add(Member), Ok(Coming::Already));
        assert_eq!(code(state(Kind::Class, Some(Owner), None).add(Member)), "managed_by_class");
        assert_eq!(code(state(Kind::Direct, Some(Member), None).add(Member)), "forbidden");
        assert_eq!(code(State { capacity: Some(3), ..group(Owner, None) }.add(Member)), "conversation_full");
    }

    #[test]
    fn removing_follows_the_table() {
        for (asker, subject, expected) in [
            (Owner, Admin, "ok"),
            (Owner, Member, "ok"),
            (Owner, Observer, "ok"),
            (Admin, Owner, "forbidden"),
            (Admin, Admin, "forbidden"),
            (Admin, Member, "ok"),
            (Admin, Observer, "ok"),
            (Member, Observer, "forbidden"),
            (Observer, Member, "forbidden"),
        ] {
            assert_eq!(code(group(asker, Some(subject)).remove()), expected, "{asker:?} removes {subject:?}");
        }
        assert_eq!(code(group(Owner, None).remove()), "not_found");
        assert_eq!(code(state(Kind::Class, Some(Owner), Some(Member)).remove()), "managed_by_class");
        assert_eq!(code(state(Kind::Direct, Some(Member), Some(Member)).remove()), "forbidden");
    }

    #[test]
    fn an_owner_hands_over_before_leaving_unless_alone() {
        assert_eq!(code(myself(Kind::Group, Some(Owner)).leave()), "owner_must_hand_over");
        let alone = State { present: 1, ..myself(Kind::Group, Some(Owner)) };
        assert_eq!(alone.leave(), Ok(Going::Ends(Owner)));
        assert_eq!(State { present: 1, ..open(Some(Owner)) }.leave(), Ok(Going::Leaves(Owner)));
        for role in [Admin, Member, Observer] {
            assert_eq!(myself(Kind::Group, Some(role)).remove(), Ok(Going::Leaves(role)));
        }
        assert_eq!(myself(Kind::Direct, Some(Member)).leave(), Ok(Going::Hides));
        assert_eq!(code(myself(Kind::Class, Some(Member)).leave()), "managed_by_class");
    }

    #[test]
    fn roles_are_changed_by_the_owner_alone() {
        for asker in [Admin, Member, Observer] {
            assert_eq!(code(group(asker, Some(Member)).turn(Admin)), "forbidden");
        }
        assert_eq!(group(Owner, Some(Member)).turn(Admin), Ok(Turn::Gets(Admin)));
        assert_eq!(group(Owner, Some(Member)).turn(Member), Ok(Turn::Nothing));
        assert_eq!(group(Owner, Some(Observer)).turn(Owner), Ok(Turn::HandsOver));
        assert_eq!(code(group(Owner, None).turn(Admin)), "not_found");
        assert_eq!(code(myself(Kind::Group, Some(Owner)).turn(Member)), "owner_must_hand_over");
        assert_eq!(myself(Kind::Group, Some(Owner)).turn(Owner), Ok(Turn::Nothing));
        assert_eq!(code(state(Kind::Class, Some(Owner), Some(Member)).turn(Admin)), "managed_by_class");
        assert_eq!(code(State { archived: true, ..group(Owner, Some(Member)) }.turn(Admin)), "archived");
    }

    #[test]
    fn settings_are_for_owner_and_admins() {
        assert!(
            group(Admin, None).configure().is_ok()
                && state(Kind::Class, Some(Owner), None).configure().is_ok()
        );
        for refused in [group(Member, None), state(Kind::Direct, Some(Member), None)] {
            assert_eq!(code(refused.configure()), "forbidden");
        }
        assert_eq!(code(State { archived: true, ..group(Owner, None) }.configure()), "archived");
    }
}
