//! `switchboard build`: builds release files of handlers. One cargo call compiles all crates of the
//! directory, also if one handler is named: cargo unifies the features of crates that it builds together, and
//! the digest of a handler must not depend on the others. A handler in another language has a command in its
//! manifest (`[build]`), which makes its component.

mod command;
pub(super) mod component;
mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Failure, Output};
pub(crate) use source::Source;
use switchboard_core::ids::Digest;
use switchboard_core::manifest::{Build, Manifest};
use switchboard_guests::{Error, Route, Std, Workspace};
use switchboard_runtime::ReleaseFile;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names of handlers (their directories); without a name, all.
    handlers: Vec<String>,
    /// The directory with the handlers: every directory in it with a `handler.toml`.
    #[arg(long, default_value = "handlers")]
    from: PathBuf,
    /// The directory for the release files; by default `handlers` in cargo's target directory, or
    /// `target/handlers` in the working directory if no handler is a crate.
    #[arg(long)]
    out: Option<PathBuf>,
    /// The source of the std of wasm32-unknown-unknown, `installed` or `debian`; by default
    /// SWITCHBOARD_WASM_ROUTE, or the first that is available.
    #[arg(long)]
    std: Option<Std>,
}

/// The results of a build.
#[derive(Debug, Serialize)]
pub(crate) struct Built {
    /// The std that cargo used; `None` if no handler is a crate.
    pub route: Option<Route>,
    pub handlers: Vec<BuiltHandler>,
}

#[derive(Debug, Serialize)]
pub(crate) struct BuiltHandler {
    pub name: String,
    pub path: PathBuf,
    pub bytes: usize,
    pub digest: Digest,
    /// False if the file already had this content.
    pub changed: bool,
    #[serde(skip)]
    pub manifest: Manifest,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Failure> {
    const VARIABLE: &str = "SWITCHBOARD_WASM_ROUTE";
    let std = match (args.std, switchboard_core::config::variable(VARIABLE)) {
        (None, Some(name)) => {
            Some(name.parse().map_err(|error: Error| Failure::Usage(format!("{VARIABLE}: {error}")))?)
        }
        (std, _) => std,
    };
    let built = build(&args.from, args.out.as_deref(), std, &args.handlers)?;
    if let Some(route) = &built.route {
        out.progress(format_args!("std for wasm32-unknown-unknown: {route}"));
    }
    let width = built.handlers.iter().map(|file| file.name.len()).max().unwrap_or(0);
    let lines: Vec<String> = built.handlers.iter().map(|file| file.line(width)).collect();
    out.answer(&built, lines.join("\n"));
    Ok(())
}

/// Builds the named handlers of a directory, or all of them. The output of cargo and of the commands goes to
/// standard error.
pub(crate) fn build(
    from: &Path,
    out: Option<&Path>,
    std: Option<Std>,
    names: &[String],
) -> Result<Built, Failure> {
    let wanted = Source::find(from)?;
    for name in names {
        if !wanted.iter().any(|source| source.name == *name) {
            let known: Vec<&str> = wanted.iter().map(|source| source.name.as_str()).collect();
            let from = from.display();
            return Err(Failure::Usage(format!(
                "no handler `{name}` in {from}/; there are: {}",
                known.join(", ")
            )));
        }
    }
    let wanted: Vec<Source> =
        wanted.into_iter().filter(|s| names.is_empty() || names.contains(&s.name)).collect();
    // Report a bad manifest before the compiler starts.
    let manifests = wanted.iter().map(Source::manifest).collect::<Result<Vec<_>, _>>()?;
    let commands = wanted.iter().map(Source::build).collect::<Result<Vec<_>, _>>()?;

    // Where no handler is a crate, there may be no cargo.
    let is_crate = |(source, command): (&Source, &Option<Build>)| match command {
        Some(_) => None,
        None => Some(source.directory.clone()),
    };
    let crates: Vec<PathBuf> = wanted.iter().zip(&commands).filter_map(is_crate).collect();
    let (mut route, mut modules) = (None, Vec::new());
    let mut target = PathBuf::from("target");
    if !crates.is_empty() {
        let workspace = Workspace::of(from)?;
        let picked = Route::pick(std)?;
        modules = workspace.compile(&picked, &crates)?;
        route = Some(picked);
        target = workspace.target;
    }
    let mut modules = modules.into_iter();

    let out = out.map_or_else(|| target.join("handlers"), Path::to_owned);
    std::fs::create_dir_all(&out).map_err(|error| Failure::failed(format!("{}: {error}", out.display())))?;
    let mut handlers = Vec::new();
    for ((source, manifest), command) in wanted.iter().zip(manifests).zip(commands) {
        let complain = |error: String| Failure::failed(format!("{}: {error}", source.name));
        let bytes = match command {
            Some(command) => {
                let component = command::component(&source.directory, &command).map_err(complain)?;
                let file = ReleaseFile::parse(component::with_manifest(component, &manifest));
                // Tools of other languages know nothing of grants. A deploy would refuse it later.
                let checked = file.and_then(|file| file.check_interfaces().map(|()| file));
                checked.map_err(|error| complain(error.to_string()))?.bytes.to_vec()
            }
            None => {
                let module = modules.next().expect("cargo compiled one module for each crate");
                component::encode(&module, &manifest).map_err(complain)?
            }
        };
        let path = out.join(format!("{}.wasm", source.name));
        let changed = component::replace(&path, &bytes)
            .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        handlers.push(BuiltHandler {
            name: source.name.clone(),
            path,
            bytes: bytes.len(),
            digest: Digest::of(&bytes),
            changed,
            manifest: Manifest::parse(&manifest)?,
        });
    }
    if names.is_empty() {
        forget_gone(&out, &handlers)?;
    }
    Ok(Built { route, handlers })
}

/// The components that the build commands of a directory's handlers write, by their paths in the directory. A
/// handler without a valid manifest has none.
pub(crate) fn components(from: &Path) -> BTreeSet<PathBuf> {
    let component = |source: &Source| {
        let build = source.build().ok().flatten()?;
        Some(Path::new(&source.name).join(build.component))
    };
    Source::find(from).unwrap_or_default().iter().filter_map(component).collect()
}

/// Removes release files of handlers whose sources are gone, so that a node does not deploy them. Other files
/// stay.
fn forget_gone(out: &Path, built: &[BuiltHandler]) -> Result<(), Failure> {
    for entry in std::fs::read_dir(out)? {
        let path = entry?.path();
        let of_a_build = built.iter().any(|file| file.path.file_name() == path.file_name());
        if !of_a_build && path.extension() == Some("wasm".as_ref()) && component::is_release(&path) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

impl BuiltHandler {
    fn line(&self, width: usize) -> String {
        let kib = self.bytes as f64 / 1024.0;
        let state = if self.changed { "" } else { "  unchanged" };
        format!(
            "{:<width$} {kib:>8.1} KiB  {}  {}{state}",
            self.name,
            self.digest.short(),
            self.path.display()
        )
    }
}
