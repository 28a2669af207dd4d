//! The timers of handlers for operators. Those that were parked are failed events too (`events`).

use serde_json::{Value, json};
use tracing::info;

use super::{Admin, AdminRequest};
use switchboard_contract::types::Problem;
use switchboard_http::answers::{self, Answer};
use switchboard_postgres as postgres;
use switchboard_protocol::wire::problem::Code;
use switchboard_runtime::Load;

impl<L: Load> Admin<L> {
    pub(super) async fn timers(&self, request: &AdminRequest) -> Result<Answer, Problem> {
        let timers = self.timers.listed(request.parameter("handler")).await.map_err(unavailable)?;
        Ok(request.json(&json!({ "timers": timers })))
    }

    /// `{"key": "…"}` cancels one timer of the handler, and `{"all": true}` all of them.
    pub(super) async fn cancel_timers(
        &self,
        handler: &str,
        request: AdminRequest,
    ) -> Result<Answer, Problem> {
        let (id, by) = (request.id.clone(), request.by.name.clone());
        let fields = request.fields().await?;
        let cancelled = match (fields.get("key"), fields.get("all")) {
            (Some(Value::String(key)), None) => {
                u64::from(self.timers.cancel(handler, key).await.map_err(unavailable)?)
            }
            (None, Some(Value::Bool(true))) => self.timers.cancel_all(handler).await.map_err(unavailable)?,
            _ => {
                return Err(Code::Invalid
                    .problem("the body has either `key`, a text, or `all`, which is true")
                    .field("key"));
            }
        };
        info!(request_id = %id, by, handler.name = %handler, cancelled, "an operator has cancelled timers of {handler}");
        Ok(answers::json(200, &json!({ "handler": handler, "cancelled": cancelled }), &id))
    }
}

fn unavailable(error: postgres::Error) -> Problem {
    super::failed(&error, "cannot read or change timers for an operator")
}
