//! `switchboard verify`: checks that release files are signed by a trusted key. Exit code 1 if one is not.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::{Failure, Output, sign};
use switchboard_core::config::Config;
use switchboard_core::ids::Digest;
use switchboard_releases::signature::{self, Trust};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The release files, each with its FILE.sig.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// A public key in hex, or a file with it; by default those of the configuration (`release_keys`).
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
}

pub(crate) fn run(args: Args, config: Config, out: &Output) -> Result<(), Failure> {
    let release_keys = if args.key.is_empty() { config.release_keys.clone() } else { args.key };
    let trust = Trust::of(&Config { release_keys, ..config })?;
    if !trust.is_needed() {
        return Err(Failure::Usage("no key to verify with: --key, or `release_keys` of the settings".into()));
    }
    let (mut documents, mut lines, mut all_well) = (Vec::new(), Vec::new(), true);
    for file in &args.files {
        let bytes = fs::read(file)
            .map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))?;
        let digest = Digest::of(&bytes);
        let signatures = sign::beside(file)?;
        let good: Vec<_> = signatures
            .iter()
            .filter(|one| trust.accepts(digest, std::slice::from_ref(one)))
            .map(|one| signature::public_line(one.key()).trim().to_owned())
            .collect();
        all_well &= !good.is_empty();
        lines.push(match (&good[..], signatures.len()) {
            ([], 0) => format!("{} ({}) is not signed", file.display(), digest.short()),
            ([], count) => format!(
                "{} ({}) has {count} signatures, none of them good and by a key that counts",
                file.display(),
                digest.short()
            ),
            (keys, _) => format!("{} ({}) is signed by {}", file.display(), digest.short(), keys.join(", ")),
        });
        documents.push(json!({ "file": file, "release": digest, "signed_by": good }));
    }
    out.answer(&json!({ "verified": documents, "good": all_well }), lines.join("\n"));
    if all_well { Ok(()) } else { Err(Failure::Answered) }
}
