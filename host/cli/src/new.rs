//! `switchboard new`: makes a small handler with a passing test.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Failure, Output};
use switchboard_core::manifest::Manifest;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The handler's name: lower case, digits and dashes.
    name: String,
    /// The trigger of the handler.
    #[arg(long, value_enum, default_value_t = On::Http)]
    on: On,
    /// The directory of the handlers, in a cargo workspace whose members are its directories.
    #[arg(long, default_value = "handlers")]
    from: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum On {
    Http,
    Frame,
    Schedule,
    Event,
    Connection,
}

struct Template {
    manifest: &'static str,
    code: &'static str,
    recording: &'static str,
}

macro_rules! template {
    ($name:literal) => {
        Template {
            manifest: include_str!(concat!("new/", $name, ".toml.txt")),
            code: include_str!(concat!("new/", $name, ".rs.txt")),
            recording: include_str!(concat!("new/", $name, ".trace.txt")),
        }
    };
}

const CARGO: &str = include_str!("new/Cargo.toml.txt");
const RULES: &str = include_str!("new/rules.rs.txt");

impl On {
    fn template(self) -> Template {
        match self {
            Self::Http => template!("http"),
            Self::Frame => template!("frame"),
            Self::Schedule => template!("schedule"),
            Self::Event => template!("event"),
            Self::Connection => template!("connection"),
        }
    }
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Failure> {
    let Args { name, on, from } = args;
    let files = files(&name, on).map_err(Failure::Usage)?;
    if !from.is_dir() {
        return Err(Failure::Usage(format!("there is no {}/; --from names the handlers", from.display())));
    }
    let directory = from.join(&name);
    if directory.exists() {
        return Err(Failure::Usage(format!("{} is there already", directory.display())));
    }
    for (path, text) in &files {
        let path = directory.join(path);
        write(&path, text).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    }
    let paths: Vec<_> = files.iter().map(|(path, _)| directory.join(path)).collect();
    let listed: Vec<_> = paths.iter().map(|path| format!("  {}", path.display())).collect();
    let text = format!(
        "{}\n\nswitchboard test {name}     # it passes; change src/lib.rs and see\nswitchboard build {name}    # the \
         release file, for `switchboard deploy`",
        listed.join("\n")
    );
    out.answer(&json!({ "handler": name, "files": paths }), text);
    Ok(())
}

fn files(name: &str, on: On) -> Result<Vec<(&'static str, String)>, String> {
    let template = on.template();
    let filled = |text: &str| {
        text.replace("{name}", name)
            .replace("{Type}", &type_of(name))
            .replace("{role}", &name.replace('-', "_"))
    };
    let manifest = filled(template.manifest);
    // A valid name of a handler is also a valid name of a crate, except if it begins with a digit.
    Manifest::parse(&manifest).map_err(|invalid| invalid.to_string())?;
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(format!("`{name}` does not begin with a letter"));
    }
    Ok(vec![
        ("Cargo.toml", filled(CARGO)),
        ("handler.toml", manifest),
        ("src/lib.rs", filled(template.code)),
        ("src/rules.rs", RULES.to_owned()),
        ("tests/works.trace", filled(template.recording)),
    ])
}

fn type_of(name: &str) -> String {
    let words = name.split('-').filter(|word| !word.is_empty());
    words.map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect()
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchboard_recording::Recording;

    #[test]
    fn every_trigger_has_a_whole_template() {
        for on in [On::Http, On::Frame, On::Schedule, On::Event, On::Connection] {
            let files = files("word-count", on).unwrap();
            let of = |name: &str| &files.iter().find(|(path, _)| *path == name).unwrap().1;
            assert!(files.iter().all(|(_, text)| !text.contains("{name}") && !text.contains("{Type}")));
            assert_eq!(Manifest::parse(of("handler.toml")).unwrap().name, "word-count");
            assert!(of("src/lib.rs").contains("struct WordCount;"), "{on:?}");
            let recording =
                Recording::parse(of("tests/works.trace")).unwrap_or_else(|error| panic!("{on:?}: {error}"));
            assert_eq!(recording.handler, "word-count");
        }
    }

    #[test]
    fn a_name_that_no_crate_can_have_is_refused() {
        for name in ["Word", "a b", "", "7up", "../x"] {
            assert!(files(name, On::Http).is_err(), "{name}");
        }
    }
}
