//! Makes the bytes of a release from a core module and its manifest. wit-bindgen has put the worlds into the
//! module's custom sections; a handler may have several. The deploying host checks the imports against the
//! grants.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use wasm_encoder::{CustomSection, Encode, Section};
use wasmparser::Payload;
use wit_component::ComponentEncoder;

use switchboard_core::manifest;

pub(crate) fn encode(module: &[u8], manifest: &str) -> Result<Vec<u8>, String> {
    let encode = || ComponentEncoder::default().validate(true).module(module)?.encode();
    let component = encode().map_err(|error| format!("it makes no component: {error:#}"))?;
    Ok(with_manifest(component, manifest))
}

pub(crate) fn with_manifest(mut component: Vec<u8>, manifest: &str) -> Vec<u8> {
    let section = CustomSection { name: manifest::SECTION.into(), data: Cow::Borrowed(manifest.as_bytes()) };
    component.push(section.id());
    section.encode(&mut component);
    component
}

/// Makes a component with a manifest in it.
pub(crate) fn is_release(path: &Path) -> bool {
    let Ok(bytes) = fs::read(path) else { return false };
    let sections = wasmparser::Parser::new(0).parse_all(&bytes);
    let of_manifest =
        |payload| matches!(payload, Ok(Payload::CustomSection(s)) if s.name() == manifest::SECTION);
    sections.into_iter().any(of_manifest)
}

/// Replaces a file atomically: a reader of `path` finds the old bytes or the new ones. Returns false if they
/// are the same.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    // Concurrent builds must not share a temporary file.
    let half = path.with_extension(format!("wasm.{}", std::process::id()));
    let write = || {
        let mut file = File::create(&half)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&half, path)
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&half);
    }
    written.map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_an_import_of_no_world() {
        let mut types = wasm_encoder::TypeSection::new();
        types.ty().function([], []);
        let mut imports = wasm_encoder::ImportSection::new();
        imports.import("env", "time_now", wasm_encoder::EntityType::Function(0));
        let mut module = wasm_encoder::Module::new();
        module.section(&types).section(&imports);
        let why = encode(&module.finish(), "name = \"x\"").unwrap_err();
        assert!(why.contains("no component") && why.contains("`env`"), "{why}");
        assert!(encode(b"not wasm", "name = \"x\"").is_err());
    }

    #[test]
    fn a_release_is_known_by_its_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.wasm");
        assert!(!is_release(&path));
        fs::write(&path, wasm_encoder::Component::new().finish()).unwrap();
        assert!(!is_release(&path));
        let mut component = wasm_encoder::Component::new();
        component.section(&CustomSection { name: manifest::SECTION.into(), data: Cow::Borrowed(b"") });
        fs::write(&path, component.finish()).unwrap();
        assert!(is_release(&path));
    }

    #[test]
    fn the_same_bytes_are_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("send-message.wasm");
        assert!(replace(&path, b"one").unwrap());
        assert!(!replace(&path, b"one").unwrap());
        assert!(replace(&path, b"two").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no half file is left");
        assert!(replace(&dir.path().join("gone/x.wasm"), b"one").is_err());
    }
}
