//! The files of a new handler, by trigger and language. Manifest and test are the same for all languages, but
//! for the limits and for the host calls that an engine makes by itself.

use super::{Language, On};
use crate::embedded::template;
use crate::wit;
use switchboard_core::manifest::{Manifest, is_name};

/// The reads of the clock that the JavaScript engine makes before it calls the handler, and after it.
const ENGINE_READS: [std::ops::Range<u32>; 2] = [0..2, 2..8];

impl On {
    /// The name of its interface, and of its templates.
    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Frame => "frame",
            Self::Schedule => "schedule",
            Self::Event => "event",
            Self::Connection => "connection",
        }
    }
}

/// The paths and texts of a handler's files.
///
/// # Errors
/// If no handler, or no crate, can have the name.
pub(super) fn files(name: &str, on: On, lang: Language) -> Result<Vec<(String, String)>, String> {
    // The name becomes a part of code, so check it before everything else. A valid name of a handler is also
    // a valid name of a crate, except if it begins with a digit.
    if !is_name(name) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(format!(
            "`{name}` is no name for a handler: it has 1 to 64 lower-case letters, digits and dashes, and begins with \
             a letter"
        ));
    }
    let filled = |text: &str| {
        text.replace("{name}", name)
            .replace("{Type}", &type_of(name))
            .replace("{role}", &name.replace('-', "_"))
            .replace("{on}", on.name())
    };
    let limits = match lang {
        Language::Rust => "",
        Language::Typescript => template("typescript/limits.toml"),
        Language::Python => template("python/limits.toml"),
    };
    let manifest = filled(&format!("{}{limits}", template(&format!("manifests/{}.toml", on.name()))));
    // A frame type has further rules.
    Manifest::parse(&manifest).map_err(|invalid| invalid.to_string())?;

    let file = |path: &str, text: &str| (path.to_owned(), filled(text));
    let code = |path: &str| filled(template(&path.replace("{on}", on.name())));
    let recording = recording(on, lang);
    let mut files = vec![("handler.toml".to_owned(), manifest), file("tests/works.trace", &recording)];
    match lang {
        Language::Rust => files.extend([
            file("Cargo.toml", template("rust/Cargo.toml.txt")),
            ("src/lib.rs".to_owned(), code("rust/src/{on}.rs")),
            file("src/rules.rs", template("rust/src/rules.rs")),
        ]),
        Language::Typescript => {
            files.extend([
                file("package.json", template("typescript/package.json")),
                file("tsconfig.json", template("typescript/tsconfig.json")),
                file("build.sh", template("typescript/build.sh")),
                file("build.mjs", template("typescript/build.mjs")),
                file(".gitignore", template("typescript/gitignore")),
                ("src/handler.ts".to_owned(), code("typescript/src/{on}.ts")),
                file("src/rules.ts", template("typescript/src/rules.ts")),
                file("types/engine.d.ts", template("typescript/types/engine.d.ts")),
            ]);
            let (name, text) = wit::for_typescript()?;
            files.push((format!("types/{name}"), text));
        }
        Language::Python => files.extend([
            file("requirements.txt", template("python/requirements.txt")),
            file("build.sh", template("python/build.sh")),
            file(".gitignore", template("python/gitignore")),
            ("src/handler.py".to_owned(), code("python/src/{on}.py")),
            file("src/rules.py", template("python/src/rules.py")),
        ]),
    }
    if lang != Language::Rust {
        files.push(file("wit/world.wit", template("world.wit")));
        let contract = wit::contract().into_iter();
        files.extend(contract.map(|(path, text)| (format!("wit/deps/switchboard-host/{path}"), text)));
    }
    Ok(files)
}

/// The test of a new handler. In a test, the clock begins at 0 and advances a millisecond at each read.
fn recording(on: On, lang: Language) -> String {
    let reads = |numbers: &std::ops::Range<u32>| {
        let reads = numbers.clone().map(|number| {
            let now_ns = u64::from(number) * 1_000_000;
            format!("\nwasi.monotonic-clock\n  => {now_ns}\n")
        });
        if lang == Language::Typescript { reads.collect() } else { String::new() }
    };
    let [begin, end] = &ENGINE_READS;
    let text = template(&format!("tests/{}.trace", on.name()));
    text.replace("{begin}", &reads(begin)).replace("{end}", &reads(end))
}

/// `word-count` is `WordCountHandler`. A handler may be called `event` or `result`, and its code uses types
/// of these names.
fn type_of(name: &str) -> String {
    let words = name.split('-').filter(|word| !word.is_empty());
    let words: String = words.map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect();
    words + "Handler"
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchboard_recording::Recording;

    const LANGUAGES: [Language; 3] = [Language::Rust, Language::Typescript, Language::Python];

    #[test]
    fn every_trigger_has_a_whole_template_in_every_language() {
        let triggers = [On::Http, On::Frame, On::Schedule, On::Event, On::Connection];
        for (on, lang) in triggers.into_iter().flat_map(|on| LANGUAGES.map(|lang| (on, lang))) {
            let files = files("word-count", on, lang).unwrap();
            let of = |name: &str| &files.iter().find(|(path, _)| *path == name).unwrap().1;
            let is_filled = |path: &str| !path.contains("deps") && !path.ends_with(".d.ts");
            for (path, text) in files.iter().filter(|(path, _)| is_filled(path)) {
                for placeholder in ["{name}", "{Type}", "{role}", "{on}", "{begin}", "{end}"] {
                    assert!(!text.contains(placeholder), "{on:?} {lang:?}: {path} has {placeholder}");
                }
            }
            let manifest = Manifest::parse(of("handler.toml")).unwrap();
            assert_eq!(manifest.name, "word-count");
            assert_eq!(manifest.build.is_some(), lang != Language::Rust);
            let recording = Recording::parse(of("tests/works.trace"))
                .unwrap_or_else(|error| panic!("{on:?} {lang:?}: {error}"));
            assert_eq!(recording.handler, "word-count");
            match lang {
                Language::Rust => assert!(of("src/lib.rs").contains("struct WordCountHandler;"), "{on:?}"),
                Language::Typescript => {
                    let export = format!("export const {}: typeof import(", on.name());
                    assert!(of("src/handler.ts").contains(&export), "{on:?}");
                    let declared = "declare module \"switchboard:host/http@1.0.0\"";
                    assert!(of("types/switchboard.d.ts").contains(declared));
                    let logs = matches!(on, On::Schedule | On::Event);
                    assert_eq!(recording.exchanges.len(), 9 + usize::from(logs));
                }
                Language::Python => assert!(of("src/handler.py").contains("(exports."), "{on:?}"),
            }
            if lang != Language::Rust {
                let export = format!("export switchboard:host/{}@1.0.0;", on.name());
                assert!(of("wit/world.wit").contains(&export));
                assert!(of("wit/deps/switchboard-host/types.wit").contains("interface types"));
            }
        }
    }

    #[test]
    fn a_name_that_no_crate_can_have_is_refused() {
        for name in ["Word", "a b", "", "7up", "-", "../x", "ä", "x-ä", "x\"", "x\ny"] {
            for lang in LANGUAGES {
                let refusal = files(name, On::Http, lang).unwrap_err();
                assert!(refusal.contains("is no name for a handler"), "{name}: {refusal}");
            }
        }
    }

    #[test]
    fn the_type_of_a_handler_hides_no_type_that_its_code_uses() {
        // Each is also the name of a type of the prelude or of the sdk.
        for (name, on) in [("event", On::Event), ("result", On::Http), ("option", On::Frame)] {
            let files = files(name, on, Language::Rust).unwrap();
            let (_, code) = files.iter().find(|(path, _)| path == "src/lib.rs").unwrap();
            let expected = format!("struct {}Handler;", name[..1].to_ascii_uppercase() + &name[1..]);
            assert!(code.contains(&expected), "{code}");
        }
    }
}
