//! `switchboard sign`: signs release files. It writes the signature beside the file, where `deploy` finds it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use serde_json::json;

use super::{Failure, Output};
use switchboard_core::ids::Digest;
use switchboard_releases::signature::{self, Signature};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Release files; the signature of each goes to FILE.sig.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The secret key from `switchboard keys`.
    #[arg(long, value_name = "FILE", default_value = "release.key")]
    key: PathBuf,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Failure> {
    let key = secret(&args.key)?;
    let (mut documents, mut lines) = (Vec::new(), Vec::new());
    for file in &args.files {
        let bytes = fs::read(file)
            .map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))?;
        let digest = Digest::of(&bytes);
        let mine = Signature::sign(digest, &key);
        // Keep signatures of other keys. Signatures of an older content are useless.
        let mut all = beside(file)?;
        all.retain(|other| other.is_of(digest) && other.key() != mine.key());
        all.push(mine);
        let to = place(file);
        let text: String = all.iter().map(|signature| format!("{signature}\n")).collect();
        fs::write(&to, text)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", to.display())))?;
        lines.push(format!("{} ({}) is signed: {}", file.display(), digest.short(), to.display()));
        documents.push(json!({ "file": file, "release": digest, "signature": to }));
    }
    out.answer(&json!({ "signed": documents }), lines.join("\n"));
    Ok(())
}

/// Reads the secret key that `switchboard keys` wrote.
pub(crate) fn secret(path: &Path) -> Result<SigningKey, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::failed(format!("cannot read {}: {error}", path.display())))?;
    signature::parse_secret(&text).ok_or_else(|| {
        Failure::failed(format!("{} holds no secret key of `switchboard keys`", path.display()))
    })
}

/// The signatures of a release file; none if FILE.sig does not exist.
pub(crate) fn beside(file: &Path) -> Result<Vec<Signature>, Failure> {
    let path = place(file);
    match fs::read_to_string(&path) {
        Ok(text) => Signature::parse_all(&text).ok_or_else(|| {
            Failure::failed(format!("{} holds something else than signatures", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Failure::failed(format!("cannot read {}: {error}", path.display()))),
    }
}

fn place(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".sig");
    path.into()
}
