//! The secrets of the fleet that `grants.secrets` of the manifest names. An operator sets them with
//! `switchboard secret set NAME`.
//!
//! The host finds a secret by its value and by simple encodings of it, and keeps it out of recordings and log
//! lines. It cannot find what a handler computes from it, so a secret belongs into no log line, answer, table
//! or error.

use crate::bindings::platform::switchboard::host::secrets;

pub use secrets::Error;

/// The bytes of a secret, exactly as the operator gave them.
///
/// # Errors
/// The manifest does not grant it, or no operator has set it.
pub fn get(name: &str) -> Result<Vec<u8>, Error> {
    secrets::get(name)
}

/// A secret that is text, such as a token for a header, without white space at its ends: a value from a file
/// often ends with a line break. Bytes that are not UTF-8 become U+FFFD.
///
/// # Errors
/// As [`get`].
pub fn text(name: &str) -> Result<String, Error> {
    Ok(String::from_utf8_lossy(&get(name)?).trim().to_owned())
}
