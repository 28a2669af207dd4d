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
    pub bytes_max: u64,
}

impl Page {
    /// From the oldest after the cursor on, rather than back from the newest.
    pub fn is_forward(&self) -> bool {
        self.after.is_some()
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
            bytes_max: REST_BYTES_MAX,
        };
        assert!(page(None).check().is_ok() && page(Some("join")).check().unwrap().is_forward());
        assert_eq!(page(Some("image")).check().unwrap_err().field.as_deref(), Some("type"));
    }
}
