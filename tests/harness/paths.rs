//! Paths of the tested files, derived from the path of the running test, so that any target directory works.

use std::env;
use std::path::{Path, PathBuf};

/// The build profile's directory: `target/debug` or `target/release`.
fn profile() -> PathBuf {
    let test = env::current_exe().expect("a test runs from a file");
    let directory = test.parent().expect("a file has a directory");
    if directory.ends_with("deps") { directory.parent().unwrap_or(directory) } else { directory }.to_owned()
}

/// The name of Cargo's profile: `dev`, `release`.
pub fn profile_name() -> String {
    let directory = profile();
    let name = directory.file_name().expect("a profile's directory has a name").to_string_lossy();
    if name == "debug" { "dev".to_owned() } else { name.into_owned() }
}

/// The host, built beforehand: `cargo build -p switchboard`.
pub fn switchboard() -> PathBuf {
    let path = match env::var_os("SWITCHBOARD_TEST_BINARY") {
        Some(path) => path.into(),
        None => profile().join("switchboard"),
    };
    assert!(path.is_file(), "{}: build the host first (scripts/test does)", path.display());
    path
}

/// Another binary of this package.
pub fn sibling(name: &str) -> PathBuf {
    profile().join(name)
}

/// The target directory.
pub fn target() -> PathBuf {
    let profile = profile();
    profile.parent().map(Path::to_owned).unwrap_or(profile)
}

/// The migrations of the chat product.
pub fn app_migrations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations/app")
}

/// The release files that `switchboard build` made.
pub fn handlers() -> PathBuf {
    target().join("handlers")
}

/// The release files of misbehaving handlers, from `switchboard build --from tests/guests --out …`.
pub fn guests() -> PathBuf {
    target().join("test-guests")
}
