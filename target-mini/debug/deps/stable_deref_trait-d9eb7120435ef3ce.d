/tmp/wt/data/target-mini/debug/deps/stable_deref_trait-d9eb7120435ef3ce.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/stable_deref_trait-1.2.1/src/lib.rs

/tmp/wt/data/target-mini/debug/deps/libstable_deref_trait-d9eb7120435ef3ce.rlib: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/stable_deref_trait-1.2.1/src/lib.rs

/tmp/wt/data/target-mini/debug/deps/libstable_deref_trait-d9eb7120435ef3ce.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/stable_deref_trait-1.2.1/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/stable_deref_trait-1.2.1/src/lib.rs:
