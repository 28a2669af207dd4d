//! The outbox, for operators: how far its consumers are, and what they gave up.

use serde_json::json;
use tracing::{info, warn};
use uuid::Uuid;

use super::{Admin, Asked};
use crate::contract::types::Problem;
use crate::postgres::outbox;
use crate::releases::Load;
use crate::wire::http::Answer;
use crate::wire::problem::Code;

impl<L: Load> Admin<L> {
    pub(super) async fn consumers(&self, asked: &Asked) -> Result<Answer, Problem> {
        let consumers = outbox::lag(&self.postgres).await.map_err(unavailable)?;
        Ok(asked.json(&json!({ "consumers": consumers })))
    }

    pub(super) async fn failed_events(&self, asked: &Asked) -> Result<Answer, Problem> {
        if asked.parameter("state").is_some_and(|state| state != "failed") {
            return Err(Code::Invalid.problem("`state` is failed: others are not kept").field("state"));
        }
        let events = outbox::parked(&self.postgres).await.map_err(unavailable)?;
        Ok(asked.json(&json!({ "events": events })))
    }

    pub(super) async fn retry_event(&self, id: &str, asked: &Asked) -> Result<Answer, Problem> {
        let id = an_event(id)?;
        let consumers = outbox::replay(&self.postgres, id).await.map_err(unavailable)?;
        told(id, consumers, "is delivered again", asked)
    }

    pub(super) async fn drop_event(&self, id: &str, asked: &Asked) -> Result<Answer, Problem> {
        let id = an_event(id)?;
        let consumers = outbox::drop_parked(&self.postgres, id).await.map_err(unavailable)?;
        told(id, consumers, "was dropped", asked)
    }
}

fn told(id: Uuid, consumers: u64, what: &str, asked: &Asked) -> Result<Answer, Problem> {
    if consumers == 0 {
        return Err(no_such_event());
    }
    info!(request.id = %asked.id, by = %asked.by.name, event.id = %id, consumers, "a failed event {what}");
    Ok(asked.json(&json!({ "id": id, "consumers": consumers })))
}

fn an_event(id: &str) -> Result<Uuid, Problem> {
    Uuid::parse_str(id).map_err(|_| no_such_event())
}

fn no_such_event() -> Problem {
    Code::NotFound.problem("no consumer has given up such an event")
}

fn unavailable(error: sqlx::Error) -> Problem {
    warn!(%error, "an operator could not be told about the outbox");
    Code::Unavailable.problem("Postgres did not answer")
}
