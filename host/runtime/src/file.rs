//! A release file: one component with its manifest inside, named by its digest. This code reads sections and
//! never machine code. Only the compiler, in its own process, reads code that may be hostile.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use wasmparser::{Encoding, Parser, Payload};

use super::release::{CONTRACT, imports_are_granted, unversioned};
use crate::Error;
use switchboard_core::ids::Digest;
use switchboard_core::limits;
use switchboard_core::manifest::{self, Manifest};

/// A release file that was parsed: it is a component with a valid manifest. Cheap to clone.
#[derive(Clone)]
pub struct ReleaseFile {
    pub bytes: Bytes,
    pub digest: Digest,
    pub manifest: Manifest,
    /// The digest of the component without its manifest. Releases of the same code share the compiled
    /// artifact.
    pub(super) code: Digest,
    /// The manifest's section in `bytes`.
    section: Range<usize>,
}

impl ReleaseFile {
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Self, Error> {
        let bytes = bytes.into();
        if bytes.len() > limits::RELEASE_BYTES_MAX {
            return Err(Error::of_release(format!(
                "the file has {} bytes; the maximum is {}",
                bytes.len(),
                limits::RELEASE_BYTES_MAX
            )));
        }
        let Found { section, manifest } = manifest_section(&bytes)?;
        let text = std::str::from_utf8(&bytes[manifest])
            .map_err(|_| Error::of_release("the manifest inside the file is not UTF-8"))?;
        let manifest = Manifest::parse(text).map_err(|invalid| Error::of_release(invalid.to_string()))?;
        let code = Digest::of(&without(&bytes, &section));
        Ok(Self { digest: Digest::of(&bytes), bytes, manifest, code, section })
    }

    /// Checks, by the names of its imports and exports alone, that the manifest grants what the component
    /// imports, and that the component exports what the manifest binds. A deploy checks this again, with the
    /// types; the author of a handler should not have to wait for it.
    ///
    /// # Errors
    /// If a grant or an export is missing, or the component is not WebAssembly. The reason names it.
    pub fn check_interfaces(&self) -> Result<(), Error> {
        let Names { imports, exports } = Names::of(&self.bytes)
            .map_err(|error| Error::of_release(format!("not a WebAssembly component: {error}")))?;
        imports_are_granted(imports.iter().map(String::as_str), &self.manifest.grants)?;
        let on = &self.manifest.on;
        let bound = [
            ("http", !on.http.is_empty()),
            ("frame", !on.frame.is_empty()),
            ("connection", on.connection.binds_single()),
            ("connection-batch", on.connection.binds_batches()),
            ("schedule", !on.schedule.is_empty()),
            ("event", on.event.is_some()),
            ("timer", on.timer.is_some()),
            ("before", !on.before.is_empty()),
            ("call", !on.call.is_empty()),
        ];
        for (interface, _) in bound.into_iter().filter(|(_, is_bound)| *is_bound) {
            let name = format!("{CONTRACT}{interface}");
            if !exports.iter().any(|export| unversioned(export) == name) {
                return Err(Error::of_release(format!(
                    "the manifest binds `{interface}`, but the component does not export `{name}` (it exports {})",
                    exports.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// Returns the component without its manifest, for the compiler.
    pub(super) fn code_bytes(&self) -> Vec<u8> {
        without(&self.bytes, &self.section)
    }
}

/// Leaves the bytes out, because they contain the settings of the manifest.
impl fmt::Debug for ReleaseFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReleaseFile")
            .field("digest", &self.digest)
            .field("manifest", &self.manifest)
            .finish_non_exhaustive()
    }
}

fn without(bytes: &[u8], section: &Range<usize>) -> Vec<u8> {
    [&bytes[..section.start], &bytes[section.end..]].concat()
}

/// The names of the interfaces that the outermost component imports and exports.
#[derive(Default)]
struct Names {
    imports: Vec<String>,
    exports: Vec<String>,
}

impl Names {
    fn of(bytes: &[u8]) -> Result<Self, wasmparser::Error> {
        let mut names = Self::default();
        let mut depth = 0;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth -= 1,
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        names.imports.push(import?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        names.exports.push(export?.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(names)
    }
}

struct Found {
    /// The section with its id and length.
    section: Range<usize>,
    manifest: Range<usize>,
}

/// Finds the one manifest section of the outermost component.
fn manifest_section(bytes: &[u8]) -> Result<Found, Error> {
    let mut found = None;
    let mut depth = 0;
    // The offset of the next section's id.
    let mut next = 0;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload =
            payload.map_err(|error| Error::of_release(format!("not a WebAssembly component: {error}")))?;
        let begins = next;
        if depth == 0 {
            next = match &payload {
                Payload::Version { range, .. } => range.end,
                Payload::ModuleSection { unchecked_range, .. }
                | Payload::ComponentSection { unchecked_range, .. } => unchecked_range.end,
                other => other.as_section().map_or(next, |(_, range)| range.end),
            };
        }
        match payload {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(Error::of_release(
                    "the file is a core module, not a component: build it with `switchboard build`",
                ));
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::CustomSection(section) if depth == 0 && section.name() == manifest::SECTION => {
                // The size of the file was checked, so its offsets fit.
                let data = section.data_offset();
                let data = data..data + section.data().len();
                if found.replace(Found { section: begins..next, manifest: data }).is_some() {
                    return Err(Error::of_release("the file contains two manifests"));
                }
            }
            _ => {}
        }
    }
    found.ok_or_else(|| {
        Error::of_release(format!(
            "the component has no `{}` section: build it with `switchboard build`",
            manifest::SECTION
        ))
    })
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{Component, CustomSection, Module, ModuleSection};

    use super::*;

    const MANIFEST: &str = "name = \"x\"\non.frame = [{ type = \"x\" }]";

    fn component(sections: &[&str]) -> Vec<u8> {
        let mut component = Component::new();
        component.section(&ModuleSection(&Module::new()));
        for manifest in sections {
            component
                .section(&CustomSection { name: manifest::SECTION.into(), data: manifest.as_bytes().into() });
        }
        component.finish()
    }

    #[test]
    fn is_named_by_its_bytes() {
        let bytes = component(&[MANIFEST]);
        let file = ReleaseFile::parse(bytes.clone()).unwrap();
        assert_eq!(file.manifest.name, "x");
        assert_eq!(file.digest, Digest::of(&bytes));
    }

    #[test]
    fn code_is_what_is_left_without_the_manifest() {
        let mut bytes = component(&[MANIFEST]);
        let bare = component(&[]);
        let file = ReleaseFile::parse(bytes.clone()).unwrap();
        assert_eq!(file.code_bytes(), bare);
        // The manifest may be anywhere in the file.
        let mut other = Component::new();
        other.section(&CustomSection { name: "other".into(), data: b"x"[..].into() });
        let other = other.finish()[8..].to_vec();
        bytes.extend_from_slice(&other);
        let file = ReleaseFile::parse(bytes).unwrap();
        assert_eq!(file.code_bytes(), [bare, other].concat());
    }

    #[test]
    fn grants_and_exports_are_missed_by_name() {
        let checked = |manifest: &str, import: &str, export: &str| {
            let mut component = Component::new();
            let mut types = wasm_encoder::ComponentTypeSection::new();
            types.instance(&wasm_encoder::InstanceType::new());
            component.section(&types);
            let mut imports = wasm_encoder::ComponentImportSection::new();
            imports.import(import, wasm_encoder::ComponentTypeRef::Instance(0));
            component.section(&imports);
            let mut exports = wasm_encoder::ComponentExportSection::new();
            exports.export(export, wasm_encoder::ComponentExportKind::Instance, 0, None);
            component.section(&exports);
            component
                .section(&CustomSection { name: manifest::SECTION.into(), data: manifest.as_bytes().into() });
            ReleaseFile::parse(component.finish()).unwrap().check_interfaces().map_err(|error| error.reason)
        };
        let (log, redis) = ("switchboard:host/log@1.0.0", "switchboard:host/redis@1.0.0");
        let (frame, http) = ("switchboard:host/frame@1.0.0", "switchboard:host/http@1.0.0");
        assert_eq!(checked(MANIFEST, log, frame), Ok(()));
        let granted = format!("{MANIFEST}\n[grants]\nredis = [\"x:*\"]");
        assert_eq!(checked(&granted, redis, frame), Ok(()));
        assert!(checked(MANIFEST, redis, frame).unwrap_err().contains("`grants.redis`"));
        assert!(checked(MANIFEST, "wasi:io/poll@0.2.0", frame).is_ok());
        assert!(checked(MANIFEST, "acme:mail/send", frame).unwrap_err().contains("acme:mail/send"));
        let refusal = checked(MANIFEST, log, http).unwrap_err();
        assert!(refusal.contains("does not export `switchboard:host/frame`") && refusal.contains(http));
    }

    #[test]
    fn what_is_no_release_is_refused_with_a_reason() {
        let whole = component(&[MANIFEST]);
        for (bytes, reason) in [
            (Vec::new(), "not a WebAssembly component"),
            (b"MZ\x90\0garbage".to_vec(), "not a WebAssembly component"),
            (whole[..whole.len() - 3].to_vec(), "not a WebAssembly component"),
            (Module::new().finish(), "core module"),
            (component(&[]), "has no"),
            (component(&[MANIFEST, MANIFEST]), "two manifests"),
            (component(&["name = 1"]), "manifest:"),
            (vec![0; limits::RELEASE_BYTES_MAX + 1], "the maximum is"),
        ] {
            let refusal = ReleaseFile::parse(bytes).unwrap_err();
            assert!(refusal.reason.contains(reason), "{refusal}");
        }
    }
}
