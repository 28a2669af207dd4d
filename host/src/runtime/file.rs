//! A release file: one component with its manifest inside, named by its digest. Reading it looks at sections, never at
//! code: what is hostile in there is for the compiler in its own process.

use std::fmt;

use bytes::Bytes;
use wasmparser::{Encoding, Parser, Payload};

use crate::error::Blame;
use crate::ids::Digest;
use crate::limits;
use crate::manifest::{self, Manifest};

/// Parsed once; whoever holds one holds a component with a valid manifest. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ReleaseFile {
    pub bytes: Bytes,
    pub digest: Digest,
    pub manifest: Manifest,
}

/// Why a release is not taken. The sentence is for the person who released it.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub reason: String,
    pub blame: Blame,
}

impl ReleaseFile {
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Self, Refusal> {
        let bytes = bytes.into();
        if bytes.len() > limits::RELEASE_BYTES_MAX {
            return Err(Refusal::of_release(format!(
                "the file has {} bytes, at most {} are taken",
                bytes.len(),
                limits::RELEASE_BYTES_MAX
            )));
        }
        let manifest = manifest_section(&bytes)?;
        let text = std::str::from_utf8(manifest)
            .map_err(|_| Refusal::of_release("the manifest inside the file is not UTF-8"))?;
        let manifest = Manifest::parse(text).map_err(|invalid| Refusal::of_release(invalid.to_string()))?;
        Ok(Self { digest: Digest::of(&bytes), bytes, manifest })
    }
}

/// The one manifest section of the outermost component.
fn manifest_section(bytes: &[u8]) -> Result<&[u8], Refusal> {
    let mut found = None;
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|error| Refusal::of_release(format!("not a WebAssembly component: {error}")))? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(Refusal::of_release(
                    "the file is a core module, not a component: build it with `switchboard build`",
                ));
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::CustomSection(section) if depth == 0 && section.name() == manifest::SECTION => {
                if found.replace(section.data()).is_some() {
                    return Err(Refusal::of_release("the file holds two manifests"));
                }
            }
            _ => {}
        }
    }
    found.ok_or_else(|| {
        Refusal::of_release(format!(
            "the component holds no `{}` section: build it with `switchboard build`",
            manifest::SECTION
        ))
    })
}

impl Refusal {
    pub(crate) fn of_release(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), blame: Blame::Guest }
    }

    pub(crate) fn of_host(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), blame: Blame::Host }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refusal {}

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
    fn what_is_no_release_is_refused_with_a_reason() {
        let whole = component(&[MANIFEST]);
        for (bytes, reason) in [
            (Vec::new(), "not a WebAssembly component"),
            (b"MZ\x90\0garbage".to_vec(), "not a WebAssembly component"),
            (whole[..whole.len() - 3].to_vec(), "not a WebAssembly component"),
            (Module::new().finish(), "core module"),
            (component(&[]), "holds no"),
            (component(&[MANIFEST, MANIFEST]), "two manifests"),
            (component(&["name = 1"]), "manifest:"),
            (vec![0; limits::RELEASE_BYTES_MAX + 1], "at most"),
        ] {
            let refusal = ReleaseFile::parse(bytes).unwrap_err();
            assert!(refusal.reason.contains(reason), "{refusal}");
        }
    }
}
