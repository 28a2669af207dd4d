//! The common arguments and the request of the commands that change a running handler: `promote`, `rollback`,
//! `retire` and `unshadow`.

use serde_json::json;

use super::client::{Client, Where};
use super::{Failure, Output, deploy, page};
use switchboard_core::config::Config;
use switchboard_releases::Outcome;

#[derive(clap::Args)]
pub(crate) struct Change {
    /// The reason, for the history.
    #[arg(long)]
    note: Option<String>,
    #[command(flatten)]
    at: Where,
}

impl Change {
    /// Asks the fleet for this action on a handler, and prints the outcome. `release` is the beginning of a
    /// digest.
    pub(crate) async fn ask(
        &self,
        action: &str,
        handler: &str,
        release: Option<&str>,
        config: &Config,
        out: &Output,
    ) -> Result<(), Failure> {
        let path = format!("/admin/v1/handlers/{}/{action}", page::escape(handler));
        let body = json!({ "release": release, "note": self.note });
        let outcome: Outcome = Client::of(config, &self.at).post(&path, &body).await?;
        out.answer(&outcome, deploy::sentence(&outcome));
        if outcome.complete { Ok(()) } else { Err(Failure::Answered) }
    }
}
