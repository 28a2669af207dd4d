//! Compiles all handler crates of a directory, and leaves the modules where `switchboard build` finds them up
//! to date.

use std::path::Path;
use std::process::ExitCode;

use switchboard_guests::{Error, Route, Workspace};

fn main() -> ExitCode {
    let Some(from) = std::env::args_os().nth(1) else {
        eprintln!("usage: compile-guests DIRECTORY");
        return ExitCode::from(2);
    };
    match compile(Path::new(&from)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compile-guests: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compile(from: &Path) -> Result<(), Error> {
    let std = std::env::var("SWITCHBOARD_WASM_ROUTE").ok().map(|name| name.parse()).transpose()?;
    let workspace = Workspace::of(from)?;
    workspace.compile(&Route::pick(std)?, &workspace.directories())?;
    Ok(())
}
