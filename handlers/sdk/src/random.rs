//! Random bytes, which the host supplies from a secure source.

use crate::bindings::platform::switchboard::host::random;

/// Returns `N` random bytes; `N` is at most 1024.
pub fn bytes<const N: usize>() -> [u8; N] {
    let bytes = random::bytes(N as u32);
    // The contract promises the length. A trap is better than zeros in place of random bytes.
    bytes.try_into().expect("the host returns as many random bytes as the guest asked for")
}
