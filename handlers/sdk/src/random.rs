//! Randomness, from the host's secure source.

use crate::bindings::platform::switchboard::host::random;

/// `N` is at most 1024.
pub fn bytes<const N: usize>() -> [u8; N] {
    let bytes = random::bytes(N as u32);
    // The contract promises the length; an array of zeros must never stand in for randomness.
    bytes.try_into().expect("as many random bytes as were asked for")
}
