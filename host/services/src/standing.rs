//! Private Postgres and Redis for development and for a run of tests, in a directory, on ports of their own.
//! This program starts them once, finds them again in later runs, and alone ends them. Servers that a single
//! test breaks are in `services`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::server::{self, Account, Life, Server};

/// The database that is there from the beginning, and the superuser who owns it.
const DATABASE: &str = "switchboard";
/// Number of attempts with another port: a port may be taken between the check and the start.
const ATTEMPTS: usize = 3;

/// The directory of both servers.
pub struct Standing {
    directory: PathBuf,
    life: Life,
    /// A lock that is held while servers are started or ended, against concurrent processes.
    _lock: File,
}

/// The running servers and the time that their start took.
pub struct Up {
    pub server: Server,
    pub url: String,
    /// False when it was found running.
    pub ours: bool,
}

impl Standing {
    /// Waits while another process starts or ends servers there.
    pub fn at(directory: &Path, life: Life) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let directory = fs::canonicalize(directory)?;
        let lock = File::create(directory.join("services.lock"))?;
        lock.lock()?;
        Ok(Self { directory, life, _lock: lock })
    }

    pub fn postgres(&self) -> io::Result<Up> {
        let account = Account::of_service("postgres")?;
        let room = self.room("postgres", account)?;
        let (data, log, password) = (room.join("data"), self.log("postgres"), self.password()?);
        let url = |server: &Server| {
            format!("postgres://{DATABASE}:{password}@127.0.0.1:{}/{DATABASE}", server.port)
        };

        if let Some(server) = Server::recall("postgres", &self.record("postgres")) {
            self.wait_for_postgres(&server)?;
            return Ok(Up { url: url(&server), server, ours: false });
        }
        if !data.join("PG_VERSION").is_file() {
            self.make_cluster(&data, account, &password)?;
        }
        for _ in 0..ATTEMPTS {
            let port = server::free_port()?;
            let program = server::postgres_program("postgres")?;
            let server = Server::start(
                "postgres",
                &program,
                &postgres_settings(&data, port),
                account,
                self.life,
                port,
                &log,
            )?;
            if self.wait_for_postgres(&server)? {
                server.remember(&self.record("postgres"))?;
                self.make_database(port, &password)?;
                return Ok(Up { url: url(&server), server, ours: true });
            }
        }
        Err(io::Error::other(format!("Postgres does not start; {}:\n{}", log.display(), server::tail(&log))))
    }

    pub fn redis(&self) -> io::Result<Up> {
        let account = Account::of_service("redis")?;
        let (room, log) = (self.room("redis", account)?, self.log("redis"));
        let url = |server: &Server| format!("redis://127.0.0.1:{}", server.port);

        if let Some(server) = Server::recall("redis", &self.record("redis")) {
            wait_for_redis(&server)?;
            return Ok(Up { url: url(&server), server, ours: false });
        }
        for _ in 0..ATTEMPTS {
            let port = server::free_port()?;
            let program = server::program("redis-server")?;
            let server = Server::start(
                "redis",
                &program,
                &redis_settings(&room, port),
                account,
                self.life,
                port,
                &log,
            )?;
            if wait_for_redis(&server)? {
                server.remember(&self.record("redis"))?;
                return Ok(Up { url: url(&server), server, ours: true });
            }
        }
        Err(io::Error::other(format!("Redis does not start; {}:\n{}", log.display(), server::tail(&log))))
    }

    /// Ends the servers that run here. Returns their names.
    pub fn down(&self) -> io::Result<Vec<&'static str>> {
        let mut ended = Vec::new();
        for name in ["postgres", "redis"] {
            let record = self.record(name);
            if let Some(mut server) = Server::recall(name, &record) {
                server.end()?;
                ended.push(name);
            }
            if record.exists() {
                fs::remove_file(record)?;
            }
        }
        Ok(ended)
    }

    /// Deletes everything that was kept, also the data of both servers.
    pub fn remove(self) -> io::Result<()> {
        self.down()?;
        for name in ["postgres", "redis"] {
            if let Ok(room) = fs::canonicalize(self.directory.join(name)) {
                fs::remove_dir_all(room)?;
            }
        }
        fs::remove_dir_all(&self.directory)
    }

    fn record(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.pid"))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    /// Where a server keeps its data. Another user may not reach our directory (a clone under /root), so for
    /// one it is in /var/tmp, with a link to it here. Without the link it is a new directory: data of an
    /// earlier clone at the same path has a password that nobody has any more.
    fn room(&self, name: &str, account: Option<Account>) -> io::Result<PathBuf> {
        let here = self.directory.join(name);
        let Some(account) = account else {
            private_directory(&here, None)?;
            return Ok(here);
        };
        if let Ok(room) = fs::read_link(&here) {
            private_directory(&room, Some(account))?;
            return Ok(room);
        }
        let prefix = format!("switchboard-{name}-");
        let ours_alone = fs::Permissions::from_mode(0o700);
        let mut directory = tempfile::Builder::new();
        let room = directory.prefix(&prefix).permissions(ours_alone).tempdir_in("/var/tmp")?.keep();
        private_directory(&room, Some(account))?;
        std::os::unix::fs::symlink(&room, &here)?;
        Ok(room)
    }

    /// The password of the superuser, made once, because other users of the machine can reach the port.
    fn password(&self) -> io::Result<String> {
        let file = self.directory.join("postgres.password");
        if let Ok(password) = fs::read_to_string(&file) {
            return Ok(password.trim().to_owned());
        }
        let mut random = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        private_file(&file)?.write_all(password.as_bytes())?;
        Ok(password)
    }

    fn make_cluster(&self, data: &Path, account: Option<Account>, password: &str) -> io::Result<()> {
        // Remains of an interrupted run.
        let _ = fs::remove_dir_all(data);
        let room = data.parent().expect("the cluster is in its room");
        let secret = room.join("password");
        let _ = fs::remove_file(&secret);
        private_file(&secret)?.write_all(password.as_bytes())?;
        let mut initdb = Command::new(server::postgres_program("initdb")?);
        if let Some(account) = account {
            use std::os::unix::process::CommandExt;
            account.own(&secret)?;
            initdb.uid(account.uid).gid(account.gid);
        }
        initdb.args(["--encoding=UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256", "--no-sync"]);
        initdb.arg(format!("--username={DATABASE}")).arg("--pwfile").arg(&secret).arg("--pgdata").arg(data);
        let log = self.log("postgres");
        let made = server::quiet(&mut initdb, File::create(&log)?)?.status()?;
        fs::remove_file(&secret)?;
        if made.success() {
            return Ok(());
        }
        let _ = fs::remove_dir_all(data);
        Err(io::Error::other(format!("initdb: {made}; {}:\n{}", log.display(), server::tail(&log))))
    }

    /// Makes the database of the URL. initdb makes only those of Postgres itself.
    fn make_database(&self, port: u16, password: &str) -> io::Result<()> {
        let statement = format!(
            "select 'create database {DATABASE}' where not exists \
             (select from pg_database where datname = '{DATABASE}') \\gexec\n"
        );
        let mut psql = Command::new(server::postgres_program("psql")?)
            .args([
                "--no-psqlrc",
                "--quiet",
                "--set=ON_ERROR_STOP=1",
                "--host=127.0.0.1",
                "--dbname=postgres",
            ])
            .arg(format!("--port={port}"))
            .arg(format!("--username={DATABASE}"))
            .env("PGPASSWORD", password)
            .stdin(std::process::Stdio::piped())
            .spawn()?;
        psql.stdin.take().expect("it is piped").write_all(statement.as_bytes())?;
        let made = psql.wait()?;
        made.success().then_some(()).ok_or_else(|| io::Error::other(format!("psql: {made}")))
    }

    /// False when it ended instead.
    fn wait_for_postgres(&self, server: &Server) -> io::Result<bool> {
        let program = server::postgres_program("pg_isready")?;
        server::wait_until("Postgres to accept connections", || {
            if !server.runs() {
                return Ok(Some(false));
            }
            let mut question = Command::new(&program);
            question.args(["--quiet", "--host=127.0.0.1"]).arg(format!("--port={}", server.port));
            Ok(question.status()?.success().then_some(true))
        })
    }
}

/// False when it ended instead.
fn wait_for_redis(server: &Server) -> io::Result<bool> {
    let address = SocketAddr::from(([127, 0, 0, 1], server.port));
    let answers = || {
        let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        connection.set_read_timeout(Some(Duration::from_secs(1)))?;
        connection.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        connection.read_exact(&mut answer)?;
        io::Result::Ok(answer == *b"+PONG\r\n")
    };
    server::wait_until("Redis to answer", || {
        if !server.runs() {
            return Ok(Some(false));
        }
        Ok(answers().unwrap_or(false).then_some(true))
    })
}

fn postgres_settings(data: &Path, port: u16) -> Vec<String> {
    let settings = [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=200",
        "shared_buffers=128MB",
        "max_wal_size=2GB",
        // Acknowledged data survives a crash here too; otherwise tests of durability would prove nothing.
        "fsync=on",
        "synchronous_commit=on",
        "timezone=UTC",
        "jit=off",
    ];
    let mut arguments = vec!["-D".to_owned(), data.display().to_string(), "-p".to_owned(), port.to_string()];
    for setting in settings {
        arguments.extend(["-c".to_owned(), setting.to_owned()]);
    }
    arguments
}

/// Redis has no data that Postgres lacks, so it keeps nothing on disk.
fn redis_settings(room: &Path, port: u16) -> Vec<String> {
    let settings = [
        ("port", port.to_string()),
        ("bind", "127.0.0.1".into()),
        ("save", String::new()),
        ("appendonly", "no".into()),
        ("maxmemory", "256mb".into()),
        ("maxmemory-policy", "volatile-lru".into()),
        ("dir", room.display().to_string()),
    ];
    settings.into_iter().flat_map(|(name, value)| [format!("--{name}"), value]).collect()
}

fn private_directory(path: &Path, account: Option<Account>) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    if let Err(error) = fs::DirBuilder::new().mode(0o700).create(path) {
        if error.kind() != io::ErrorKind::AlreadyExists {
            return Err(error);
        }
        // /var/tmp is shared: an existing directory may belong to another user.
        let found = fs::symlink_metadata(path)?;
        let owner = account.map(|account| account.uid);
        let ours = [Some(fs::metadata("/proc/self")?.uid()), owner].contains(&Some(found.uid()));
        if !found.is_dir() || found.mode() & 0o077 != 0 || !ours {
            return Err(io::Error::other(format!("{} is not a directory of ours alone", path.display())));
        }
    }
    account.map_or(Ok(()), |account| account.own(path))
}

fn private_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Standing) {
        let directory = tempfile::tempdir().unwrap();
        let standing = Standing::at(directory.path(), Life::Ours).unwrap();
        (directory, standing)
    }

    #[test]
    fn a_server_is_started_once_and_ended_only_when_it_is_the_same() {
        let (directory, standing) = place();
        let first = standing.redis().unwrap();
        assert!(first.ours);
        let again = standing.redis().unwrap();
        assert!(!again.ours);
        assert_eq!((again.server.pid, again.url), (first.server.pid, first.url));

        // A later process may have the same pid.
        let record = standing.record("redis");
        let line = fs::read_to_string(&record).unwrap();
        fs::write(&record, format!("{} 1 {}\n", first.server.pid, first.server.port)).unwrap();
        assert!(standing.down().unwrap().is_empty());
        assert!(first.server.runs());

        fs::write(&record, line).unwrap();
        assert_eq!(standing.down().unwrap(), ["redis"]);
        assert!(!first.server.runs());
        standing.remove().unwrap();
        assert!(!directory.path().exists());
    }

    #[test]
    fn a_clone_that_was_deleted_can_be_made_again_at_the_same_path() {
        let (directory, standing) = place();
        assert!(standing.postgres().unwrap().ours);
        standing.down().unwrap();
        let left = fs::canonicalize(directory.path().join("postgres")).unwrap();
        fs::remove_dir_all(directory.path()).unwrap();

        let standing = Standing::at(directory.path(), Life::Ours).unwrap();
        assert!(standing.postgres().unwrap().ours, "the data of the first clone has another password");
        standing.remove().unwrap();
        let _ = fs::remove_dir_all(left);
    }

    #[test]
    fn postgres_keeps_what_was_committed_when_it_is_killed() {
        let (_directory, standing) = place();
        let psql = |url: &str, statement: &str| {
            let program = server::postgres_program("psql").unwrap();
            let out = Command::new(program).args(["-Atqc", statement, url]).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap()
        };
        let mut up = standing.postgres().unwrap();
        psql(&up.url, "create table kept (n int)");
        psql(&up.url, "insert into kept values (7)");
        up.server.kill().unwrap();

        let up = standing.postgres().unwrap();
        assert!(up.ours);
        assert_eq!(psql(&up.url, "select n from kept"), "7\n");
        standing.remove().unwrap();
    }
}
