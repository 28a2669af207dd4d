//! The peers: Bun, and ws on Node. Each does the same stored send on the same Postgres, as fast as it can
//! (`peers/`). npm installs them under `target/`, and only for `--peers`.

use std::io;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use clap::ValueEnum;
use switchboard_tests::paths;
use switchboard_tests::services::Database;
use switchboard_tests::token::JWT_SECRET;
use tokio::process::Command;

use crate::program::Program;

/// The files of the peers, beside `schema.sql`.
const FILES: [&str; 6] = ["package.json", "package-lock.json", ".npmrc", "chat.mjs", "bun.mjs", "ws.mjs"];
const LOCK: &str = "package-lock.json";
const SCHEMA: &str = include_str!("peers/schema.sql");

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Bun,
    Ws,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bun => "Bun",
            Self::Ws => "ws on Node",
        })
    }
}

/// A running peer.
pub(crate) struct Peer {
    pub kind: Kind,
    pub program: Program,
    pub database: Database,
}

impl Peer {
    /// Starts a peer on a database that has the tables of the peers.
    pub(crate) async fn start(kind: Kind, database: &Database) -> io::Result<Self> {
        let directory = directory();
        let (program, script) = match kind {
            Kind::Bun => (bun(&directory)?, "bun.mjs"),
            Kind::Ws => (PathBuf::from("node"), "ws.mjs"),
        };
        let mut command = Command::new(program);
        command
            .arg(script)
            .env("PEER_DATABASE_URL", database.url_at(None))
            .env("PEER_JWT_SECRET", JWT_SECRET)
            .env("NODE_ENV", "production")
            .current_dir(&directory);
        let program = Program::start(&mut command).await?;
        Ok(Self { kind, program, database: database.clone() })
    }
}

/// Makes the tables of the peers in an unused database.
pub(crate) async fn prepare(database: &Database) {
    database.run(SCHEMA).await;
}

fn directory() -> PathBuf {
    paths::target().join("bench-peers")
}

/// Installs the packages of the lock file, unless this was done before.
pub(crate) async fn install() -> io::Result<()> {
    let (source, directory) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("load/peers"), directory());
    fs::create_dir_all(&directory)?;
    for file in FILES {
        fs::copy(source.join(file), directory.join(file))
            .map_err(|error| io::Error::other(format!("{}: {error}", source.join(file).display())))?;
    }
    // Written after a whole installation.
    let installed = directory.join("installed.json");
    let wanted = fs::read(directory.join(LOCK))?;
    if fs::read(&installed).is_ok_and(|lock| lock == wanted) {
        return Ok(());
    }
    println!("  installing the peers with npm in {}", directory.display());
    // Without scripts: the program of Bun is in a package of its own, and its script only copies it.
    let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    let output = Command::new("npm").args(arguments).current_dir(&directory).output().await;
    let output = output.map_err(|error| {
        io::Error::other(format!(
            "--peers needs Node 20 or later with npm, and npm does not start ({error}). Install it, or run \
             without --peers"
        ))
    })?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("npm could not install the peers: {complaint}")));
    }
    fs::write(installed, wanted)
}

/// The program of Bun, in the package for this machine, which npm selects.
fn bun(directory: &Path) -> io::Result<PathBuf> {
    let packages = directory.join("node_modules/@oven");
    let programs =
        fs::read_dir(&packages).into_iter().flatten().flatten().map(|entry| entry.path().join("bin/bun"));
    programs.into_iter().find(|program| program.is_file()).ok_or_else(|| {
        io::Error::other(format!("{} has no program of Bun for this machine", packages.display()))
    })
}
