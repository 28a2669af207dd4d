//! A private Postgres and Redis, and secrets, so that handlers run on a machine without any set-up. They are
//! in a directory of the folder. The servers end with the command that started them, however it ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use switchboard_services::server::{Life, Server};
use switchboard_services::standing::{Standing, Up};

use crate::Failure;

/// The file of secrets, which a shell reads: `. .switchboard/secrets.env`. `scripts/run` has the same one.
const SECRETS: &str = "secrets.env";
const NAMES: [&str; 3] = ["SWITCHBOARD_SECRET", "SWITCHBOARD_JWT_SECRET", "SWITCHBOARD_ADMIN_TOKEN"];

/// The servers that this process started. They end when it is dropped.
#[derive(Default)]
pub(crate) struct LocalServices {
    started: Vec<Server>,
    /// A locked file, if the servers belong to one command at a time. It is unlocked after their end.
    alone: Option<File>,
}

impl LocalServices {
    /// Starts the servers whose URL is missing, or finds them if another process has started them, and sets
    /// the URLs. Their data stay in the directory. Call it on the main thread: the servers end with the
    /// thread that starts them.
    ///
    /// # Errors
    /// If Postgres or Redis is not installed, or does not start.
    pub(crate) fn start(
        directory: &Path,
        database_url: &mut Option<String>,
        redis_url: &mut Option<String>,
    ) -> Result<Self, Failure> {
        let mut services = Self::default();
        if database_url.is_some() && redis_url.is_some() {
            return Ok(services);
        }
        let standing = Standing::at(directory, Life::Ours).map_err(of("cannot make room for servers"))?;
        if database_url.is_none() {
            let what = "cannot start a private Postgres (SWITCHBOARD_DATABASE_URL names another)";
            let up = standing.postgres().map_err(of(what))?;
            *database_url = Some(services.keep(up));
        }
        if redis_url.is_none() {
            let what = "cannot start a private Redis (SWITCHBOARD_REDIS_URL names another)";
            let up = standing.redis().map_err(of(what))?;
            *redis_url = Some(services.keep(up));
        }
        Ok(services)
    }

    /// The same for one command at a time: another one waits until this one has ended, so that it does not
    /// use servers that are about to end.
    pub(crate) fn start_alone(
        directory: &Path,
        database_url: &mut Option<String>,
        redis_url: &mut Option<String>,
    ) -> Result<Self, Failure> {
        if database_url.is_some() && redis_url.is_some() {
            return Ok(Self::default());
        }
        let path = directory.join("in-use.lock");
        let lock = || -> io::Result<File> {
            fs::create_dir_all(directory)?;
            let file = File::create(&path)?;
            file.lock()?;
            Ok(file)
        };
        let alone = lock().map_err(of(&path.display().to_string()))?;
        let mut services = Self::start(directory, database_url, redis_url)?;
        services.alone = Some(alone);
        Ok(services)
    }

    fn keep(&mut self, up: Up) -> String {
        if up.ours {
            self.started.push(up.server);
        }
        up.url
    }
}

impl Drop for LocalServices {
    fn drop(&mut self) {
        for server in &mut self.started {
            if let Err(error) = server.end() {
                // The print macros panic if the reader has ended.
                let _ = writeln!(io::stderr(), "a private server was not ended: {error}");
            }
        }
        self.alone = None;
    }
}

fn of(what: &str) -> impl FnOnce(io::Error) -> Failure {
    let what = what.to_owned();
    move |error| Failure::failed(format!("{what}: {error}"))
}

/// Sets the missing secrets, by the names of their variables, from the file in the directory. The first call
/// makes the file. Returns its path if it was needed.
///
/// # Errors
/// If the file cannot be read or made, or lacks a name.
pub(crate) fn secrets(
    directory: &Path,
    wanted: Vec<(&str, &mut Option<String>)>,
) -> Result<Option<PathBuf>, Failure> {
    let missing: Vec<_> = wanted.into_iter().filter(|(_, value)| value.is_none()).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let path = directory.join(SECRETS);
    let named = path.display().to_string();
    if !path.exists() {
        make(directory, &path).map_err(of(&named))?;
    }
    let text = fs::read_to_string(&path).map_err(of(&named))?;
    for (name, value) in missing {
        let found = value_of(&text, name).ok_or_else(|| {
            Failure::failed(format!(
                "{named} has no {name}: set the variable, or delete the file to make a new one"
            ))
        })?;
        *value = Some(found.to_owned());
    }
    Ok(Some(path))
}

/// Variables that are set keep their values when a shell reads the file.
fn make(directory: &Path, path: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let half = path.with_extension("env.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
    for name in NAMES {
        let (a, b) = (rand::random::<u128>(), rand::random::<u128>());
        writeln!(file, "export {name}=${{{name}:-{a:032x}{b:032x}}}")?;
    }
    fs::rename(half, path)
}

fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let begin = format!("export {name}=${{{name}:-");
    text.lines().find_map(|line| line.strip_prefix(&begin)?.strip_suffix('}'))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secrets_are_made_once_and_a_shell_can_read_them() {
        let directory = tempfile::tempdir().unwrap();
        let (mut token, mut given) = (None, Some("given".to_owned()));
        let wanted = vec![(NAMES[2], &mut token), (NAMES[0], &mut given)];
        let path = secrets(directory.path(), wanted).unwrap().expect("a file");
        assert_eq!(given.as_deref(), Some("given"));
        let token = token.expect("a token");
        assert_eq!((token.len(), fs::metadata(&path).unwrap().permissions().mode() & 0o777), (64, 0o600));

        let mut again = None;
        secrets(directory.path(), vec![(NAMES[2], &mut again)]).unwrap();
        assert_eq!(again.as_ref(), Some(&token));
        let printed = std::process::Command::new("sh")
            .args(["-c", ". \"$0\" && printf %s \"$SWITCHBOARD_ADMIN_TOKEN\""])
            .arg(&path)
            .env_remove("SWITCHBOARD_ADMIN_TOKEN")
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&printed.stdout), token);

        let nothing_is_missing = vec![(NAMES[0], &mut given)];
        assert!(secrets(directory.path(), nothing_is_missing).unwrap().is_none());
        fs::write(&path, "export OTHER=1\n").unwrap();
        let mut lost = None;
        let error = secrets(directory.path(), vec![(NAMES[1], &mut lost)]).unwrap_err();
        assert!(error.to_string().contains("has no SWITCHBOARD_JWT_SECRET"), "{error}");
    }

    #[test]
    fn servers_that_are_named_are_not_started() {
        let directory = tempfile::tempdir().unwrap();
        let (mut database, mut redis) = (Some("postgres://x".to_owned()), Some("redis://x".to_owned()));
        let services = LocalServices::start(directory.path(), &mut database, &mut redis).unwrap();
        assert!(services.started.is_empty() && fs::read_dir(directory.path()).unwrap().next().is_none());
    }

    #[test]
    fn servers_end_with_their_owner() {
        let directory = tempfile::tempdir().unwrap();
        // Only Redis, which starts at once.
        let (mut database, mut redis) = (Some("postgres://x".to_owned()), None);
        let services = LocalServices::start_alone(directory.path(), &mut database, &mut redis).unwrap();
        let url = redis.expect("a URL");
        let address = url.strip_prefix("redis://").unwrap().to_owned();
        assert!(std::net::TcpStream::connect(&address).is_ok());
        drop(services);
        assert!(std::net::TcpStream::connect(&address).is_err());
        Standing::at(directory.path(), Life::Ours).unwrap().remove().unwrap();
    }
}
