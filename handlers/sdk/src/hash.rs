//! FNV-1a: a hash that is the same in every release, for keys and fingerprints that are stored. It is not
//! secret: anybody can find two texts with the same hash.

/// The hash of an empty text.
pub(crate) const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a with 64 bits.
pub fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    fnv1a_from(OFFSET, bytes)
}

/// Continues the hash `from`.
pub(crate) fn fnv1a_from(from: u64, bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(from, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// FNV-1a with 128 bits.
pub fn fnv1a_128(bytes: impl IntoIterator<Item = u8>) -> u128 {
    bytes.into_iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published values of the hash.
    #[test]
    fn known_texts_have_their_known_hashes() {
        assert_eq!(fnv1a(*b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(*b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(fnv1a_128(*b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(fnv1a_128(*b"foobar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
    }
}
