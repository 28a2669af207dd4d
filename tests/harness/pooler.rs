//! A real PgBouncer in front of a Postgres of the tests, if it is installed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use switchboard_services::server;
use tempfile::TempDir;

use crate::host::free_address;
use crate::patience::until;
use crate::services::{Database, Watched, as_service_user, own_as_service_user};

pub struct PgBouncer {
    address: SocketAddr,
    _process: Watched,
    _directory: TempDir,
}

impl PgBouncer {
    /// Starts it in this `pool_mode`, for every database and role of the server behind it. None if PgBouncer
    /// is not installed.
    pub async fn start(database: &Database, pool_mode: &str) -> Option<Self> {
        let program = program()?;
        let directory = tempfile::Builder::new().prefix("switchboard-pgbouncer-").tempdir();
        let directory = directory.expect("a temporary directory");
        let file = |name: &str| directory.path().join(name);
        let address = free_address();
        let server = database.postgres.address();
        // The users in this file may log in; the server trusts everybody too.
        let roles = database.rows("select rolname::text from pg_roles where rolname !~ '^pg_'").await;
        let users: String =
            roles.iter().map(|row| format!("\"{}\" \"\"\n", row.get::<_, String>(0))).collect();
        std::fs::write(file("users"), users).expect("a list of users");
        let settings = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = {}\nlisten_port = {}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {}\npool_mode = {pool_mode}\nmax_client_conn = 500\n",
            server.ip(),
            server.port(),
            address.ip(),
            address.port(),
            file("users").display(),
        );
        std::fs::write(file("ini"), settings).expect("settings");
        own_as_service_user(directory.path());
        let arguments = [file("ini").display().to_string()];
        let process = Watched::start(&program.display().to_string(), &arguments, "TERM", &file("log"));
        let bouncer = Self { address, _process: process, _directory: directory };
        until("PgBouncer to accept connections", async || {
            tokio::net::TcpStream::connect(bouncer.address).await.ok()
        })
        .await;
        Some(bouncer)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Debian installs it in a directory of root's path only.
fn program() -> Option<PathBuf> {
    let debian = PathBuf::from("/usr/sbin/pgbouncer");
    let program = if debian.is_file() { debian } else { server::program("pgbouncer").ok()? };
    let [first, others @ ..] = &as_service_user(&program.display().to_string())[..] else { return None };
    Command::new(first).args(others).arg("--version").output().ok()?.status.success().then_some(program)
}
