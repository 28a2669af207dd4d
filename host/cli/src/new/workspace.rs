//! The files around the directory of a new handler. A crate needs a cargo workspace with the sdk. A handler
//! in another language needs nothing, but cargo must not take its directory for a crate.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::{Failure, embedded};

const MANIFEST: &str = "Cargo.toml";
const IGNORED: &str = ".gitignore";
const MEMBERS: &str = "\nmembers = [";

/// The files to write, below a directory.
#[derive(Debug)]
pub(super) struct Around {
    pub root: PathBuf,
    pub files: Vec<(String, String)>,
}

/// Finds out what to write around the handler `name` in the directory `from`, which exists.
///
/// # Errors
/// If the present workspace cannot have the handler. The error says what to change in it.
pub(super) fn around(from: &Path, name: &str, is_crate: bool) -> Result<Around, Failure> {
    let from = fs::canonicalize(from)?;
    let root = from.parent().unwrap_or(&from).to_owned();
    let present = Workspace::above(&from)?;
    let directory = |root: &Path| {
        let inside = from.strip_prefix(root).unwrap_or(&from);
        format!("{}/{name}", inside.display())
    };
    let takes = present.as_ref().is_some_and(|present| present.takes(&directory(&present.root)));
    match present {
        Some(present) if takes && !is_crate => Err(Failure::Usage(format!(
            "cargo would take {} for a crate: add it to `exclude` of {}, or name another directory with \
             --from",
            directory(&present.root),
            present.path().display()
        ))),
        Some(present) if takes => present.with_sdk().map(|()| Around { root, files: Vec::new() }),
        Some(present) if is_crate && present.root == root => {
            present.with_sdk()?;
            let manifest = present.with_member(&directory(&root))?;
            Ok(Around { root, files: vec![(MANIFEST.to_owned(), manifest)] })
        }
        _ => {
            let mut files = if is_crate { new_workspace(&root, &from, name)? } else { Vec::new() };
            if !root.join(IGNORED).exists() {
                files.push((IGNORED.to_owned(), embedded::template("project.gitignore").to_owned()));
            }
            Ok(Around { root, files })
        }
    }
}

/// The workspace of a folder that has none.
fn new_workspace(root: &Path, from: &Path, name: &str) -> Result<Vec<(String, String)>, Failure> {
    for present in [MANIFEST, "sdk"].map(|path| root.join(path)) {
        if present.exists() {
            return Err(Failure::Usage(format!(
                "{} is there already and belongs to no workspace for handlers: run `switchboard new` in another \
                 folder",
                present.display()
            )));
        }
    }
    let directory = from.file_name().unwrap_or_default().to_string_lossy();
    let manifest = embedded::template("rust/workspace.toml.txt");
    let manifest = manifest.replace("{directory}", &directory).replace("{name}", name);
    let sdk = embedded::sdk().into_iter().map(|(path, text)| (format!("sdk/{path}"), text));
    Ok([(MANIFEST.to_owned(), manifest)].into_iter().chain(sdk).collect())
}

/// A cargo workspace that exists.
struct Workspace {
    root: PathBuf,
    text: String,
    table: Table,
}

impl Workspace {
    /// The nearest workspace of the directories above.
    fn above(from: &Path) -> Result<Option<Self>, Failure> {
        for root in from.ancestors().skip(1) {
            let path = root.join(MANIFEST);
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let table: Table =
                text.parse().map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
            if table.contains_key("workspace") {
                return Ok(Some(Self { root: root.to_owned(), text, table }));
            }
        }
        Ok(None)
    }

    fn path(&self) -> PathBuf {
        self.root.join(MANIFEST)
    }

    fn list(&self, key: &str) -> Vec<&str> {
        let list = self.table["workspace"].get(key).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Returns true if a directory is a member, by its name or by `*`.
    fn takes(&self, directory: &str) -> bool {
        let above = directory.rsplit_once('/').map_or("", |(above, _)| above);
        let is_member = |member: &&str| *member == directory || member.strip_suffix("/*") == Some(above);
        let is_below = |rest: &str| rest.is_empty() || rest.starts_with('/');
        let is_excluded = |path: &&str| directory.strip_prefix(*path).is_some_and(is_below);
        self.list("members").iter().any(is_member) && !self.list("exclude").iter().any(is_excluded)
    }

    /// Fails if its crates cannot use the sdk.
    fn with_sdk(&self) -> Result<(), Failure> {
        let dependencies = self.table["workspace"].get("dependencies");
        if dependencies.is_some_and(|dependencies| dependencies.get("sdk").is_some()) {
            return Ok(());
        }
        Err(Failure::Usage(format!(
            "the workspace {} has no sdk: run `switchboard wit --as rust --out sdk` beside it, and add `sdk = {{ \
             path = \"sdk\", package = \"switchboard-sdk\" }}` to `[workspace.dependencies]`",
            self.path().display()
        )))
    }

    /// The manifest with one more member.
    fn with_member(&self, directory: &str) -> Result<String, Failure> {
        let at = self.text.find(MEMBERS).map(|at| at + MEMBERS.len());
        let text = at.map(|at| {
            let (before, after) = self.text.split_at(at);
            format!("{before}\n    \"{directory}\",{after}")
        });
        let with = text.and_then(|text| {
            let table = text.parse().ok()?;
            Some(Self { root: self.root.clone(), text, table })
        });
        match with {
            Some(with) if with.takes(directory) => Ok(with.text),
            _ => Err(Failure::Usage(format!(
                "cannot add a member to {}: add \"{directory}\" to `members` yourself, then run this again",
                self.path().display()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a directory of handlers.
    fn folder(manifest: Option<&str>) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("handlers");
        fs::create_dir(&from).unwrap();
        if let Some(manifest) = manifest {
            fs::write(folder.path().join(MANIFEST), manifest).unwrap();
        }
        (folder, from)
    }

    const WITH_SDK: &str = "[workspace]\nmembers = [\n    \"handlers/poll\",\n]\n\
                            [workspace.dependencies]\nsdk = \"1\"\n";

    #[test]
    fn an_empty_folder_gets_a_workspace_with_the_sdk() {
        let (folder, from) = folder(None);
        let Around { root, files } = around(&from, "poll", true).unwrap();
        assert_eq!(root, folder.path().canonicalize().unwrap());
        let names: Vec<_> = files.iter().map(|(path, _)| path.as_str()).collect();
        for name in [MANIFEST, IGNORED, "sdk/Cargo.toml", "sdk/src/lib.rs", "sdk/wit/http.wit"] {
            assert!(names.contains(&name), "{names:?}");
        }
        let workspace: Table = files[0].1.parse().unwrap();
        assert_eq!(workspace["workspace"]["members"][0].as_str(), Some("handlers/poll"));
        assert_eq!(workspace["profile"]["guest"]["panic"].as_str(), Some("abort"));

        let other = around(&from, "poll", false).unwrap().files;
        assert_eq!(other.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), [IGNORED]);
    }

    #[test]
    fn a_second_crate_becomes_a_member_of_the_same_workspace() {
        let (_folder, from) = folder(Some(WITH_SDK));
        let files = around(&from, "vote", true).unwrap().files;
        let workspace: Table = files[0].1.parse().unwrap();
        let members = workspace["workspace"]["members"].as_array().unwrap().iter();
        assert_eq!(members.filter_map(Value::as_str).collect::<Vec<_>>(), ["handlers/vote", "handlers/poll"]);
        // This one is a member already.
        assert!(around(&from, "poll", true).unwrap().files.is_empty());
    }

    #[test]
    fn a_workspace_that_cannot_have_the_handler_is_named_with_what_to_do() {
        let all = WITH_SDK.replace("handlers/poll", "handlers/*");
        for (manifest, is_crate, advice) in [
            (WITH_SDK.replace("sdk =", "other ="), true, "`switchboard wit --as rust --out sdk`"),
            (WITH_SDK.replace("members = [\n    \"handlers/poll\",\n]", ""), true, "to `members` yourself"),
            (all.clone(), false, "add it to `exclude`"),
            ("[package]\nname = \"x\"\n".to_owned(), true, "in another folder"),
        ] {
            let (folder, from) = folder(Some(&manifest));
            let Err(Failure::Usage(message)) = around(&from, "vote", is_crate) else { panic!("{manifest}") };
            assert!(message.contains(advice), "{message}");
            let named = folder.path().canonicalize().unwrap().join(MANIFEST);
            assert!(message.contains(&named.display().to_string()), "{message}");
        }
        let excluded = all.replace("]\n[", "]\nexclude = [\"handlers/vote\"]\n[");
        let (_folder, from) = folder(Some(&excluded));
        assert!(around(&from, "vote", false).is_ok() && around(&from, "other", false).is_err());
    }
}
