//! Release files for tests: those of `switchboard build`, and the same code with another manifest, which is
//! another release.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::paths;

const SECTION: &str = "switchboard:manifest";
/// Magic, version and layer of a component.
const PREAMBLE: usize = 8;
const CUSTOM: u8 = 0;

/// A release file in memory.
#[derive(Clone)]
pub struct Release {
    pub bytes: Vec<u8>,
}

impl Release {
    /// Reads the release file of a handler that `switchboard build` made.
    pub fn built(handler: &str) -> Self {
        Self::read(&paths::handlers().join(format!("{handler}.wasm")))
    }

    /// One of the misbehaving handlers in `tests/guests`.
    pub fn guest(name: &str) -> Self {
        Self::read(&paths::guests().join(format!("{name}.wasm")))
    }

    fn read(path: &Path) -> Self {
        let bytes = fs::read(path)
            .unwrap_or_else(|error| panic!("{}: {error}; `switchboard build` comes first", path.display()));
        Self { bytes }
    }

    /// Its digest: SHA-256 in hex.
    pub fn digest(&self) -> String {
        Sha256::digest(&self.bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The manifest in the file.
    pub fn manifest(&self) -> toml::Table {
        let text = sections(&self.bytes).find_map(|section| section.custom(SECTION));
        let text = text.expect("a release file carries its manifest");
        std::str::from_utf8(text).expect("a manifest is text").parse().expect("a manifest is TOML")
    }

    /// The same code with a changed manifest.
    pub fn with_manifest(&self, change: impl FnOnce(&mut toml::Table)) -> Self {
        let mut manifest = self.manifest();
        change(&mut manifest);
        self.with_manifest_text(&manifest.to_string())
    }

    /// Another release with the same behaviour: only a number in the description differs.
    pub fn variant(&self, number: usize) -> Self {
        self.with_manifest(|manifest| {
            manifest.insert("description".into(), format!("variant {number}").into());
        })
    }

    /// The same with a mistake: one text of the code is replaced by another, which is not longer.
    ///
    /// # Panics
    /// If the text is not in the code exactly once: the handler has changed, so adapt the mistake.
    pub fn with_mistake(&self, right: &str, wrong: &str) -> Self {
        assert!(wrong.len() <= right.len(), "a longer text has no room: {wrong}");
        let places: Vec<_> =
            (0..self.bytes.len()).filter(|at| self.bytes[*at..].starts_with(right.as_bytes())).collect();
        assert_eq!(places.len(), 1, "`{right}` stands {} times in the code", places.len());
        let mut bytes = self.bytes.clone();
        let place = &mut bytes[places[0]..places[0] + right.len()];
        place.fill(b' ');
        place[..wrong.len()].copy_from_slice(wrong.as_bytes());
        Self { bytes }
    }

    /// The same behaviour as code that no node has compiled yet.
    pub fn other_code(&self, number: usize) -> Self {
        let mut body = vec![5];
        body.extend_from_slice(b"other");
        body.extend_from_slice(number.to_string().as_bytes());
        let mut bytes = self.bytes.clone();
        bytes.push(CUSTOM);
        push_leb(&mut bytes, body.len());
        bytes.extend_from_slice(&body);
        Self { bytes }
    }

    /// The same behaviour with more core modules, each with a memory of this many pages.
    pub fn with_memories(&self, count: usize, pages: usize) -> Self {
        const CORE_MODULE: u8 = 1;
        const CORE_INSTANCE: u8 = 2;
        let own = sections(&self.bytes).filter(|section| section.id == CORE_MODULE).count();
        let mut memory = vec![1, 0];
        push_leb(&mut memory, pages);
        let mut module = b"\0asm\x01\0\0\0\x05".to_vec();
        push_leb(&mut module, memory.len());
        module.extend_from_slice(&memory);
        let mut bytes = self.bytes.clone();
        let mut instances = Vec::new();
        push_leb(&mut instances, count);
        for number in 0..count {
            bytes.push(CORE_MODULE);
            push_leb(&mut bytes, module.len());
            bytes.extend_from_slice(&module);
            // Instantiate it without imports.
            instances.push(0);
            push_leb(&mut instances, own + number);
            instances.push(0);
        }
        bytes.push(CORE_INSTANCE);
        push_leb(&mut bytes, instances.len());
        bytes.extend_from_slice(&instances);
        Self { bytes }
    }

    /// The component without its manifest, as the tools of any language make it.
    pub fn component(&self) -> Vec<u8> {
        let mut bytes = self.bytes[..PREAMBLE].to_vec();
        for section in sections(&self.bytes).filter(|section| section.custom(SECTION).is_none()) {
            bytes.extend_from_slice(section.whole);
        }
        bytes
    }

    pub fn with_manifest_text(&self, text: &str) -> Self {
        let mut bytes = self.component();
        let mut body = Vec::new();
        push_leb(&mut body, SECTION.len());
        body.extend_from_slice(SECTION.as_bytes());
        body.extend_from_slice(text.as_bytes());
        bytes.push(CUSTOM);
        push_leb(&mut bytes, body.len());
        bytes.extend_from_slice(&body);
        Self { bytes }
    }
}

/// Reads one section at the top level; it does not read into modules inside a component.
struct Section<'a> {
    id: u8,
    whole: &'a [u8],
    body: &'a [u8],
}

impl<'a> Section<'a> {
    fn custom(&self, name: &str) -> Option<&'a [u8]> {
        let (length, read) = take_leb(self.body)?;
        let found = self.body.get(read..read + length)?;
        (self.id == CUSTOM && found == name.as_bytes()).then(|| &self.body[read + length..])
    }
}

fn sections(file: &[u8]) -> impl Iterator<Item = Section<'_>> {
    let mut rest = file.get(PREAMBLE..).unwrap_or_default();
    std::iter::from_fn(move || {
        let id = *rest.first()?;
        let (length, read) = take_leb(&rest[1..])?;
        let end = 1 + read + length;
        let section = Section { id, whole: rest.get(..end)?, body: &rest[1 + read..end] };
        rest = &rest[end..];
        Some(section)
    })
}

fn take_leb(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, place + 1));
        }
    }
    None
}

fn push_leb(bytes: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Release {
        let empty = Release { bytes: b"\0asm\x0d\0\x01\0\x02\x03abc".to_vec() };
        empty.with_manifest_text("name = \"echo\"\n[config]\nloud = true")
    }

    #[test]
    fn a_new_manifest_keeps_the_code() {
        let other = file().variant(7);
        assert_eq!(other.manifest()["description"].as_str(), Some("variant 7"));
        assert_eq!(other.manifest()["config"]["loud"].as_bool(), Some(true));
        assert_ne!(other.bytes, file().bytes);
        assert_eq!(sections(&other.bytes).count(), 2);
        assert_eq!(sections(&other.bytes).next().unwrap().whole, b"\x02\x03abc");
    }

    #[test]
    fn lengths_survive_their_encoding() {
        for length in [0, 1, 127, 128, 300, 1 << 20] {
            let mut bytes = Vec::new();
            push_leb(&mut bytes, length);
            assert_eq!(take_leb(&bytes), Some((length, bytes.len())));
        }
    }
}
