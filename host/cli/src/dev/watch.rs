//! Watches the sources of handlers for `switchboard dev` and `switchboard test --watch`. An editor writes
//! several files for one save, and leaves temporary files. This module makes one change of them, once no
//! further file has changed for a moment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::{Failure, build};
use switchboard_core::limits;

/// A running watch of a directory. It ends when it is dropped.
pub(crate) struct Watch {
    pending: Arc<PendingChange>,
    directory: PathBuf,
    _watcher: RecommendedWatcher,
}

/// The saves since the last [`Watch::changed`].
#[derive(Default)]
struct PendingChange {
    paths: Mutex<BTreeSet<PathBuf>>,
    saved: Notify,
}

/// The files of one change, relative to the watched directory. If the operating system lost events, it
/// contains the directory itself.
pub(crate) struct Changed(BTreeSet<PathBuf>);

impl Changed {
    /// The directories at the top in which files changed. None: a changed file is in no such directory, or
    /// not all names are known.
    pub(crate) fn directories(&self) -> Option<BTreeSet<String>> {
        if self.0.len() >= limits::DEV_CHANGED_FILES_MAX {
            return None;
        }
        let directory = |path: &PathBuf| {
            let mut parts = path.iter();
            let directory = parts.next()?.to_str()?.to_owned();
            parts.next().map(|_| directory)
        };
        self.0.iter().map(directory).collect()
    }

    /// One path, and the number of the others, for a message.
    pub(crate) fn summary(&self) -> String {
        let first = self.0.first().map(|path| path.display().to_string()).unwrap_or_default();
        match self.0.len() {
            0 | 1 => first,
            many => format!("{first} and {} more", many - 1),
        }
    }
}

impl Watch {
    /// Begins to watch a directory and everything in it.
    pub(crate) fn start(directory: &Path) -> Result<Self, Failure> {
        let directory = directory.canonicalize().map_err(|error| {
            Failure::Usage(format!(
                "there are no handlers in {}: {error}; `switchboard new NAME` makes one",
                directory.display()
            ))
        })?;
        let pending = Arc::new(PendingChange::default());
        let (pending_of_watcher, root) = (pending.clone(), directory.clone());
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // A lost event counts as a change.
            let Ok(event) = event else { return pending_of_watcher.add([root.clone()]) };
            if matches!(event.kind, EventKind::Access(_)) {
                return;
            }
            let within =
                event.paths.into_iter().filter_map(|path| path.strip_prefix(&root).map(Path::to_owned).ok());
            pending_of_watcher.add(within.filter(|path| is_source(path)));
        })?;
        watcher.watch(&directory, RecursiveMode::Recursive)?;
        Ok(Self { pending, directory, _watcher: watcher })
    }

    /// Waits for a save, and then until there is no further save for [`limits::DEV_QUIET_WAIT`]. Returns the
    /// files that changed since the last call.
    pub(crate) async fn changed(&self) -> Changed {
        loop {
            self.pending.saved.notified().await;
            while timeout(limits::DEV_QUIET_WAIT, self.pending.saved.notified()).await.is_ok() {}
            let mut paths = std::mem::take(&mut *self.pending.paths.lock());
            // A build may write its component beside the sources. That must not cause the next build. Beyond
            // the limit not all paths are known, so something else has changed too.
            if paths.len() < limits::DEV_CHANGED_FILES_MAX {
                let made = build::components(&self.directory);
                paths.retain(|path| !made.contains(path));
            }
            if !paths.is_empty() {
                return Changed(paths);
            }
        }
    }
}

impl PendingChange {
    fn add(&self, paths: impl IntoIterator<Item = PathBuf>) {
        let mut paths_so_far = self.paths.lock();
        let mut any = false;
        for path in paths {
            any = true;
            if paths_so_far.len() < limits::DEV_CHANGED_FILES_MAX {
                paths_so_far.insert(path);
            }
        }
        drop(paths_so_far);
        if any {
            self.saved.notify_one();
        }
    }
}

/// Returns false for files of builds and temporary files of editors. Vim creates a file `4913` to check
/// whether it may write.
fn is_source(path: &Path) -> bool {
    let is_temporary = |name: &str| {
        let is_made = matches!(name, "target" | "node_modules" | "__pycache__" | "4913");
        is_made || name.starts_with('.') || name.ends_with('~')
    };
    !path.as_os_str().is_empty()
        && path.iter().all(|part| part.to_str().is_some_and(|name| !is_temporary(name)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    #[test]
    fn temporary_files_are_not_sources() {
        for source in ["echo/src/lib.rs", "echo/handler.toml", "sdk/src/http.rs", "echo/scripts/rate.lua"] {
            assert!(is_source(Path::new(source)), "{source}");
        }
        for temporary in [
            "",
            "echo/src/.lib.rs.swp",
            "echo/src/lib.rs~",
            "target/debug/x",
            "echo/src/4913",
            ".git/HEAD",
            "poll/node_modules/esbuild/package.json",
            "poll/src/__pycache__/rules.pyc",
            "poll/.venv/bin/python3",
        ] {
            assert!(!is_source(Path::new(temporary)), "{temporary}");
        }
    }

    #[test]
    fn a_change_is_in_the_directories_of_its_files_or_anywhere() {
        let directories = |paths: &[&str]| Changed(paths.iter().map(PathBuf::from).collect()).directories();
        let some = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect::<BTreeSet<_>>());
        assert_eq!(directories(&["poll/src/a.ts", "poll/handler.toml", "echo/x"]), some(&["echo", "poll"]));
        assert_eq!(directories(&["poll/src/a.ts", "README.md"]), None);
        let many: BTreeSet<_> =
            (0..limits::DEV_CHANGED_FILES_MAX).map(|n| PathBuf::from(format!("poll/{n}"))).collect();
        assert_eq!(Changed(many).directories(), None);
    }

    #[tokio::test]
    async fn several_saves_are_one_change_and_a_later_save_is_another() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("echo/src")).unwrap();
        let watch = Watch::start(directory.path()).unwrap();
        let changed = async || timeout(Duration::from_secs(10), watch.changed()).await.expect("a change");

        for name in ["lib.rs", "rules.rs"] {
            fs::write(directory.path().join("echo/src").join(name), "fn main() {}").unwrap();
        }
        fs::write(directory.path().join("echo/src/.lib.rs.swp"), "temporary").unwrap();
        assert_eq!(changed().await.summary(), "echo/src/lib.rs and 1 more");

        fs::write(directory.path().join("echo/handler.toml"), "name = 'echo'").unwrap();
        assert_eq!(changed().await.summary(), "echo/handler.toml");

        // Its build command writes this file.
        let manifest = "name = \"echo\"\non.frame = [{ type = \"echo\" }]\n\
                        [build]\ncommand = [\"make\"]\ncomponent = \"made.wasm\"\n";
        fs::write(directory.path().join("echo/handler.toml"), manifest).unwrap();
        assert_eq!(changed().await.summary(), "echo/handler.toml");
        fs::write(directory.path().join("echo/made.wasm"), "component").unwrap();
        fs::write(directory.path().join("echo/src/rules.rs"), "fn rule() {}").unwrap();
        assert_eq!(changed().await.summary(), "echo/src/rules.rs");
    }
}
