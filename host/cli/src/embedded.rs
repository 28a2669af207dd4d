//! The files that are in the binary, by directory: `wit` (the contract), `sdk` (the crate for handlers in
//! Rust, without its link to the contract), and `templates` (of new handlers).

use std::fs;
use std::path::{Path, PathBuf};

use crate::Failure;

/// Paths with their texts, sorted by path.
static FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// The files below a directory, with their paths in it.
pub(crate) fn below(directory: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES.iter().filter_map(move |(path, text)| {
        let path = path.strip_prefix(directory)?.strip_prefix('/')?;
        Some((path, *text))
    })
}

/// The text of a template.
///
/// # Panics
/// If there is no such template. The tests make a handler of every kind.
pub(crate) fn template(path: &str) -> &'static str {
    let mut found = below("templates").filter(|(name, _)| *name == path);
    found.next().unwrap_or_else(|| panic!("there is no template {path}")).1
}

/// The files of the sdk as a crate of its own.
pub(crate) fn sdk() -> Vec<(String, String)> {
    let own = below("sdk").map(|(path, text)| (path.to_owned(), text.to_owned()));
    let contract = below("wit").map(|(path, text)| (format!("wit/{path}"), text.to_owned()));
    own.chain(contract).collect()
}

/// Writes files, by their paths in a directory. Returns their whole paths. Files that exist are replaced.
pub(crate) fn write(directory: &Path, files: &[(String, String)]) -> Result<Vec<PathBuf>, Failure> {
    let write = |(path, text): &(String, String)| -> Result<PathBuf, Failure> {
        let path = directory.join(path);
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, text))
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
        Ok(path)
    };
    files.iter().map(write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_in_the_binary_is_a_whole_crate_of_the_same_version() {
        let files = sdk();
        let text = |path: &str| {
            let file = files.iter().find(|(name, _)| name == path);
            &file.unwrap_or_else(|| panic!("no {path}")).1
        };
        for path in ["src/lib.rs", "src/bindings.rs", "scripts/rate.lua", "wit/worlds.wit", "wit/http.wit"] {
            assert!(!text(path).is_empty());
        }
        let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
        assert_eq!(manifest["package"]["version"].as_str(), Some(env!("CARGO_PKG_VERSION")));
        // Outside there is no workspace of this repository.
        assert!(!text("Cargo.toml").contains("workspace = true"));
    }

    #[test]
    fn files_are_written_with_their_directories() {
        let directory = tempfile::tempdir().unwrap();
        let file = ("a/b.txt".to_owned(), "text".to_owned());
        let written = write(directory.path(), &[file]).unwrap();
        assert_eq!(fs::read_to_string(&written[0]).unwrap(), "text");
    }
}
