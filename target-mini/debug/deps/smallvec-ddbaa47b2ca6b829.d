/tmp/wt/data/target-mini/debug/deps/smallvec-ddbaa47b2ca6b829.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/smallvec-1.16.5/src/lib.rs

/tmp/wt/data/target-mini/debug/deps/libsmallvec-ddbaa47b2ca6b829.rlib: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/smallvec-1.16.5/src/lib.rs

/tmp/wt/data/target-mini/debug/deps/libsmallvec-ddbaa47b2ca6b829.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/smallvec-1.16.5/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/smallvec-1.16.5/src/lib.rs:
