//! Which page of a history is asked for. Pure: no host calls, so plain `cargo test` runs it.

use sdk::Problem;

pub const LIMIT_DEFAULT: u64 = 50;
pub const LIMIT_MAX: u64 = 100;
/// A frame has at most 64 KiB; the rest is for the envelope.
pub const FRAME_BYTES_MAX: u64 = 60 * 1024;
/// A page of REST: about a hundred of the largest messages there can be.
pub const REST_BYTES_MAX: u64 = 3 * 1024 * 1024;

/// Cursors are exclusive. Without any it is the newest page.
#[derive(Debug, PartialEq)]
pub struct Page {
    pub before: Option<u64>,
    pub after: Option<u64>,
    pub limit: u64,
    pub kind: Option<String>,
    pub form: Form,
}

/// How a page travels, and so how large it may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    Rest,
    Frame,
}

impl Form {
    pub fn bytes_max(self) -> u64 {
        match self {
            Self::Rest => REST_BYTES_MAX,
            Self::Frame => FRAME_BYTES_MAX,
        }
    }
}

/// The heads of a conversation: its last message and its last edit or deletion, and the position epoch that they are of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stand {
    pub seq: u64,
    pub change: u64,
    pub epoch: u32,
}

impl Page {
    /// From the oldest after the cursor on, rather than back from the newest.
    pub fn is_forward(&self) -> bool {
        self.after.is_some()
    }

    /// Only what nobody wrote: joins, leaves, the system.
    pub fn is_beside_texts(&self) -> bool {
        self.kind.as_deref().is_some_and(|kind| kind != "text")
    }

    /// The page ends before this seq. Bounded by the head that was looked up, so that what the page holds depends on
    /// nothing but its name.
    pub fn end(&self, stand: Stand) -> u64 {
        let present = stand.seq + 1;
        self.before.map_or(present, |before| before.min(present))
    }

    /// Two pages of a conversation with one name hold the same: a new message gives the newest page another end, an edit or
    /// a deletion gives all of them another change. A failover that lost messages gives both out again, in another epoch.
    pub fn name(&self, stand: Stand) -> String {
        let after = self.after.map_or("-".to_owned(), |after| after.to_string());
        let kind = self.kind.as_deref().unwrap_or("-");
        let form = match self.form {
            Form::Rest => "rest",
            Form::Frame => "frame",
        };
        let epoch = if stand.epoch == 0 { String::new() } else { format!("{}.", stand.epoch) };
        format!("{epoch}{}:{}:{after}:{}:{kind}:{form}", stand.change, self.end(stand), self.limit)
    }

    pub fn check(self) -> Result<Self, Problem> {
        match self.kind.as_deref() {
            None | Some("text" | "system" | "join" | "leave") => Ok(self),
            Some(_) => Err(Problem::invalid("type", "is not text, system, join or leave")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_types_filter() {
        let page = |kind: Option<&str>| Page {
            before: None,
            after: Some(0),
            limit: 50,
            kind: kind.map(str::to_owned),
            form: Form::Rest,
        };
        assert!(page(None).check().is_ok() && page(Some("join")).check().unwrap().is_forward());
        assert_eq!(page(Some("image")).check().unwrap_err().field.as_deref(), Some("type"));
    }

    #[test]
    fn a_name_says_all_that_a_page_depends_on() {
        let stand = Stand { seq: 9, change: 2, epoch: 0 };
        let page = |before, after, kind: Option<&str>, form| Page {
            before,
            after,
            limit: 50,
            kind: kind.map(str::to_owned),
            form,
        };
        let newest = page(None, None, None, Form::Rest);
        assert_eq!(newest.name(stand), "2:10:-:50:-:rest");
        // The newest page changes with every message; an older one only with edits and deletions.
        assert_ne!(newest.name(Stand { seq: 10, ..stand }), newest.name(stand));
        let older = page(Some(5), None, None, Form::Rest);
        assert_eq!(older.name(Stand { seq: 10, ..stand }), older.name(stand));
        assert_ne!(older.name(Stand { change: 3, ..stand }), older.name(stand));
        assert_ne!(older.name(Stand { epoch: 3, ..stand }), older.name(stand));
        // Beyond the head is the head.
        assert_eq!(page(Some(99), None, None, Form::Rest).name(stand), newest.name(stand));
        assert_eq!(page(Some(u64::MAX), None, None, Form::Rest).end(stand), 10);
        let others = [
            page(None, Some(0), None, Form::Rest),
            page(None, None, Some("text"), Form::Rest),
            page(None, None, None, Form::Frame),
            Page { limit: 49, ..page(None, None, None, Form::Rest) },
        ];
        for other in others {
            assert_ne!(other.name(stand), newest.name(stand));
        }
    }
}
