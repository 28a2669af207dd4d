//! The frame trigger: frames whose type a manifest binds. The gateway puts the reply into the connection's
//! outlet and opens its subscriptions.

use std::sync::Arc;

use super::{Triggers, log_and_convert};
use switchboard_contract::frame::{Reply, Request};
use switchboard_contract::types::{Principal, Problem};
use switchboard_fanout::ConnectionInfo;
use switchboard_protocol::wire::problem::Code;
use switchboard_runtime::{Call, export};

impl Triggers {
    pub async fn frame(
        &self,
        info: &ConnectionInfo,
        caller: &Principal,
        frame_type: &str,
        payload: String,
    ) -> Result<Option<Reply>, Problem> {
        let bindings = self.registry.current();
        let Some(route) = bindings.frame(frame_type) else {
            return Err(Code::Malformed.problem("no handler takes frames of this type").field("type"));
        };
        let release = Arc::clone(route.entry.pick(&caller.user_id));
        let call = Call::new(Some(info.connection));
        let call_id = call.id.clone();
        let request = Request {
            id: call_id.to_string(),
            frame_type: route.canonical.to_owned(),
            alias: route.alias.map(str::to_owned),
            payload,
            caller: caller.clone(),
            connection: info.connection.to_string(),
        };
        drop(bindings);
        match self.runtime.call::<export::Frame>(&release, call, request).await {
            Ok(answer) => answer,
            Err(failure) => Err(log_and_convert(&release, &call_id, &failure)),
        }
    }
}
