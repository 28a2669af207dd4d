//! The sources of a handler: a directory with a `handler.toml` and either a crate, or anything that its build
//! command makes a component of. Its scripts are files beside the manifest; in a release they are inside the
//! manifest.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::Failure;
use switchboard_core::manifest::{Build, Manifest};

pub(super) const MANIFEST: &str = "handler.toml";

#[derive(Debug)]
pub(crate) struct Source {
    /// The name of the directory and of the release file. The handler's own name is in the manifest; usually
    /// both are equal.
    pub name: String,
    pub directory: PathBuf,
}

impl Source {
    /// Every directory with a manifest, by name.
    pub(crate) fn find(from: &Path) -> Result<Vec<Self>, Failure> {
        let entries = fs::read_dir(from).map_err(|error| {
            Failure::Usage(format!(
                "{}/: {error}; the directory of handler crates is named by --from",
                from.display()
            ))
        })?;
        let mut found = Vec::new();
        for entry in entries {
            let directory = entry?.path();
            let name = directory.file_name().and_then(|name| name.to_str());
            if let (Some(name), true) = (name, Self::is_at(&directory)) {
                found.push(Self { name: name.to_owned(), directory });
            }
        }
        if found.is_empty() {
            return Err(Failure::Usage(format!("{}/: no directory in it has a {MANIFEST}", from.display())));
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Whether a directory has a manifest.
    pub(crate) fn is_at(directory: &Path) -> bool {
        directory.join(MANIFEST).is_file()
    }

    /// How its component is built; `None` if it is a crate, which cargo compiles.
    pub(crate) fn build(&self) -> Result<Option<Build>, Failure> {
        Ok(self.read()?.1.build)
    }

    /// The author's text, and what it says. An error names the author's lines.
    fn read(&self) -> Result<(String, Manifest), Failure> {
        let text = fs::read_to_string(self.directory.join(MANIFEST))
            .map_err(|error| self.complaint(error.to_string()))?;
        let manifest = Manifest::parse(&text).map_err(|invalid| self.complaint(invalid.to_string()))?;
        Ok((text, manifest))
    }

    fn complaint(&self, what: String) -> Failure {
        Failure::failed(format!("{}: {what}", self.directory.join(MANIFEST).display()))
    }

    /// The manifest for the release: valid, with its scripts inlined, without `[build]`, in a canonical
    /// order.
    pub(crate) fn manifest(&self) -> Result<String, Failure> {
        let complain = |what: String| self.complaint(what);
        let (text, _) = self.read()?;
        let mut table: toml::Table = text.parse().expect("a manifest is TOML");
        table.remove("build");
        if let Some(scripts) = table.get_mut("scripts").and_then(toml::Value::as_table_mut) {
            for (name, file) in scripts {
                let script = self.script(file.as_str().expect("the manifest's scripts are strings"));
                *file = script.map_err(|why| complain(format!("manifest: `scripts.{name}` {why}")))?.into();
            }
        }
        let whole = toml::to_string(&table).expect("what was TOML can be TOML again");
        Manifest::parse(&whole).map_err(|invalid| complain(invalid.to_string()))?;
        Ok(whole)
    }

    fn script(&self, file: &str) -> Result<String, String> {
        let inside = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
        if file.is_empty() || !inside {
            return Err(format!("is the path of a file in the handler's directory, not `{file}`"));
        }
        fs::read_to_string(self.directory.join(file)).map_err(|error| format!("names `{file}`: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "name = \"sweep\"\non.schedule = [{ name = \"sweep\", every_ms = 1000 }]\n";

    fn handler(manifest: &str) -> (tempfile::TempDir, Source) {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("sweep");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(MANIFEST), manifest).unwrap();
        (dir, Source { name: "sweep".into(), directory })
    }

    #[test]
    fn only_directories_with_a_manifest_are_handlers() {
        let (dir, _) = handler(MINIMAL);
        fs::create_dir(dir.path().join("sdk")).unwrap();
        let found = Source::find(dir.path()).unwrap();
        assert_eq!(found.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["sweep"]);
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(Source::find(empty.path()), Err(Failure::Usage(_))));
        assert!(matches!(Source::find(&empty.path().join("gone")), Err(Failure::Usage(_))));
    }

    #[test]
    fn scripts_are_inside_the_manifest_of_a_release() {
        let (_dir, source) = handler(&format!("{MINIMAL}[scripts]\nsweep = \"sweep.lua\"\n"));
        fs::write(source.directory.join("sweep.lua"), "return redis.call('TIME')\n").unwrap();
        let manifest = Manifest::parse(&source.manifest().unwrap()).unwrap();
        assert_eq!(manifest.scripts["sweep"], "return redis.call('TIME')\n");
    }

    #[test]
    fn a_release_does_not_say_how_it_was_built() {
        let (_a, crate_of_cargo) = handler(MINIMAL);
        let (_b, other) = handler(&format!("{MINIMAL}[build]\ncommand = [\"make\"]\n"));
        assert_eq!(crate_of_cargo.build().unwrap(), None);
        assert_eq!(other.build().unwrap().map(|build| build.command), Some(vec!["make".to_owned()]));
        assert_eq!(crate_of_cargo.manifest().unwrap(), other.manifest().unwrap());
    }

    #[test]
    fn order_and_comments_do_not_change_a_release() {
        let grants = "[grants]\npostgres = \"sweep\"\nredis = [\"presence:*\"]\n";
        let moved = "# who may what\n[grants]\nredis = [\"presence:*\"]\npostgres = \"sweep\"\n";
        let (_a, one) = handler(&format!("{MINIMAL}{grants}"));
        let (_b, other) = handler(&format!("{MINIMAL}{moved}"));
        assert_eq!(one.manifest().unwrap(), other.manifest().unwrap());
    }

    #[test]
    fn an_error_of_a_manifest_names_file_field_and_rule() {
        for (manifest, field) in [
            (MINIMAL.replace("1000", "1"), "every_ms"),
            ("name = \"slow\"\non.event = { types = [\"a\"], pace_ms = 1001 }\n".to_owned(), "pace_ms"),
            (MINIMAL.replace("name = \"sweep\"\n", ""), "missing field `name`"),
            (format!("{MINIMAL}[limits]\nmemory_mib = 4096\n"), "limits.memory_mib"),
            (format!("{MINIMAL}[scripts]\nsweep = \"../sweep.lua\"\n"), "`scripts.sweep` is the path"),
            (format!("{MINIMAL}[scripts]\nsweep = \"/etc/hosts\"\n"), "`scripts.sweep` is the path"),
            (format!("{MINIMAL}[scripts]\nsweep = \"gone.lua\"\n"), "`scripts.sweep` names `gone.lua`"),
        ] {
            let (_dir, source) = handler(&manifest);
            let complaint = source.manifest().unwrap_err().to_string();
            assert!(complaint.contains("sweep/handler.toml: manifest: "), "{complaint}");
            assert!(complaint.contains(field), "{complaint}");
        }
    }
}
