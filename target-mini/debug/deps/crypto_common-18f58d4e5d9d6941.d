/tmp/wt/data/target-mini/debug/deps/crypto_common-18f58d4e5d9d6941.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crypto-common-0.1.6/src/lib.rs

/tmp/wt/data/target-mini/debug/deps/libcrypto_common-18f58d4e5d9d6941.rlib: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crypto-common-0.1.6/src/lib.rs

/tmp/wt/data/target-mini/debug/deps/libcrypto_common-18f58d4e5d9d6941.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crypto-common-0.1.6/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crypto-common-0.1.6/src/lib.rs:
