//! The outbox for operators: how far its consumers are, and the events that they gave up.

use serde_json::json;
use tracing::info;
use uuid::Uuid;

use super::{Admin, AdminRequest};
use switchboard_contract::types::Problem;
use switchboard_http::answers::Answer;
use switchboard_postgres as postgres;
use switchboard_protocol::wire::problem::Code;
use switchboard_runtime::Load;

impl<L: Load> Admin<L> {
    pub(super) async fn consumers(&self, request: &AdminRequest) -> Result<Answer, Problem> {
        let consumers = self.outbox.lag().await.map_err(unavailable)?;
        Ok(request.json(&json!({ "consumers": consumers })))
    }

    pub(super) async fn failed_events(&self, request: &AdminRequest) -> Result<Answer, Problem> {
        if request.parameter("state").is_some_and(|state| state != "failed") {
            return Err(Code::Invalid
                .problem("`state` must be `failed`: other events are not listed")
                .field("state"));
        }
        let events = self.outbox.parked().await.map_err(unavailable)?;
        Ok(request.json(&json!({ "events": events })))
    }

    pub(super) async fn retry_event(&self, id: &str, request: &AdminRequest) -> Result<Answer, Problem> {
        let id = event_id(id)?;
        let consumers = self.outbox.replay(id).await.map_err(unavailable)?;
        answer_changed(id, consumers, "is delivered again", request)
    }

    pub(super) async fn drop_event(&self, id: &str, request: &AdminRequest) -> Result<Answer, Problem> {
        let id = event_id(id)?;
        let consumers = self.outbox.drop_parked(id).await.map_err(unavailable)?;
        answer_changed(id, consumers, "was dropped", request)
    }
}

fn answer_changed(id: Uuid, consumers: u64, what: &str, request: &AdminRequest) -> Result<Answer, Problem> {
    if consumers == 0 {
        return Err(no_such_event());
    }
    info!(request_id = %request.id, by = %request.by.name, event.id = %id, consumers, "parked event: {what}");
    Ok(request.json(&json!({ "id": id, "consumers": consumers })))
}

fn event_id(id: &str) -> Result<Uuid, Problem> {
    Uuid::parse_str(id).map_err(|_| no_such_event())
}

fn no_such_event() -> Problem {
    Code::NotFound.problem("no consumer has given up an event with this id")
}

fn unavailable(error: postgres::Error) -> Problem {
    super::failed(&error, "cannot read the outbox for an operator")
}
