//! Tests in files: `handlers/{handler}/tests/*.trace`, one file for each test, which has the name of the
//! file. A recording with a scenario can be recorded again; one that a node wrote can only be replayed.

use std::fs;
use std::path::{Path, PathBuf};

use super::Error;
use switchboard_recording::{Recording, keep_all};
use switchboard_runtime::ReleaseFile;

#[derive(Clone, Debug)]
pub struct Case {
    /// The handler's directory.
    pub handler: String,
    pub name: String,
    pub path: PathBuf,
    pub recording: Recording,
}

/// The tests of a handler's directory, by name.
pub fn find(handler: &str, directory: &Path) -> Result<Vec<Case>, Error> {
    let tests = directory.join("tests");
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(&tests) else { return Ok(found) };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension() == Some("trace".as_ref()) {
            found.push(read(handler, &path)?);
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

pub fn read(handler: &str, path: &Path) -> Result<Case, Error> {
    let text = fs::read_to_string(path).map_err(|error| Error::Read(path.to_owned(), error))?;
    let recording = Recording::parse(&text)
        .map_err(|error| Error::Case { path: path.to_owned(), reason: error.to_string() })?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Case { handler: handler.to_owned(), name, path: path.to_owned(), recording })
}

impl Case {
    /// `send-message/replay`.
    pub fn title(&self) -> String {
        format!("{}/{}", self.handler, self.name)
    }

    /// Replaces the file by the new recording. The parts that a person wrote stay: the scenario, and the
    /// marks of calls that may come in any order. Returns false if only the release differs.
    pub fn replace(&self, mut recorded: Recording) -> std::io::Result<bool> {
        recorded.scenario = self.recording.scenario.clone();
        let mut old = self.recording.exchanges.iter();
        for exchange in &mut recorded.exchanges {
            let mut further = old.clone();
            if let Some(same) = further.find(|old| old.function == exchange.function) {
                exchange.unordered = same.unordered;
                old = further;
            }
        }
        let mut same = recorded.clone();
        same.release = self.recording.release;
        if same == self.recording {
            return Ok(false);
        }
        fs::write(&self.path, recorded.write(keep_all)).map(|()| true)
    }
}

/// A handler with its tests.
pub struct Subject {
    /// The name of its directory.
    pub name: String,
    pub cases: Vec<Case>,
    /// The release under test.
    pub file: ReleaseFile,
}

impl Subject {
    pub fn read(name: &str, directory: &Path, file: &Path) -> Result<Self, Error> {
        let cases = find(name, directory)?;
        let file = super::read(file)?;
        Ok(Self { name: name.to_owned(), cases, file })
    }
}
