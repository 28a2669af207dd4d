//! `switchboard pack`: makes a release file from a component that other tools built, and its manifest. It is
//! for handlers in other languages; `switchboard build` builds those in Rust.

use std::path::PathBuf;

use serde_json::json;

use super::build::{Source, component};
use super::{Failure, Output};
use switchboard_runtime::ReleaseFile;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The handler's directory, with its `handler.toml`.
    handler: PathBuf,
    /// The component.
    component: PathBuf,
    /// The release file.
    #[arg(long, short)]
    out: PathBuf,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Failure> {
    let name = args.handler.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let manifest = Source { name: name.clone(), directory: args.handler }.manifest()?;
    let bytes = std::fs::read(&args.component)
        .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", args.component.display())))?;
    // Check it here, so that mistakes show before a deploy.
    let file = ReleaseFile::parse(component::with_manifest(bytes, &manifest))?;
    let wrote = |error| Failure::failed(format!("cannot write {}: {error}", args.out.display()));
    if let Some(directory) = args.out.parent() {
        std::fs::create_dir_all(directory).map_err(wrote)?;
    }
    component::replace(&args.out, &file.bytes).map_err(wrote)?;
    let answer = json!({ "name": name, "path": args.out, "bytes": file.bytes.len(), "digest": file.digest });
    out.answer(&answer, format!("{name}  {}  {}", file.digest.short(), args.out.display()));
    Ok(())
}
