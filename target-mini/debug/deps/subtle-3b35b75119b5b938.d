/tmp/wt/data/target-mini/debug/deps/subtle-3b35b75119b5b938.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/subtle-2.6.1/src/lib.rs

/tmp/wt/data/target-mini/debug/deps/libsubtle-3b35b75119b5b938.rlib: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/subtle-2.6.1/src/lib.rs

/tmp/wt/data/target-mini/debug/deps/libsubtle-3b35b75119b5b938.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/subtle-2.6.1/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/subtle-2.6.1/src/lib.rs:
