//! Reads a request for a page of history, and names the page for the cache. Pure: no host calls, so plain
//! `cargo test` runs it.

use sdk::Problem;

pub(crate) const LIMIT_DEFAULT: u64 = 50;
pub(crate) const LIMIT_MAX: u64 = 100;
/// The size of a page by frame. A frame has at most 64 KiB; the rest is for its envelope.
pub(crate) const FRAME_BYTES_MAX: u64 = 60 * 1024;
/// The size of a page by REST: about a hundred messages of the largest size.
pub(crate) const REST_BYTES_MAX: u64 = 3 * 1024 * 1024;

/// The requested page. Cursors are exclusive. Without a cursor it is the newest page.
#[derive(Debug, PartialEq)]
pub(crate) struct Page {
    pub before: Option<u64>,
    pub after: Option<u64>,
    pub limit: u64,
    pub kind: Option<String>,
    pub form: Form,
}

/// The transport of a page, which decides its maximum size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Form {
    Rest,
    Frame,
}

impl Form {
    pub(crate) fn bytes_max(self) -> u64 {
        match self {
            Self::Rest => REST_BYTES_MAX,
            Self::Frame => FRAME_BYTES_MAX,
        }
    }
}

/// The heads of a conversation: the seq of its last message, the number of its last change, and their
/// position epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Heads {
    pub seq: u64,
    pub change: u64,
    pub epoch: u32,
}

impl Page {
    /// Whether the page goes forward from its cursor, and not backward.
    pub(crate) fn is_forward(&self) -> bool {
        self.after.is_some()
    }

    /// Whether the page has only messages that no user wrote: joins, leaves and system messages.
    pub(crate) fn is_beside_texts(&self) -> bool {
        self.kind.as_deref().is_some_and(|kind| kind != "text")
    }

    /// The seq before which the page ends. It is never above the head, so that the content of a page depends
    /// only on its name.
    pub(crate) fn end(&self, heads: Heads) -> u64 {
        let after_head = heads.seq + 1;
        self.before.map_or(after_head, |before| before.min(after_head))
    }

    /// The name of the page for the cache. Two pages of a conversation with the same name have the same
    /// content. A new message gives the newest page another end, and a change gives every page another change
    /// number. After a failover that lost messages, both numbers are used again, but in another epoch.
    pub(crate) fn name(&self, heads: Heads) -> String {
        let after = self.after.map_or("-".to_owned(), |after| after.to_string());
        let kind = self.kind.as_deref().unwrap_or("-");
        let form = match self.form {
            Form::Rest => "rest",
            Form::Frame => "frame",
        };
        let epoch = if heads.epoch == 0 { String::new() } else { format!("{}.", heads.epoch) };
        format!("{epoch}{}:{}:{after}:{}:{kind}:{form}", heads.change, self.end(heads), self.limit)
    }

    pub(crate) fn check(self) -> Result<Self, Problem> {
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
    fn an_unknown_type_is_refused() {
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
    fn a_page_name_contains_everything_that_the_page_depends_on() {
        let heads = Heads { seq: 9, change: 2, epoch: 0 };
        let page = |before, after, kind: Option<&str>, form| Page {
            before,
            after,
            limit: 50,
            kind: kind.map(str::to_owned),
            form,
        };
        let newest = page(None, None, None, Form::Rest);
        assert_eq!(newest.name(heads), "2:10:-:50:-:rest");
        // The newest page changes with every message; an older one only with edits and deletions.
        assert_ne!(newest.name(Heads { seq: 10, ..heads }), newest.name(heads));
        let older = page(Some(5), None, None, Form::Rest);
        assert_eq!(older.name(Heads { seq: 10, ..heads }), older.name(heads));
        assert_ne!(older.name(Heads { change: 3, ..heads }), older.name(heads));
        assert_ne!(older.name(Heads { epoch: 3, ..heads }), older.name(heads));
        // A cursor above the head counts as the head.
        assert_eq!(page(Some(99), None, None, Form::Rest).name(heads), newest.name(heads));
        assert_eq!(page(Some(u64::MAX), None, None, Form::Rest).end(heads), 10);
        let others = [
            page(None, Some(0), None, Form::Rest),
            page(None, None, Some("text"), Form::Rest),
            page(None, None, None, Form::Frame),
            Page { limit: 49, ..page(None, None, None, Form::Rest) },
        ];
        for other in others {
            assert_ne!(other.name(heads), newest.name(heads));
        }
    }
}
