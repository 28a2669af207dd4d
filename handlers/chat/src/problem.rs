//! The problems that only the chat product has: one constructor per code of `docs/protocol.md`, section 1.
//! The general ones are constructors of `sdk::Problem`.

use sdk::Problem;

fn conflict(code: &str, detail: &str) -> Problem {
    Problem { code: code.to_owned(), ..Problem::conflict(detail) }
}

/// The client used this `client_msg_id` before, with other content.
pub fn idempotency_conflict() -> Problem {
    conflict("idempotency_conflict", "this key was used before, for something else")
        .with_field("client_msg_id")
}

/// The conversation has reached its capacity.
pub fn conversation_full() -> Problem {
    conflict("conversation_full", "the conversation has as many participants as it may")
}

/// The conversation or class is archived, so it is read-only.
pub fn archived() -> Problem {
    conflict("archived", "archived: it can be read, nothing changes")
}

/// The conversation belongs to a class, and only the class changes its participants.
pub fn managed_by_class() -> Problem {
    conflict("managed_by_class", "participants of this conversation change through its class")
}

/// An owner cannot leave or change role while other participants remain.
pub fn owner_must_hand_over() -> Problem {
    conflict("owner_must_hand_over", "the owner hands over before leaving")
}
