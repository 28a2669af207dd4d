//! Watching for operators: live calls and log lines of all nodes (`switchboard tail`). A request opens a
//! watch, and each further one takes the events since the last. An operator who stops asking ends the watch.
//! The listener streams nothing, so every answer keeps its bounds.

use serde_json::{Value, json};
use tracing::info;
use uuid::Uuid;

use super::api::unavailable;
use super::{Admin, AdminRequest};
use switchboard_contract::types::Problem;
use switchboard_core::ids::UserId;
use switchboard_core::limits;
use switchboard_fanout::{TooManyWatches, WatchFilter, Watched};
use switchboard_http::answers::Answer;
use switchboard_protocol::wire::problem::Code;
use switchboard_runtime::{Load, Trigger};

impl<L: Load> Admin<L> {
    /// `?watch=ID` takes events, and waits for the first up to [`limits::WATCH_TAKE_WAIT`]. Without it, opens
    /// a watch with the filter of the query: `handler`, `user`, `trigger`, `failed`.
    pub(super) async fn tail(&self, request: &AdminRequest) -> Result<Answer, Problem> {
        let watches = self.hub.watches();
        let Some(watch) = request.parameter("watch") else {
            let filter = self.filter(request).await?;
            let watch = watches.open(filter.clone()).map_err(|TooManyWatches| {
                let detail = format!("operators have {} watches on this node already", limits::WATCHERS_MAX);
                Code::Unavailable.problem(detail).retry_after(limits::RETRY_AFTER)
            })?;
            info!(request_id = %request.id, by = request.by.name, ?filter, "an operator watches the fleet");
            return Ok(request.json(&answer(watch, Watched::default())));
        };
        let unknown =
            || Code::NotFound.problem("this node has no such watch (any more): open one without `watch`");
        let watch = Uuid::parse_str(watch).map_err(|_| unknown())?;
        let watched = watches.take(watch, limits::WATCH_TAKE_WAIT).await.ok_or_else(unknown)?;
        Ok(request.json(&answer(watch, watched)))
    }

    async fn filter(&self, request: &AdminRequest) -> Result<WatchFilter, Problem> {
        const NAMES: [&str; 4] = ["handler", "user", "trigger", "failed"];
        let wrong = |field: &str, rule: String| Err(Code::Invalid.problem(rule).field(field));
        if let Some((name, _)) = request.query.iter().find(|(name, _)| !NAMES.contains(&name.as_str())) {
            return wrong(name, format!("`{name}` is not one of {}", NAMES.join(", ")));
        }
        let text = |name| request.parameter(name).map(str::to_owned);
        let (handler, user, trigger) = (text("handler"), text("user"), text("trigger"));
        if let Some(name) = handler.as_deref() {
            let stored = self.rollout.repository().releases(Some(name), false).await.map_err(unavailable)?;
            if stored.is_empty() {
                return wrong("handler", format!("no release of a handler `{name}` is stored in this fleet"));
            }
        }
        if user.as_deref().is_some_and(|user| UserId::parse(user).is_none()) {
            return wrong("user", "`user` is not a user id".to_owned());
        }
        let triggers = Trigger::ALL.map(Trigger::as_str);
        if trigger.as_deref().is_some_and(|trigger| !triggers.contains(&trigger)) {
            return wrong("trigger", format!("`trigger` is not one of {}", triggers.join(", ")));
        }
        Ok(WatchFilter { handler, user, trigger, failed: request.flag("failed")? })
    }
}

/// An event that is not JSON came from no node of this version; it counts as dropped.
fn answer(watch: Uuid, watched: Watched) -> Value {
    let all = watched.events.len();
    let read = |event: &[u8]| serde_json::from_slice::<Value>(event).ok();
    let events: Vec<Value> = watched.events.iter().filter_map(|event| read(event)).collect();
    let dropped = watched.dropped + (all - events.len()) as u64;
    json!({ "watch": watch.to_string(), "events": events, "dropped": dropped })
}
