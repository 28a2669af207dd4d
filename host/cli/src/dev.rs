//! `switchboard dev`: runs a node in this process, and builds and deploys its handlers when their files
//! change. Sockets stay open: a change is a deploy like any other, through the admin API. What the node lacks
//! (Postgres, Redis, secrets) comes from the folder.

mod talk;
pub(super) mod watch;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use hyper::Method;
use tokio::sync::oneshot;

use super::build::{self, Built, BuiltHandler, Source};
use super::client::{Client, Where};
use super::local::{self, LocalServices};
use super::migrate::{self, App};
use super::serve::Node;
use super::{Failure, Output, deploy, page, sign};
use switchboard_core::config::Config;
use switchboard_postgres::migrate::Claim;
use switchboard_releases::repository::Unopened;
use switchboard_releases::signature::{Signature, Trust};
use switchboard_server::app;
use talk::Talk;
use watch::{Changed, Watch};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory with the handlers.
    #[arg(long, default_value = "handlers")]
    from: PathBuf,
    /// The key that signs the builds, if `release_keys` demands signatures; by default `release.key`, if it
    /// exists.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    node: Node,
}

pub(crate) async fn run(args: Args, config: Config, out: &Output) -> Result<(), Failure> {
    let mut config = args.node.over(config);
    // Deploy the builds to this node.
    config.handlers_dir = None;
    let key = key(args.key, &config)?;
    let migrations = args.app.migrations_if_any(Some(&args.from))?;
    addresses_are_free(&config)?;
    // Start before the first build, so that changes during it are not missed.
    let watch = Watch::start(&args.from)?;
    // The servers end after the node.
    let (_services, secrets) = equip(&mut config, out)?;
    let talk = Talk::new(&config, secrets)?;
    let first = build(&args.from, Vec::new()).await;
    migrate::migrate(&config, &migrations, Claim::IfUnused, Unopened::Refuse, out).await?;

    let client = Client::of(&config, &Where::default());
    let mut node = std::pin::pin!(app::serve(config));
    let introduce = |built: &Built| {
        out.progress(talk.text(built.handlers.iter().map(|file| &file.manifest)));
    };
    let work = async {
        ready(&client).await;
        // Releases that the node refused. Their reason may be gone at the next build, for instance a secret
        // that was not set, although the file is the same.
        let mut refused = BTreeSet::new();
        let mut is_introduced = first.is_ok();
        match first {
            Ok(built) => {
                refused = swap(&client, &built, key.as_ref(), |_| true, out).await;
                introduce(&built);
            }
            Err(failure) => out.progress(format_args!("{failure}; waiting for a change")),
        }
        loop {
            let changed = watch.changed().await;
            let saved = Instant::now();
            out.progress(format_args!("\n{} changed", changed.summary()));
            let built = match build(&args.from, names(&args.from, &changed)).await {
                Ok(built) => built,
                Err(failure) => {
                    // The compiler has printed the reason; the running release continues.
                    out.progress(format_args!("{failure}; the handlers go on as they are"));
                    continue;
                }
            };
            let is_due = |file: &BuiltHandler| file.changed || refused.contains(&file.name);
            if built.handlers.iter().any(is_due) {
                let refused_now = swap(&client, &built, key.as_ref(), is_due, out).await;
                refused.retain(|name| !built.handlers.iter().any(|file| file.name == *name));
                refused.extend(refused_now);
                out.progress(format_args!("{} after the save", page::duration(millis(saved))));
            } else {
                out.progress("nothing to swap: every release is as it was");
            }
            if !std::mem::replace(&mut is_introduced, true) {
                introduce(&built);
            }
        }
    };
    tokio::select! {
        ended = node.as_mut() => Ok(ended?),
        () = work => Ok(()),
    }
}

/// Reports a port in use before servers start and handlers are built, which takes minutes in a new folder.
fn addresses_are_free(config: &Config) -> Result<(), Failure> {
    for (flag, address) in [("--listen", config.listen), ("--admin-listen", config.admin_listen)] {
        TcpListener::bind(address).map_err(|error| {
            Failure::failed(format!("cannot listen on {address}: {error}; {flag} names another address"))
        })?;
    }
    Ok(())
}

/// Gives the node what the configuration lacks: a private Postgres and Redis, and secrets. Returns also the
/// file of the secrets, if one is used.
fn equip(config: &mut Config, out: &Output) -> Result<(LocalServices, Option<PathBuf>), Failure> {
    let directory = config.data_dir.clone();
    let has_own_database = config.database_url.is_none();
    if has_own_database || config.redis_url.is_none() {
        out.progress(format_args!("the private servers of this folder are in {}", directory.display()));
    }
    let services = LocalServices::start(&directory, &mut config.database_url, &mut config.redis_url)?;
    let trusts_others = !config.jwt_keys.is_empty() || !config.jwt_jwks.is_empty();
    let mut wanted = vec![("SWITCHBOARD_ADMIN_TOKEN", &mut config.admin_token)];
    // The roles of another database have the passwords of a secret that only its operator knows.
    if has_own_database {
        wanted.push(("SWITCHBOARD_SECRET", &mut config.secret));
    }
    if !trusts_others {
        wanted.push(("SWITCHBOARD_JWT_SECRET", &mut config.jwt_secret));
    }
    Ok((services, local::secrets(&directory, wanted)?))
}

/// The handlers that a change is in. None means all: another file may belong to several.
fn names(from: &Path, changed: &Changed) -> Vec<String> {
    let are_handlers = |names: &BTreeSet<String>| names.iter().all(|name| Source::is_at(&from.join(name)));
    changed.directories().filter(are_handlers).into_iter().flatten().collect()
}

/// The key that signs builds; none if the node demands no signatures. If there is no trusted key, the node
/// would refuse all builds, so this fails before anything is built.
fn key(named: Option<PathBuf>, config: &Config) -> Result<Option<SigningKey>, Failure> {
    let trust = Trust::of(config).map_err(|error| Failure::Usage(error.to_string()))?;
    if !trust.is_needed() {
        return Ok(None);
    }
    let what_to_do = "`dev --key FILE` signs what it builds with the secret half of one of them \
                      (`switchboard keys` makes a pair), and without `release_keys` no signature is needed";
    let file = named.unwrap_or_else(|| PathBuf::from("release.key"));
    let key = sign::secret(&file).map_err(|failure| {
        Failure::Usage(format!(
            "this node takes only what `release_keys` vouch for, and {failure}; {what_to_do}"
        ))
    })?;
    if !trust.keys().contains(&key.verifying_key().to_bytes().to_vec()) {
        let file = file.display();
        return Err(Failure::Usage(format!("{file} is the half of no key of `release_keys`; {what_to_do}")));
    }
    Ok(Some(key))
}

/// Deploys releases. Returns the names of those that the node refused, or that could not be sent.
async fn swap(
    client: &Client,
    built: &Built,
    key: Option<&SigningKey>,
    wanted: impl Fn(&BuiltHandler) -> bool,
    out: &Output,
) -> BTreeSet<String> {
    let mut refused = BTreeSet::new();
    for file in built.handlers.iter().filter(|file| wanted(file)) {
        let signed: Vec<_> = key.map(|key| Signature::sign(file.digest, key)).into_iter().collect();
        let deployed = match std::fs::read(&file.path) {
            Ok(bytes) => deploy::deploy(client, bytes, &signed, Vec::new(), Some("switchboard dev")).await,
            Err(error) => Err(error.into()),
        };
        match deployed {
            Ok(outcome) => out.progress(deploy::sentence(&outcome)),
            Err(failure) => {
                out.progress(format_args!("{} was not swapped: {failure}", file.name));
                refused.insert(file.name.clone());
            }
        }
    }
    refused
}

/// Builds the named handlers, or all, on a thread of its own, because it waits for compilers. It is no thread
/// of the runtime, whose end waits for those: a build command that hangs must not keep `dev` from ending.
async fn build(from: &Path, names: Vec<String>) -> Result<Built, Failure> {
    let from = from.to_owned();
    let (sender, built) = oneshot::channel();
    thread::Builder::new().name("build".to_owned()).spawn(move || {
        // The receiver is gone if `dev` ends.
        let _ = sender.send(build::build(&from, None, None, &names));
    })?;
    built.await.unwrap_or_else(|_| Err(Failure::failed("the build panicked; its message is above")))
}

/// Resolves when the node answers. If the node ends before, `run` ends too.
async fn ready(client: &Client) {
    let mut again = tokio::time::interval(Duration::from_millis(50));
    loop {
        again.tick().await;
        let answer = client.ask(Method::GET, "/healthz", "", Bytes::new()).await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            return;
        }
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchboard_releases::signature;

    #[test]
    fn an_address_in_use_is_reported_with_the_flag_for_another_one() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin_listen = taken.local_addr().unwrap();
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), admin_listen, ..Config::default() };
        let error = addresses_are_free(&config).unwrap_err().to_string();
        assert!(error.contains(&admin_listen.to_string()) && error.contains("--admin-listen"), "{error}");
        drop(taken);
        assert!(addresses_are_free(&config).is_ok());
    }

    #[test]
    fn where_signatures_are_demanded_it_signs_or_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let ((secret, public), (strange, _)) = (signature::new_key(), signature::new_key());
        let (ours, other) = (write("ours.key", &secret), write("other.key", &strange));
        let trusted = write("ours.pub", &public).display().to_string();
        let config = Config { release_keys: vec![trusted], ..Config::default() };

        let signs = key(Some(ours), &config).ok().flatten().expect("a key that counts");
        assert_eq!(signature::public_line(&signs.verifying_key()), public);
        for named in [other, directory.path().join("nowhere.key"), write("no.key", "nonsense")] {
            let Err(Failure::Usage(message)) = key(Some(named.clone()), &config) else {
                panic!("{} signs", named.display())
            };
            assert!(message.contains("release_keys") && message.contains("dev --key FILE"), "{message}");
            assert!(message.contains(&named.display().to_string()), "{message}");
        }
        // Without `release_keys` it looks for no key.
        assert!(matches!(key(None, &Config::default()), Ok(None)));
    }
}
