//! The cargo call: it compiles all crates of a directory to core modules, in a target directory of its own,
//! so that host and guests do not cause rebuilds of each other.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::{Error, Route};

/// Stack of a guest. A larger one makes every instance of every call larger.
const STACK: &str = "-Clink-arg=-zstack-size=65536";

/// The cargo workspace that holds the crates of a directory.
#[derive(Debug)]
pub struct Workspace {
    root: PathBuf,
    /// The directory of cargo's output.
    pub target: PathBuf,
    /// Package ids of the crates in the directory, by crate directory.
    packages: HashMap<PathBuf, String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

/// The used lines of `--message-format json`.
#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact {
        package_id: String,
        filenames: Vec<PathBuf>,
    },
    #[serde(other)]
    Other,
}

impl Workspace {
    /// Finds the workspace of the crates in a directory.
    ///
    /// # Errors
    /// If cargo does not know it.
    pub fn of(from: &Path) -> Result<Self, Error> {
        let from = std::fs::canonicalize(from).map_err(Error::file(from))?;
        let metadata = Command::new("cargo")
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(&from)
            .stderr(Stdio::inherit())
            .output()
            .map_err(Error::Cargo)?;
        if !metadata.status.success() {
            return Err(Error::Metadata(from));
        }
        let metadata: Metadata = serde_json::from_slice(&metadata.stdout)?;
        let is_guest = |package: &Package| {
            package.targets.iter().any(|target| target.crate_types.iter().any(|kind| kind == "cdylib"))
        };
        let packages = metadata
            .packages
            .into_iter()
            .filter(is_guest)
            .filter_map(|package| Some((package.manifest_path.parent()?.to_owned(), package.id)))
            .filter(|(directory, _)| directory.parent() == Some(&from))
            .collect();
        Ok(Self { root: metadata.workspace_root, target: metadata.target_directory, packages })
    }

    /// Returns the directories of the crates, by name.
    pub fn directories(&self) -> Vec<PathBuf> {
        let mut directories: Vec<_> = self.packages.keys().cloned().collect();
        directories.sort_unstable();
        directories
    }

    /// Compiles all crates, and returns the modules of those in `wanted`, in its order.
    ///
    /// # Errors
    /// If a wanted crate does not compile, or is no guest of this workspace.
    pub fn compile(&self, route: &Route, wanted: &[PathBuf]) -> Result<Vec<Vec<u8>>, Error> {
        let ids = wanted.iter().map(|directory| self.package(directory)).collect::<Result<Vec<_>, _>>()?;
        let mut all: Vec<&str> = self.packages.values().map(String::as_str).collect();
        all.sort_unstable();

        let mut cargo = route.cargo_build();
        cargo.current_dir(&self.root).arg("--target-dir").arg(self.target.join("guests"));
        cargo.args(["--lib", "--message-format", "json-render-diagnostics"]);
        if ids.len() < all.len() {
            // A developer works on one handler; an incomplete one beside it must not fail the build.
            cargo.arg("--keep-going");
        }
        for id in all {
            cargo.arg("--package").arg(id);
        }
        cargo.env("CARGO_ENCODED_RUSTFLAGS", self.flags(route));
        let mut cargo = cargo.stdout(Stdio::piped()).spawn().map_err(Error::Cargo)?;

        let mut modules: HashMap<String, PathBuf> = HashMap::new();
        for line in BufReader::new(cargo.stdout.take().expect("it is piped")).lines() {
            if let Message::CompilerArtifact { package_id, filenames } =
                serde_json::from_str(&line.map_err(Error::Cargo)?)?
                && let Some(module) =
                    filenames.into_iter().find(|file| file.extension() == Some("wasm".as_ref()))
            {
                modules.insert(package_id, module);
            }
        }
        let status = cargo.wait().map_err(Error::Cargo)?;
        let read = |(directory, id): (&PathBuf, &str)| match modules.get(id) {
            Some(module) => std::fs::read(module).map_err(Error::file(module)),
            None => Err(Error::NotCompiled { directory: directory.clone(), status }),
        };
        wanted.iter().zip(ids).map(read).collect()
    }

    fn package(&self, directory: &Path) -> Result<&str, Error> {
        let canonical = std::fs::canonicalize(directory).map_err(Error::file(directory))?;
        self.packages
            .get(&canonical)
            .map(String::as_str)
            .ok_or_else(|| Error::NoCrate { directory: directory.to_owned(), root: self.root.clone() })
    }

    /// Removes paths from panic messages: the same sources give the same digest in any directory.
    fn flags(&self, route: &Route) -> OsString {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
        let mut moved = vec![(self.root.clone(), ".")];
        moved.extend(home.map(|home| (home.join("registry/src"), "crates")));
        moved.extend(route.source_directories().into_iter().map(|directory| (directory, "rust")));

        let mut flags = vec![OsString::from(STACK)];
        for (from, to) in moved {
            let mut flag = OsString::from("--remap-path-prefix=");
            flag.push(from);
            flag.push("=");
            flag.push(to);
            flags.push(flag);
        }
        flags.join("\x1f".as_ref())
    }
}
