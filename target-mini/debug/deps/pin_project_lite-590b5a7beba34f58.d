/tmp/wt/data/target-mini/debug/deps/pin_project_lite-590b5a7beba34f58.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/pin-project-lite-0.2.17/src/lib.rs

/tmp/wt/data/target-mini/debug/deps/libpin_project_lite-590b5a7beba34f58.rlib: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/pin-project-lite-0.2.17/src/lib.rs

/tmp/wt/data/target-mini/debug/deps/libpin_project_lite-590b5a7beba34f58.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/pin-project-lite-0.2.17/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/pin-project-lite-0.2.17/src/lib.rs:
