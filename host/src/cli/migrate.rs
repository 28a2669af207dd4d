//! `switchboard migrate`: bring the database to the shape of this version. Doing it again changes nothing.

use serde_json::json;

use super::{Failure, Output};
use crate::config::Config;
use crate::postgres::migrate;

pub async fn run(config: &Config, out: &Output) -> Result<(), Failure> {
    migrate::run(config).await?;
    out.answer(&json!({ "migrated": true }), "the database is up to date");
    Ok(())
}
