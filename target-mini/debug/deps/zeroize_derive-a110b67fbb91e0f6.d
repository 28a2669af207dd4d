/tmp/wt/data/target-mini/debug/deps/zeroize_derive-a110b67fbb91e0f6.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/zeroize_derive-1.5.0/src/lib.rs

/tmp/wt/data/target-mini/debug/deps/libzeroize_derive-a110b67fbb91e0f6.so: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/zeroize_derive-1.5.0/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/zeroize_derive-1.5.0/src/lib.rs:
