//! Finds the std of wasm32-unknown-unknown. It installs nothing; `scripts/setup` does.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::Error;

const TARGET: &str = "wasm32-unknown-unknown";

/// Where the std of the target comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Std {
    /// The toolchain has it.
    Installed,
    /// Debian's compiler builds it.
    Debian,
}

impl FromStr for Std {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name.to_ascii_lowercase().as_str() {
            "installed" => Ok(Self::Installed),
            "debian" => Ok(Self::Debian),
            _ => Err(Error::UnknownStd(name.to_owned())),
        }
    }
}

/// How guests are compiled on this machine.
#[derive(Debug, PartialEq)]
pub enum Route {
    /// The target is installed beside the compiler (`rustup target add`).
    Installed { rustc: OsString },
    /// Debian's compiler builds std from Debian's sources, with the wasm linker of another toolchain.
    Debian { linker: PathBuf },
}

impl Route {
    /// The named route, or the first available one.
    ///
    /// # Errors
    /// If the route, or every route, lacks something. The error says how to install it.
    pub fn pick(std: Option<Std>) -> Result<Self, Error> {
        let mut missing = Vec::new();
        if std != Some(Std::Debian) {
            match Self::installed() {
                Ok(route) => return Ok(route),
                Err(why) => missing.push(why),
            }
        }
        if std != Some(Std::Installed) {
            match Self::debian() {
                Ok(route) => return Ok(route),
                Err(why) => missing.push(why),
            }
        }
        Err(Error::NoStd(missing.join("; or ")))
    }

    fn installed() -> Result<Self, String> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let libraries = answer(&rustc, &["--print", "target-libdir", "--target", TARGET])?;
        if holds_core(Path::new(&libraries)) {
            Ok(Self::Installed { rustc })
        } else {
            Err(format!("`rustup target add {TARGET}`"))
        }
    }

    fn debian() -> Result<Self, String> {
        let packages = "`apt-get install rustc-web cargo-web rust-web-src`";
        let source = Path::new("/usr/lib/rustlib/src/rust/library/std");
        if !Path::new(DEBIAN_CARGO).exists() || !Path::new(DEBIAN_RUSTC).exists() || !source.exists() {
            return Err(packages.to_owned());
        }
        let linker = toolchain_linker()
            .or_else(|| Some(PathBuf::from("/usr/bin/wasm-ld")).filter(|path| path.exists()))
            .ok_or("a linker for wasm: `apt-get install lld`")?;
        Ok(Self::Debian { linker })
    }

    /// `cargo build` for guests by this route, without the arguments that name them.
    pub(crate) fn cargo_build(&self) -> Command {
        let mut cargo = match self {
            Self::Installed { rustc } => {
                let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                cargo.env("RUSTC", rustc);
                cargo
            }
            Self::Debian { linker } => {
                let mut cargo = Command::new(DEBIAN_CARGO);
                cargo
                    .env("RUSTC", DEBIAN_RUSTC)
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
                cargo
            }
        };
        cargo.args(["build", "--profile", "guest", "--target", TARGET]);
        if let Self::Debian { .. } = self {
            cargo.arg("-Zbuild-std=std,panic_abort");
        }
        cargo
    }

    /// Directories of sources whose paths would appear in a guest's panic messages.
    pub(crate) fn source_directories(&self) -> Vec<PathBuf> {
        match self {
            Self::Installed { .. } => Vec::new(),
            Self::Debian { .. } => {
                let links = ["/usr/lib/rustlib/src/rust"];
                links
                    .iter()
                    .flat_map(|path| {
                        [PathBuf::from(path)].into_iter().chain(std::fs::canonicalize(path).ok())
                    })
                    .collect()
            }
        }
    }
}

const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

fn holds_core(libraries: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(libraries) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

/// Toolchains of rustup have `rust-lld`, Debian's does not.
fn toolchain_linker() -> Option<PathBuf> {
    let sysroot = answer(&"rustc".into(), &["--print", "sysroot"]).ok()?;
    let targets = std::fs::read_dir(Path::new(&sysroot).join("lib/rustlib")).ok()?;
    targets.flatten().map(|target| target.path().join("bin/rust-lld")).find(|path| path.exists())
}

fn answer(program: &OsString, args: &[&str]) -> Result<String, String> {
    let name = program.to_string_lossy();
    let output = Command::new(program).args(args).output().map_err(|error| format!("{name}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed { .. } => write!(f, "installed with the toolchain"),
            Self::Debian { linker } => write!(f, "built by {DEBIAN_CARGO}, linked by {}", linker.display()),
        }
    }
}

impl Serialize for Route {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Installed { .. } => "installed",
            Self::Debian { .. } => "debian",
        })
    }
}
