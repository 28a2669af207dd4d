/tmp/wt/data/target-mini/debug/deps/equivalent-bf47b50f88ad036a.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/equivalent-1.0.3/src/lib.rs

/tmp/wt/data/target-mini/debug/deps/libequivalent-bf47b50f88ad036a.rlib: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/equivalent-1.0.3/src/lib.rs

/tmp/wt/data/target-mini/debug/deps/libequivalent-bf47b50f88ad036a.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/equivalent-1.0.3/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/equivalent-1.0.3/src/lib.rs:
