//! Watches files for changes. Editors write several times and leave temporary files; the waiting command gets
//! one notification, after a quiet moment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::Failure;
use switchboard_core::limits;

pub(crate) struct Watch {
    seen: Arc<Seen>,
    _watcher: RecommendedWatcher,
}

#[derive(Default)]
struct Seen {
    paths: Mutex<BTreeSet<PathBuf>>,
    told: Notify,
}

/// At least one file.
pub(crate) struct Changed(BTreeSet<PathBuf>);

impl Changed {
    /// One name, and the number of the others.
    pub(crate) fn first(&self) -> String {
        let first = self.0.first().map(|path| path.display().to_string()).unwrap_or_default();
        match self.0.len() {
            0 | 1 => first,
            many => format!("{first} and {} more", many - 1),
        }
    }
}

impl Watch {
    pub(crate) fn start(directory: &Path) -> Result<Self, Failure> {
        let directory = directory.canonicalize().map_err(|error| {
            Failure::Usage(format!("there are no handlers in {}: {error}", directory.display()))
        })?;
        let seen = Arc::new(Seen::default());
        let (sees, root) = (seen.clone(), directory.clone());
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // A lost event counts as a change.
            let Ok(event) = event else { return sees.add([root.clone()]) };
            if matches!(event.kind, EventKind::Access(_)) {
                return;
            }
            let within =
                event.paths.into_iter().filter_map(|path| path.strip_prefix(&root).map(Path::to_owned).ok());
            sees.add(within.filter(|path| is_source(path)));
        })?;
        watcher.watch(&directory, RecursiveMode::Recursive)?;
        Ok(Self { seen, _watcher: watcher })
    }

    /// Waits for a change and then for a quiet moment. Returns the changed files since the last time.
    pub(crate) async fn changed(&self) -> Changed {
        self.seen.told.notified().await;
        while timeout(limits::DEV_QUIET_WAIT, self.seen.told.notified()).await.is_ok() {}
        Changed(std::mem::take(&mut *self.seen.paths.lock()))
    }
}

impl Seen {
    fn add(&self, paths: impl IntoIterator<Item = PathBuf>) {
        let mut known = self.paths.lock();
        let mut any = false;
        for path in paths {
            any = true;
            if known.len() < limits::DEV_CHANGED_FILES_MAX {
                known.insert(path);
            }
        }
        drop(known);
        if any {
            self.told.notify_one();
        }
    }
}

/// Whether a path matters; it ignores files of builds and temporary files of editors.
fn is_source(path: &Path) -> bool {
    let litter =
        |name: &str| name.starts_with('.') || name.ends_with('~') || name == "target" || name == "4913";
    !path.as_os_str().is_empty() && path.iter().all(|part| part.to_str().is_some_and(|name| !litter(name)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    #[test]
    fn litter_is_no_source() {
        for source in ["echo/src/lib.rs", "echo/handler.toml", "sdk/src/http.rs", "echo/scripts/rate.lua"] {
            assert!(is_source(Path::new(source)), "{source}");
        }
        for litter in
            ["", "echo/src/.lib.rs.swp", "echo/src/lib.rs~", "target/debug/x", "echo/src/4913", ".git/HEAD"]
        {
            assert!(!is_source(Path::new(litter)), "{litter}");
        }
    }

    #[tokio::test]
    async fn several_saves_are_one_change_and_the_next_one_is_told_again() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("echo/src")).unwrap();
        let watch = Watch::start(directory.path()).unwrap();
        let told =
            async || timeout(Duration::from_secs(10), watch.changed()).await.expect("a change is told");

        for name in ["lib.rs", "rules.rs"] {
            fs::write(directory.path().join("echo/src").join(name), "fn main() {}").unwrap();
        }
        fs::write(directory.path().join("echo/src/.lib.rs.swp"), "litter").unwrap();
        assert_eq!(told().await.first(), "echo/src/lib.rs and 1 more");

        fs::write(directory.path().join("echo/handler.toml"), "name = 'echo'").unwrap();
        assert_eq!(told().await.first(), "echo/handler.toml");
    }
}
