//! `switchboard new`: makes a small handler with a passing test, in one of three languages. In an empty
//! folder it also makes what the handler needs around it, so that nothing of this repository is needed.

mod template;
mod workspace;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Failure, Output, embedded};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The handler's name: lower case, digits and dashes.
    name: String,
    /// The trigger of the handler.
    #[arg(long, value_enum, default_value_t = On::Http)]
    on: On,
    /// The language of the handler.
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
    /// The directory of the handlers. It is made if it does not exist.
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

#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Language {
    /// A crate; cargo builds it.
    Rust,
    /// Built with npm.
    Typescript,
    /// Built with pip.
    Python,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Failure> {
    let Args { name, on, lang, from } = args;
    let files = template::files(&name, on, lang).map_err(Failure::Usage)?;
    let directory = from.join(&name);
    if directory.exists() {
        return Err(Failure::Usage(format!("{} is there already", directory.display())));
    }
    fs::create_dir_all(&from)
        .map_err(|error| Failure::failed(format!("cannot make {}: {error}", from.display())))?;
    let around = workspace::around(&from, &name, lang == Language::Rust)?;
    let mut paths = embedded::write(&around.root, &around.files)?;
    paths.extend(embedded::write(&directory, &files)?);
    let here = fs::canonicalize(".").unwrap_or_default();
    let paths: Vec<_> =
        paths.iter().map(|path| path.strip_prefix(&here).unwrap_or(path).to_owned()).collect();

    let listed: Vec<_> =
        paths.iter().filter(|path| !is_copy(path)).map(|path| format!("  {}", path.display())).collect();
    let code = match lang {
        Language::Rust => "src/lib.rs",
        Language::Typescript => "src/handler.ts",
        Language::Python => "src/handler.py",
    };
    let flag = match from.to_str() {
        Some("handlers") => String::new(),
        _ => format!(" --from '{}'", from.display()),
    };
    let text = format!(
        "{}\n\nswitchboard test {name}{flag}     # it passes; change {code} and see\nswitchboard dev{flag}    # runs \
         it with Postgres and Redis, and builds it at every save\nswitchboard build {name}{flag}    # the release \
         file, for `switchboard deploy`",
        listed.join("\n")
    );
    out.answer(&json!({ "handler": name, "files": paths }), text);
    Ok(())
}

/// A file of the contract or of the sdk. There are many, and their author does not edit them.
fn is_copy(path: &Path) -> bool {
    path.iter().any(|part| part == "deps" || part == "sdk")
}
