//! Runs the build command of a handler that is not a crate, and reads the component that it writes.

use std::path::Path;
use std::process::{Command, Stdio};

use switchboard_core::manifest::Build;

/// Runs `build.command` in the handler's directory, and returns the component. The output of the command goes
/// to standard error, because standard output is for the answer of `switchboard build`. The command has no
/// time limit, like cargo: a first build may download tools.
///
/// # Errors
/// If the command cannot be run, fails, or leaves no component.
pub(super) fn component(directory: &Path, build: &Build) -> Result<Vec<u8>, String> {
    let Build { command, component } = build;
    let words = command.join(" ");
    let (program, arguments) = command.split_first().ok_or("`build.command` is empty")?;
    let status = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|error| format!("cannot run `{words}` (`build.command` of the manifest): {error}"))?;
    if !status.success() {
        return Err(format!("`{words}` failed ({status})"));
    }
    std::fs::read(directory.join(component)).map_err(|error| {
        format!(
            "`{words}` left no component in {component}: {error}; `build.component` of the manifest names the file"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(script: &str) -> Result<Vec<u8>, String> {
        let directory = tempfile::tempdir().unwrap();
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        component(directory.path(), &Build { command, component: "out/x.wasm".to_owned() })
    }

    #[test]
    fn a_command_writes_the_component_in_the_handlers_directory() {
        assert_eq!(built("mkdir out; echo text on stdout; printf abc >out/x.wasm").unwrap(), b"abc");
        assert!(built("exit 7").unwrap_err().contains("exit status: 7"));
        assert!(built("mkdir out").unwrap_err().contains("left no component in out/x.wasm"));
        let nowhere = Build { command: vec!["no-such-program".to_owned()], component: "x".to_owned() };
        assert!(component(Path::new("/"), &nowhere).unwrap_err().contains("cannot run `no-such-program`"));
    }
}
