//! The frame trigger: frames whose type a manifest binds. The gateway puts the reply into the connection's
//! outlet and opens its subscriptions.

use std::sync::Arc;

use super::hooks::PinnedHooks;
use super::state::Triggers;
use crate::calls::FrameIn;
use switchboard_contract::frame::{Reply, Request};
use switchboard_contract::types::Problem;
use switchboard_protocol::wire::problem::Code;
use switchboard_releases::CallOrigin;
use switchboard_runtime::{Call, export};

impl Triggers {
    pub(super) async fn answer_frame(&self, frame: FrameIn<'_>) -> Result<Option<Reply>, Problem> {
        let FrameIn { id, frame_type, payload, caller, groups, tester, connection, mut rank } = frame;
        let bindings = self.registry.current();
        let Some(route) = bindings.frame(frame_type) else {
            return Err(Code::Malformed.problem("no handler takes frames of this type").field("type"));
        };
        self.touches.acts(connection, route.canonical);
        let origin = CallOrigin { subject: &caller.user_id, roles: &caller.roles, groups, tester };
        let release = Arc::clone(route.entry.pick_for(&origin));
        let is_pipelined = release.manifest.is_pipelined(route.canonical);
        let mut call = Call { request: Some(id.clone()), ..Call::new(Some(connection)) };
        let hooks = PinnedHooks::of(&bindings, route.canonical, &origin);
        let mut request = Request {
            id: call.id.to_string(),
            frame_type: route.canonical.to_owned(),
            alias: route.alias.map(str::to_owned),
            payload,
            caller: caller.clone(),
            connection: connection.to_string(),
        };
        drop(bindings);
        // Without an ordered point, a call begins after the end of the call before it, and the next call
        // after its end.
        let _until_the_end = if is_pipelined {
            call.rank = Some(rank);
            None
        } else {
            rank.end_before().await;
            Some(rank)
        };
        let deadline_ms = release.manifest.limits.deadline_ms;
        let action = hooks.map(|hooks| hooks.begin(self, deadline_ms, None));
        if let Some(action) = &action {
            // Boxed, because a frame without hooks must not carry the memory of these.
            let decided = Box::pin(action.decide(id, Some(caller), &request.payload, |_| Ok(())));
            let changed = decided.await?;
            if let Some(changed) = changed {
                request.payload = changed;
            }
            action.bound(&mut call);
        }
        match self.runtime.call::<export::Frame>(&release, call, request).await {
            Ok(answer) => answer,
            Err(failure) => Err(failure.problem()),
        }
    }
}
