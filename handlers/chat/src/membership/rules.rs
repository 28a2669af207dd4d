//! The rules for adding, removing and changing participants. They decide from the state that was read under
//! the lock. Pure: no host calls. The permissions of roles are in `conversation.rs`; this module adds the
//! rules of the kinds.

use crate::conversation::{Act, Kind, Role};
use crate::problem;
use sdk::Problem;

/// The capacity of a conversation that does not set one. Each join counts the participants under the
/// conversation's lock, so a larger number would make joins slow.
pub const PARTICIPANTS_MAX: u64 = 100_000;
/// A conversation of more participants is large: a join or leave is not announced by itself, but all those in
/// an interval are announced together (`docs/decisions/large-rooms.md`). The number before the change counts.
pub const LARGE_ABOVE: u64 = 100;

/// A conversation, the caller, and the subject: the user whom the request is about.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub kind: Kind,
    pub public: bool,
    pub archived: bool,
    pub capacity: Option<u64>,
    /// The number of present participants.
    pub participants: u64,
    /// The caller's role; `None` if the caller is not a participant.
    pub caller: Option<Role>,
    /// The subject's role; `None` if the subject is not a participant.
    pub subject: Option<Role>,
    /// Whether the caller is the subject.
    pub is_self: bool,
}

/// The result of a request to add a participant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Admission {
    /// The user is a participant already; nothing changes.
    Already,
    As(Role),
}

/// The result of a request to remove a participant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Departure {
    /// The participant, who had this role, leaves. The other participants learn it.
    Leaves(Role),
    /// The last participant leaves a conversation that nobody can join, so the conversation is deleted.
    Ends(Role),
    /// A direct conversation is hidden until its next message. The other participant does not learn it.
    Hides,
}

/// The result of a request to change a role.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RoleChange {
    None,
    /// The subject gets this role.
    To(Role),
    /// The subject becomes the owner, and the owner an admin.
    HandOver,
}

/// The problem for a caller who is not a participant. Everyone may know that a public channel exists, so the
/// answer there is `forbidden`. For any other conversation it is `not_found`, which does not reveal that the
/// conversation exists.
pub fn unseen(is_public_channel: bool, thing: &str) -> Problem {
    if is_public_channel { Problem::forbidden("participants only") } else { Problem::not_found(thing) }
}

impl State {
    /// The caller's role. A caller who is not a participant gets the problem of [`unseen`].
    pub fn caller_role(&self) -> Result<Role, Problem> {
        match self.caller {
            Some(role) => Ok(role),
            None => Err(unseen(self.is_public_channel(), "conversation")),
        }
    }

    /// Whether every user may join.
    pub fn is_public_channel(&self) -> bool {
        self.kind == Kind::Channel && self.public
    }

    /// The caller joins.
    pub fn join(&self) -> Result<Admission, Problem> {
        match self.caller {
            Some(_) => Ok(Admission::Already),
            None if !self.is_public_channel() => Err(unseen(false, "conversation")),
            None => {
                self.check_capacity()?;
                // An empty channel has no owner, so the first participant becomes the owner.
                Ok(Admission::As(if self.participants == 0 { Role::Owner } else { Role::Member }))
            }
        }
    }

    /// The caller adds the subject, with a role other than `owner`.
    pub fn add(&self, role: Role) -> Result<Admission, Problem> {
        if self.is_self && self.caller.is_none() && self.is_public_channel() {
            // To add oneself is to join, and a user who joins becomes a member.
            return if role == Role::Member {
                self.join()
            } else {
                Err(Problem::forbidden("joining makes members"))
            };
        }
        let caller = self.caller_role()?;
        self.check_individual_changes()?;
        caller.must(Act::Manage)?;
        if role == Role::Admin {
            caller.must(Act::Rule)?;
        }
        if self.subject.is_some() {
            return Ok(Admission::Already);
        }
        self.check_capacity()?;
        Ok(Admission::As(role))
    }

    /// The caller leaves.
    pub fn leave(&self) -> Result<Departure, Problem> {
        let role = self.caller_role()?;
        match self.kind {
            Kind::Direct => return Ok(Departure::Hides),
            Kind::Class => return Err(problem::managed_by_class()),
            Kind::Group | Kind::Channel => {}
        }
        match (role, self.participants > 1) {
            (Role::Owner, true) => Err(problem::owner_must_hand_over()),
            (_, false) if !self.is_public_channel() => Ok(Departure::Ends(role)),
            _ => Ok(Departure::Leaves(role)),
        }
    }

    /// The caller removes the subject.
    pub fn remove(&self) -> Result<Departure, Problem> {
        if self.is_self {
            return self.leave();
        }
        let caller = self.caller_role()?;
        self.check_individual_changes()?;
        caller.must(Act::Manage)?;
        let subject = self.subject()?;
        match subject {
            Role::Owner => return Err(Problem::forbidden("the owner is not removed")),
            Role::Admin => caller.must(Act::Rule)?,
            Role::Member | Role::Observer => {}
        }
        Ok(Departure::Leaves(subject))
    }

    /// The caller sets the subject's role.
    pub fn change_role(&self, role: Role) -> Result<RoleChange, Problem> {
        let caller = self.caller_role()?;
        self.check_individual_changes()?;
        caller.must(Act::Rule)?;
        match (self.subject()?, role) {
            (had, role) if had == role => Ok(RoleChange::None),
            (Role::Owner, _) => Err(problem::owner_must_hand_over()),
            (_, Role::Owner) => Ok(RoleChange::HandOver),
            _ => Ok(RoleChange::To(role)),
        }
    }

    /// Whether the caller may change the name, settings, slug and capacity.
    pub fn configure(&self) -> Result<(), Problem> {
        let caller = self.caller_role()?;
        caller.must(Act::Manage)?;
        // Both participants of a direct conversation are members, so they were refused above.
        if self.archived { Err(problem::archived()) } else { Ok(()) }
    }

    /// The subject's role; `not_found` if the subject is not a participant.
    pub fn subject(&self) -> Result<Role, Problem> {
        self.subject.ok_or_else(|| Problem::not_found("participant"))
    }

    /// Checks that the conversation can take one more participant.
    pub fn check_capacity(&self) -> Result<(), Problem> {
        if self.archived {
            return Err(problem::archived());
        }
        if self.participants >= self.capacity.unwrap_or(PARTICIPANTS_MAX) {
            return Err(problem::conversation_full());
        }
        Ok(())
    }

    /// Checks that participants of this conversation can be changed one by one.
    fn check_individual_changes(&self) -> Result<(), Problem> {
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

    fn state(kind: Kind, caller: Option<Role>, subject: Option<Role>) -> State {
        State {
            kind,
            public: false,
            archived: false,
            capacity: None,
            participants: 3,
            caller,
            subject,
            is_self: false,
        }
    }

    fn group(caller: Role, subject: Option<Role>) -> State {
        state(Kind::Group, Some(caller), subject)
    }

    fn myself(kind: Kind, role: Option<Role>) -> State {
        State { is_self: true, ..state(kind, role, role) }
    }

    fn open(role: Option<Role>) -> State {
        State { public: true, ..myself(Kind::Channel, role) }
    }

    fn code<T>(verdict: Result<T, Problem>) -> String {
        verdict.map_or_else(|problem| problem.code, |_| "ok".to_owned())
    }

    #[test]
    fn a_stranger_sees_only_public_channels() {
        for kind in [Kind::Direct, Kind::Group, Kind::Class, Kind::Channel] {
            let stranger = state(kind, None, Some(Member));
            for verdict in [
                code(stranger.add(Member)),
                code(stranger.remove()),
                code(stranger.change_role(Admin)),
                code(stranger.configure()),
            ] {
                assert_eq!(verdict, "not_found", "{kind:?}");
            }
            assert_eq!(
                (code(stranger.join()), code(myself(kind, None).leave())),
                ("not_found".into(), "not_found".into())
            );
        }
        let stranger = State { is_self: false, ..open(None) };
        assert_eq!(
            (code(stranger.add(Member)), code(stranger.configure())),
            ("forbidden".into(), "forbidden".into())
        );
    }

    #[test]
    fn only_public_channels_can_be_joined() {
        assert_eq!(open(None).join(), Ok(Admission::As(Member)));
        assert_eq!(open(Some(Observer)).join(), Ok(Admission::Already));
        assert_eq!(State { participants: 0, ..open(None) }.join(), Ok(Admission::As(Owner)));
        assert_eq!(myself(Kind::Group, Some(Member)).join(), Ok(Admission::Already));
        assert_eq!(code(State { capacity: Some(3), ..open(None) }.join()), "conversation_full");
        assert_eq!(State { capacity: Some(4), ..open(None) }.join(), Ok(Admission::As(Member)));
        assert_eq!(code(State { participants: PARTICIPANTS_MAX, ..open(None) }.join()), "conversation_full");
        assert_eq!(code(State { archived: true, ..open(None) }.join()), "archived");
    }

    #[test]
    fn a_user_who_adds_themself_joins_as_a_member() {
        assert_eq!(open(None).add(Member), Ok(Admission::As(Member)));
        assert_eq!(
            (code(open(None).add(Admin)), code(open(None).add(Observer))),
            ("forbidden".into(), "forbidden".into())
        );
        assert_eq!(code(myself(Kind::Group, None).add(Member)), "not_found");
    }

    #[test]
    fn owner_and_admins_add_participants_and_only_the_owner_adds_admins() {
        for (caller, role, expected) in [
            (Owner, Member, "ok"),
            (Owner, Observer, "ok"),
            (Owner, Admin, "ok"),
            (Admin, Member, "ok"),
            (Admin, Observer, "ok"),
            (Admin, Admin, "forbidden"),
            (Member, Member, "forbidden"),
            (Observer, Member, "forbidden"),
        ] {
            assert_eq!(code(group(caller, None).add(role)), expected, "{caller:?} adds {role:?}");
        }
        assert_eq!(group(Admin, Some(Observer)).add(Member), Ok(Admission::Already));
        assert_eq!(code(state(Kind::Class, Some(Owner), None).add(Member)), "managed_by_class");
        assert_eq!(code(state(Kind::Direct, Some(Member), None).add(Member)), "forbidden");
        assert_eq!(code(State { capacity: Some(3), ..group(Owner, None) }.add(Member)), "conversation_full");
    }

    #[test]
    fn a_participant_is_removed_by_a_higher_role() {
        for (caller, subject, expected) in [
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
            assert_eq!(
                code(group(caller, Some(subject)).remove()),
                expected,
                "{caller:?} removes {subject:?}"
            );
        }
        assert_eq!(code(group(Owner, None).remove()), "not_found");
        assert_eq!(code(state(Kind::Class, Some(Owner), Some(Member)).remove()), "managed_by_class");
        assert_eq!(code(state(Kind::Direct, Some(Member), Some(Member)).remove()), "forbidden");
    }

    #[test]
    fn an_owner_who_is_not_alone_hands_over_before_leaving() {
        assert_eq!(code(myself(Kind::Group, Some(Owner)).leave()), "owner_must_hand_over");
        let alone = State { participants: 1, ..myself(Kind::Group, Some(Owner)) };
        assert_eq!(alone.leave(), Ok(Departure::Ends(Owner)));
        assert_eq!(State { participants: 1, ..open(Some(Owner)) }.leave(), Ok(Departure::Leaves(Owner)));
        for role in [Admin, Member, Observer] {
            assert_eq!(myself(Kind::Group, Some(role)).remove(), Ok(Departure::Leaves(role)));
        }
        assert_eq!(myself(Kind::Direct, Some(Member)).leave(), Ok(Departure::Hides));
        assert_eq!(code(myself(Kind::Class, Some(Member)).leave()), "managed_by_class");
    }

    #[test]
    fn only_the_owner_changes_roles() {
        for caller in [Admin, Member, Observer] {
            assert_eq!(code(group(caller, Some(Member)).change_role(Admin)), "forbidden");
        }
        assert_eq!(group(Owner, Some(Member)).change_role(Admin), Ok(RoleChange::To(Admin)));
        assert_eq!(group(Owner, Some(Member)).change_role(Member), Ok(RoleChange::None));
        assert_eq!(group(Owner, Some(Observer)).change_role(Owner), Ok(RoleChange::HandOver));
        assert_eq!(code(group(Owner, None).change_role(Admin)), "not_found");
        assert_eq!(code(myself(Kind::Group, Some(Owner)).change_role(Member)), "owner_must_hand_over");
        assert_eq!(myself(Kind::Group, Some(Owner)).change_role(Owner), Ok(RoleChange::None));
        assert_eq!(
            code(state(Kind::Class, Some(Owner), Some(Member)).change_role(Admin)),
            "managed_by_class"
        );
        assert_eq!(
            code(State { archived: true, ..group(Owner, Some(Member)) }.change_role(Admin)),
            "archived"
        );
    }

    #[test]
    fn owner_and_admins_change_settings() {
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
