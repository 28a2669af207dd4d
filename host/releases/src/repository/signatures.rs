//! Signatures of releases, stored beside the files. A signature may arrive before its file, and further
//! signatures later.

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::{Repository, RepositoryError, failed_to};
use crate::signature::Signature;
use switchboard_core::ids::Digest;

impl Repository {
    /// Stores signatures. A key signs a release once; a second time changes nothing.
    pub async fn keep_signatures(
        &self,
        digest: Digest,
        signatures: &[Signature],
        by: &str,
    ) -> Result<(), RepositoryError> {
        for signature in signatures {
            let (key, bytes) = signature.bytes();
            sqlx::query(
                "insert into switchboard.signatures (digest, key, signature, made_by) values ($1, $2, $3, $4)
                 on conflict (digest, key) do nothing",
            )
            .bind(digest.bytes().as_slice())
            .bind(key.as_slice())
            .bind(bytes.as_slice())
            .bind(by)
            .execute(&self.pool)
            .await
            .map_err(failed_to("store a signature"))?;
        }
        Ok(())
    }

    /// Returns the signatures of these keys. Signatures of other keys do not matter.
    pub async fn signatures(
        &self,
        digest: Digest,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Signature>, RepositoryError> {
        let rows = sqlx::query(
            "select key, signature from switchboard.signatures where digest = $1 and key = any($2)",
        )
        .bind(digest.bytes().as_slice())
        .bind(keys)
        .try_map(|row: PgRow| Ok((row.try_get("key")?, row.try_get("signature")?)))
        .fetch_all(&self.pool)
        .await
        .map_err(failed_to("read the signatures of a release"))?;
        // A signature that is not well formed is ignored.
        let parse = |(key, signature): (Vec<u8>, Vec<u8>)| Signature::from_bytes(&key, &signature);
        Ok(rows.into_iter().filter_map(parse).collect())
    }
}
