//! Hooks: handlers that decide about an action before its handler gets it. They are called one after the
//! other, in the order of the routing table, and their time counts towards the deadline of the action. This
//! file knows no transport: `frame` and `http` pass the payload as JSON and put a changed one back.

mod payload;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::state::Triggers;
pub(super) use payload::{divide, join};
use switchboard_contract::before::{Decision, Request};
use switchboard_contract::types::{Principal, Problem};
use switchboard_core::ids::RequestId;
use switchboard_core::limits;
use switchboard_core::manifest::OnFailure;
use switchboard_protocol::wire::problem::Code;
use switchboard_releases::CallOrigin;
use switchboard_releases::registry::{Hook, RoutingTable};
use switchboard_runtime::{Call, LoadedRelease, export};
use switchboard_telemetry::spans;

/// The hooks of one action, with their releases pinned for one request.
pub(super) struct PinnedHooks {
    action: String,
    hooks: Vec<PinnedHook>,
}

struct PinnedHook {
    release: Arc<LoadedRelease>,
    on_failure: OnFailure,
}

/// The bounds and the span of an action that has hooks, from its begin to the answer of its handler.
pub(super) struct Action<'a> {
    triggers: &'a Triggers,
    pinned: PinnedHooks,
    deadline: Instant,
    begun: std::time::Instant,
    span: Option<spans::ActiveSpan>,
}

impl PinnedHooks {
    /// Returns `None` for an action without hooks. Then it costs one look-up.
    pub(super) fn of(bindings: &RoutingTable, action: &str, origin: &CallOrigin<'_>) -> Option<Self> {
        let hooks = bindings.hooks(action);
        if hooks.is_empty() {
            return None;
        }
        let pin = |hook: &Hook| PinnedHook {
            release: Arc::clone(hook.entry.pick_for(origin)),
            on_failure: hook.on_failure,
        };
        Some(Self { action: action.to_owned(), hooks: hooks.iter().map(pin).collect() })
    }

    /// Begins the action, whose handler has so many milliseconds, hooks included.
    pub(super) fn begin<'a>(
        self,
        triggers: &'a Triggers,
        deadline_ms: u64,
        cause: Option<spans::Context>,
    ) -> Action<'a> {
        Action {
            triggers,
            pinned: self,
            deadline: Instant::now() + Duration::from_millis(deadline_ms),
            begun: std::time::Instant::now(),
            span: triggers.tracer.begin(cause),
        }
    }
}

impl Action<'_> {
    /// Calls the hooks. Returns the payload that the handler must get, if a hook has changed it. `check`
    /// returns the rule of the transport that a changed payload breaks.
    ///
    /// # Errors
    /// The problem for the client: a hook refused the action, or a hook that closes has failed.
    pub(super) async fn decide(
        &self,
        request: &RequestId,
        caller: Option<&Principal>,
        payload: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Result<Option<String>, Problem> {
        let mut changed: Option<String> = None;
        for PinnedHook { release, on_failure } in &self.pinned.hooks {
            let mut call = Call { request: Some(request.clone()), ..Call::new(None) };
            self.bound(&mut call);
            call.deadline = Some(hook_deadline(Instant::now(), self.deadline));
            let input = Request {
                id: call.id.to_string(),
                action: self.pinned.action.clone(),
                caller: caller.cloned(),
                payload: changed.as_deref().unwrap_or(payload).to_owned(),
            };
            // The runtime has logged a call without an answer.
            let decision = self.triggers.runtime.call::<export::Before>(release, call, input).await;
            match decision {
                Ok(Decision::Allow) => continue,
                Ok(Decision::Refuse(problem)) => return Err(problem),
                Ok(Decision::Change(payload)) => match check(&payload) {
                    Ok(()) => {
                        changed = Some(payload);
                        continue;
                    }
                    Err(rule) => self.log_broken_rule(release, request, &rule),
                },
                Err(_) => {}
            }
            self.count_failure(release, *on_failure);
            if *on_failure == OnFailure::Closed {
                return Err(closed());
            }
        }
        Ok(changed)
    }

    /// Makes a call a part of the action: the handler's call, or that of a hook.
    pub(super) fn bound(&self, call: &mut Call) {
        call.deadline = Some(self.deadline);
        call.cause = self.span.as_ref().map(spans::ActiveSpan::context);
    }

    fn log_broken_rule(&self, release: &LoadedRelease, request: &RequestId, rule: &str) {
        warn!(
            handler.name = release.name(),
            handler.release = release.digest.short(),
            request_id = &**request,
            action = self.pinned.action,
            "{} changed a payload against the rules, so its `on_failure` decides whether the action is done: \
             {rule}",
            release.name(),
        );
    }

    /// Its labels come from manifests only, so there are few.
    fn count_failure(&self, release: &LoadedRelease, on_failure: OnFailure) {
        let outcome = match on_failure {
            OnFailure::Closed => "refused",
            OnFailure::Open => "allowed",
        };
        metrics::counter!(
            "switchboard_hook_failures_total",
            "handler" => release.name().to_owned(),
            "action" => self.pinned.action.clone(),
            "outcome" => outcome,
        )
        .increment(1);
    }
}

/// The span ends with the action, also when the client is gone before its answer.
impl Drop for Action<'_> {
    fn drop(&mut self) {
        if let Some(span) = &self.span {
            let attributes = vec![("action", self.pinned.action.clone())];
            let name = format!("action {}", self.pinned.action);
            span.end(name, spans::Kind::Server, self.begun, attributes, false);
        }
    }
}

/// Half of the time that the action has left, and at most [`limits::HOOK_DEADLINE_MAX`].
fn hook_deadline(now: Instant, deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(now);
    now + (left / 2).min(limits::HOOK_DEADLINE_MAX)
}

/// The answer when a hook that closes has failed. Nothing was done.
fn closed() -> Problem {
    Code::Unavailable
        .problem("a check of this request failed, so nothing was done; try again")
        .retry_after(limits::CALL_RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_hooks_leave_time_for_the_handler() {
        let now = Instant::now();
        let after = |ms: u64| now + Duration::from_millis(ms);
        assert_eq!(hook_deadline(now, after(600)), after(300));
        assert_eq!(hook_deadline(now, after(60_000)), now + limits::HOOK_DEADLINE_MAX);
        // The deadline has passed: the hook ends at once.
        assert_eq!(hook_deadline(after(5), now), after(5));
        // As many hooks as one action may have, all slow.
        let deadline = after(1000);
        let ended = (0..limits::HOOKS_PER_ACTION_MAX).fold(now, |now, _| hook_deadline(now, deadline));
        assert!(deadline - ended > Duration::from_millis(3), "{:?}", deadline - ended);
    }

    #[test]
    fn a_failed_check_may_be_tried_again() {
        let problem = closed();
        assert_eq!((problem.status, problem.code.as_str()), (503, "unavailable"));
        assert!(problem.retryable());
    }
}
