/tmp/wt/data/target-mini/debug/deps/cfg_if-bd2ee422e7e4e0b4.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/cfg-if-1.0.5/src/lib.rs

/tmp/wt/data/target-mini/debug/deps/libcfg_if-bd2ee422e7e4e0b4.rlib: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/cfg-if-1.0.5/src/lib.rs

/tmp/wt/data/target-mini/debug/deps/libcfg_if-bd2ee422e7e4e0b4.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/cfg-if-1.0.5/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/cfg-if-1.0.5/src/lib.rs:
