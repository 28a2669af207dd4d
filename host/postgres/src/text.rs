//! Texts that the host stores and that somebody else wrote: a handler, a compiler, an operator.

use std::borrow::Cow;

/// Replaces each NUL by U+FFFD. Postgres refuses a text that contains NUL, in `text` and in `jsonb`, so a
/// handler could otherwise prevent the host from storing what it did.
pub fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}
