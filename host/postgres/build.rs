//! Puts the host's own migrations into the binary, so that a node needs no files beside it. `sqlx::migrate!`
//! would do the same, with the whole of sqlx's query macros compiled into every build.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("../../migrations/host");
    let mut list = String::from("&[\n");
    println!("cargo:rerun-if-changed={}", root.display());
    for (version, description, file) in migrations(&root) {
        // An included file is watched by cargo by itself.
        writeln!(list, "    ({version}, {description:?}, include_str!({file:?})),")
            .expect("a String takes it");
    }
    list.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("migrations.rs"), list).expect("the output directory takes a file");
}

/// `1020_outbox.sql` is version 1020, `outbox`.
fn migrations(directory: &Path) -> Vec<(u64, String, PathBuf)> {
    let files = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut found: Vec<_> = files
        .map(|file| file.expect("a directory entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let (version, description) =
                name.split_once('_').unwrap_or_else(|| panic!("{name} has no version"));
            let version = version.parse().unwrap_or_else(|_| panic!("{name} has no version"));
            (version, description.replace('_', " "), path.canonicalize().expect("it was listed"))
        })
        .collect();
    found.sort();
    found
}
