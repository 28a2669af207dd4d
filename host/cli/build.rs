//! Puts the files that `switchboard new` and `switchboard wit` write into the binary, so that the author of a
//! handler needs nothing of this repository.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Files and directories of files, each with its name in the binary.
const EMBEDDED: [(&str, &str); 5] = [
    ("templates", "templates"),
    ("wit", "../../wit"),
    ("sdk/Cargo.toml", "../../handlers/sdk/Cargo.toml"),
    ("sdk/src", "../../handlers/sdk/src"),
    ("sdk/scripts", "../../handlers/sdk/scripts"),
];

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let mut found = Vec::new();
    for (name, path) in EMBEDDED {
        let path = root.join(path);
        println!("cargo:rerun-if-changed={}", path.display());
        collect(name, &path, &mut found);
    }
    found.sort();
    let mut list = String::from("&[\n");
    for (name, path) in found {
        writeln!(list, "    ({name:?}, include_str!({path:?})),").expect("a String takes it");
    }
    list.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("embedded.rs"), list).expect("the output directory takes a file");
}

fn collect(name: &str, path: &Path, found: &mut Vec<(String, PathBuf)>) {
    if path.is_file() {
        found.push((name.to_owned(), path.canonicalize().expect("it was listed")));
        return;
    }
    for entry in fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
        let entry = entry.expect("a directory entry");
        let file = entry.file_name().into_string().expect("a name in UTF-8");
        // Temporary files of editors, and what Python leaves.
        if file.starts_with('.') || file.ends_with('~') || file == "__pycache__" {
            continue;
        }
        collect(&format!("{name}/{file}"), &entry.path(), found);
    }
}
