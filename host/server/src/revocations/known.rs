//! The revocations in a node's memory. Every verified token is compared with them. No clock: the time is
//! passed in.

use std::collections::HashMap;

use super::{Revocation, Revoked};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use switchboard_core::limits::{REVOKED_TOKENS_MAX, REVOKED_USERS_MAX};
use switchboard_protocol::session::Credentials;

#[derive(Default)]
pub struct RevocationList(RwLock<Lists>);

#[derive(Default)]
struct Lists {
    /// By `jti`: the time after which the entry can be removed.
    tokens: HashMap<Box<str>, u64>,
    users: HashMap<Box<str>, Before>,
}

struct Before {
    before_ms: u64,
    forget_ms: u64,
}

impl RevocationList {
    /// True when the token is revoked. A token without `iat` is older than any revocation.
    pub fn has(&self, who: &Credentials) -> bool {
        let lists = self.read();
        let names = [Some(who.principal.session_id.as_str()), who.renewed_as.as_deref()];
        // Both lists are nearly always empty.
        !lists.tokens.is_empty() && names.into_iter().flatten().any(|jti| lists.tokens.contains_key(jti))
            || !lists.users.is_empty()
                && lists.users.get(who.user.as_str()).is_some_and(|user| who.issued_ms < user.before_ms)
    }

    /// True when there is room for a revocation. Tokens and users have separate bounds: however many tokens
    /// are revoked, all tokens of a user can still be revoked. A repeated revocation needs no room.
    pub fn has_room_for(&self, revoked: &Revoked) -> bool {
        let lists = self.read();
        match revoked {
            Revoked::Token(jti) => {
                lists.tokens.len() < REVOKED_TOKENS_MAX || lists.tokens.contains_key(jti.as_str())
            }
            Revoked::User { user_id, .. } => {
                lists.users.len() < REVOKED_USERS_MAX || lists.users.contains_key(user_id.as_str())
            }
        }
    }

    pub fn add(&self, revocations: impl Iterator<Item = Revocation>) {
        let mut lists = self.write();
        for Revocation { revoked, forget_ms } in revocations {
            match revoked {
                Revoked::Token(jti) => drop(lists.tokens.insert(jti.into(), forget_ms)),
                Revoked::User { user_id, before_ms } => {
                    lists.users.insert(user_id.into(), Before { before_ms, forget_ms });
                }
            }
        }
    }

    /// Removes the revocations whose tokens have all expired.
    pub fn forget(&self, now_ms: u64) {
        let mut lists = self.write();
        lists.tokens.retain(|_, forget_ms| *forget_ms > now_ms);
        lists.users.retain(|_, user| user.forget_ms > now_ms);
    }

    pub fn len(&self) -> usize {
        let lists = self.read();
        lists.tokens.len() + lists.users.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn read(&self) -> RwLockReadGuard<'_, Lists> {
        self.0.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Lists> {
        self.0.write()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchboard_contract::types::Principal;
    use switchboard_core::ids::UserId;

    fn token(user: &str, jti: &str, issued_ms: u64) -> Credentials {
        Credentials {
            user: UserId::parse(user).unwrap(),
            principal: Principal {
                user_id: user.to_owned(),
                name: None,
                roles: Vec::new(),
                session_id: jti.to_owned(),
            },
            groups: Box::default(),
            expires_ms: 0,
            issued_ms,
            renewed_as: None,
        }
    }

    #[test]
    fn a_token_is_revoked_by_its_name_or_by_its_age() {
        let known = RevocationList::default();
        assert!(!known.has(&token("ana", "j1", 0)));
        let user = Revoked::User { user_id: "bo".into(), before_ms: 1000 };
        let all = [(Revoked::Token("j1".into()), 50), (user, 60)];
        known.add(all.into_iter().map(|(revoked, forget_ms)| Revocation { revoked, forget_ms }));
        for (who, is_revoked) in [
            (token("ana", "j1", 5000), true),
            (token("ana", "j2", 0), false),
            (token("bo", "j3", 999), true),
            (token("bo", "j3", 1000), false),
            (token("bo", "j3", 0), true),
        ] {
            assert_eq!(known.has(&who), is_revoked, "{who:?}");
        }
        // A connection is checked with the token that opened it and with the one that renewed it.
        let renewed = |jti: &str| Credentials { renewed_as: Some(jti.into()), ..token("ana", "j9", 0) };
        assert!(known.has(&renewed("j1")) && !known.has(&renewed("j2")));

        known.forget(50);
        assert!(!known.has(&token("ana", "j1", 0)) && known.has(&token("bo", "j3", 999)));
        known.forget(60);
        assert!(known.is_empty());
    }

    #[test]
    fn tokens_leave_users_their_room_and_what_is_known_needs_none() {
        let known = RevocationList::default();
        let token = |number: usize| Revoked::Token(format!("j{number}"));
        let user = |number: usize| Revoked::User { user_id: format!("u{number}"), before_ms: 1 };
        let fill = |revoked: &dyn Fn(usize) -> Revoked, count: usize| {
            known.add((0..count).map(|number| Revocation { revoked: revoked(number), forget_ms: 1 }));
        };
        fill(&token, REVOKED_TOKENS_MAX - 1);
        assert!(known.has_room_for(&token(REVOKED_TOKENS_MAX)));
        fill(&token, REVOKED_TOKENS_MAX);
        assert!(!known.has_room_for(&token(REVOKED_TOKENS_MAX)) && known.has_room_for(&token(7)));
        assert!(known.has_room_for(&user(0)));
        fill(&user, REVOKED_USERS_MAX);
        assert!(!known.has_room_for(&user(REVOKED_USERS_MAX)) && known.has_room_for(&user(7)));
    }
}
