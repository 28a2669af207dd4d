//! `switchboard keys`: makes a pair of keys for signing releases. The secret key is for the operator who
//! releases, or for CI; nodes trust the public key (`release_keys`).

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use serde_json::json;

use super::{Failure, Output};
use switchboard_releases::signature;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The files: NAME.key, which only its owner may read, and NAME.pub.
    #[arg(default_value = "release")]
    name: PathBuf,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Failure> {
    let beside = |kind: &str| {
        let mut path = args.name.clone().into_os_string();
        path.push(kind);
        PathBuf::from(path)
    };
    let (secret_file, public_file) = (beside(".key"), beside(".pub"));
    let (secret, public) = signature::new_key();
    // Never overwrite a key: nothing could verify its signatures any more.
    let cannot = |path: &PathBuf, error: std::io::Error| {
        Failure::failed(format!("cannot write {}: {error}", path.display()))
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&secret_file)
        .map_err(|error| cannot(&secret_file, error))?;
    file.write_all(secret.as_bytes()).map_err(|error| cannot(&secret_file, error))?;
    fs::write(&public_file, &public).map_err(|error| cannot(&public_file, error))?;
    let text = format!(
        "{} signs (keep it secret), {} is what nodes trust: SWITCHBOARD_RELEASE_KEYS={}",
        secret_file.display(),
        public_file.display(),
        public_file.display()
    );
    let key = public.trim().rsplit(' ').next().unwrap_or_default();
    out.answer(&json!({ "secret": secret_file, "public": public_file, "key": key }), text);
    Ok(())
}
