//! `switchboard wit`: prints or writes the contract between host and handlers, as this version has it: in
//! WIT, as declarations for TypeScript, or as the crate for handlers in Rust. With a new version of the
//! command line, an author renews the files that `switchboard new` wrote.

mod declarations;

use std::path::PathBuf;

use serde_json::json;

use super::{Failure, Output, embedded, page};
use declarations::modules;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// An interface, for instance `http`; without it, everything.
    interface: Option<String>,
    /// The form of the contract.
    #[arg(long = "as", value_enum, default_value_t = Form::Wit, value_name = "FORM")]
    form: Form,
    /// Write the files into this directory, instead of printing them.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "interface")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Form {
    /// The contract itself, for the tools of any language.
    Wit,
    /// Declarations of every import and export.
    Typescript,
    /// The sources of the crate `switchboard-sdk`; needs --out.
    Rust,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Failure> {
    let Args { interface, form, out: directory } = args;
    if let Some(directory) = directory {
        let files = match form {
            Form::Wit => contract(),
            Form::Typescript => vec![for_typescript()?],
            Form::Rust => embedded::sdk(),
        };
        let written = embedded::write(&directory, &files)?;
        let text = format!("wrote {} into {}", page::count(written.len(), "file"), directory.display());
        out.answer(&json!({ "files": written }), text);
        return Ok(());
    }
    let parts: Vec<(String, String)> = match form {
        Form::Wit => contract(),
        Form::Typescript => modules()?,
        Form::Rust => {
            let reason = "the crate for Rust has many files: name a directory for them with --out";
            return Err(Failure::Usage(reason.to_owned()));
        }
    };
    let name_of = |path: &str| path.trim_end_matches(".wit").to_owned();
    let is_wanted = |path: &str| interface.as_ref().is_none_or(|interface| name_of(path) == *interface);
    let texts: Vec<&str> =
        parts.iter().filter(|(path, _)| is_wanted(path)).map(|(_, text)| text.trim_end()).collect();
    if texts.is_empty() {
        let names: Vec<_> = parts.iter().map(|(path, _)| name_of(path)).collect();
        return Err(Failure::Usage(format!(
            "the contract has no interface `{}`; there are: {}",
            interface.unwrap_or_default(),
            names.join(", ")
        )));
    }
    let text = texts.join("\n\n");
    out.answer(&json!({ "text": text }), &text);
    Ok(())
}

/// The file of the declarations for TypeScript, with its name.
///
/// # Errors
/// If the contract has a kind of type or function that has no form in TypeScript.
pub(super) fn for_typescript() -> Result<(String, String), String> {
    Ok(("switchboard.d.ts".to_owned(), declarations::file()?))
}

/// The files of the contract, by name.
pub(super) fn contract() -> Vec<(String, String)> {
    embedded::below("wit").map(|(path, text)| (path.to_owned(), text.to_owned())).collect()
}
