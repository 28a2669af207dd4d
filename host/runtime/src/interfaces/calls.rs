//! `calls`: calls of other handlers that the manifest grants by name. The called handler runs in an instance
//! of its own, under its own grants and limits (`crate::nested`). Here the call is checked, and gets its
//! deadline, its depth and its cause.

use serde::Serialize;
use tokio::time::Instant;

use super::call::Function;
use super::{CallState, Terms};
use crate::Call;
use crate::export::Answered;
use crate::failure::{Failure, Kind};
use crate::nested::Others;
use switchboard_contract::call::Request;
use switchboard_contract::calls::{self, Error};
use switchboard_contract::types::Principal;
use switchboard_core::ids::RequestId;
use switchboard_core::limits;
use switchboard_telemetry::spans;

#[derive(Serialize)]
struct Args {
    handler: String,
    method: String,
    body: Vec<u8>,
}

impl calls::Host for CallState {
    async fn call(
        &mut self,
        handler: String,
        method: String,
        body: Vec<u8>,
    ) -> wasmtime::Result<Result<Vec<u8>, Error>> {
        let calling = Calling {
            terms: &self.terms,
            others: &self.others,
            principal: self.principal.as_ref(),
            id: &self.id,
            request: self.request.clone(),
            cause: self.middleware.span.as_ref().map(spans::ActiveSpan::context),
            deadline: self.deadline,
            depth: self.depth,
            in_transaction: self.transactions.is_open,
        };
        let live = |args: Args| Box::pin(calling.call(args));
        let args = Args { handler, method, body };
        let answer: Result<Answered, Error> =
            self.middleware.call_with(Function::CallsCall, args, live).await?;
        Ok(answer.map(|answered| answered.body))
    }
}

/// The call that calls another handler.
struct Calling<'a> {
    terms: &'a Terms,
    others: &'a Others,
    principal: Option<&'a Principal>,
    id: &'a str,
    request: Option<RequestId>,
    cause: Option<spans::Context>,
    deadline: Instant,
    depth: u8,
    in_transaction: bool,
}

impl Calling<'_> {
    async fn call(self, Args { handler, method, body }: Args) -> Result<Answered, Error> {
        check(&self.terms.grants.calls, &handler, body.len(), self.depth, self.in_transaction)?;
        let subject = self.principal.map_or(self.id, |principal| principal.user_id.as_str());
        let Some(callee) = self.others.find(&handler, subject) else {
            return Err(Error::Unavailable(format!("no handler `{handler}` runs here")));
        };
        if !callee.release.manifest.on.call.contains(&method) {
            return Err(Error::Refused(format!("`{handler}` has no method `{method}` (on.call)")));
        }
        let call = Call {
            request: self.request,
            cause: self.cause,
            deadline: Some(self.deadline.checked_sub(limits::CALL_RETURN_MARGIN).unwrap_or(self.deadline)),
            depth: self.depth + 1,
            secrets_of_callers: Some(self.terms.secrets.clone()).filter(|secrets| !secrets.is_empty()),
            ..Call::new(None)
        };
        let request = Request {
            id: call.id.to_string(),
            handler: self.terms.handler.clone(),
            method,
            body,
            caller: self.principal.cloned(),
        };
        match callee.call(call, request).await {
            Ok(Ok(answered)) => Ok(answered),
            Ok(Err(problem)) => Err(Error::Problem(problem)),
            Err(failure) => Err(error_of(&handler, &failure)),
        }
    }
}

/// Checks what is known before the called handler is looked up.
fn check(
    granted: &[String],
    handler: &str,
    bytes: usize,
    depth: u8,
    in_transaction: bool,
) -> Result<(), Error> {
    if !granted.iter().any(|granted| granted == handler) {
        return Err(Error::Refused(format!("a call of `{handler}` is not granted (grants.calls)")));
    }
    let most = limits::CALL_BODY_BYTES_MAX;
    if bytes > most {
        return Err(Error::Refused(format!("the body has {bytes} bytes; a call carries at most {most}")));
    }
    let deepest = limits::CALL_DEPTH_MAX;
    if depth >= deepest {
        return Err(Error::Refused(format!("handlers call each other at most {deepest} calls deep")));
    }
    // The transaction holds a connection to Postgres and locks. If the called handler needs one of them, both
    // wait until the deadline, and many such calls would take all connections of the node.
    if in_transaction {
        return Err(Error::Refused("a transaction is open; commit or drop it before the call".to_owned()));
    }
    Ok(())
}

/// The log has the reason of the failure, under the id of the called handler's call. The calling handler gets
/// its kind only.
fn error_of(handler: &str, failure: &Failure) -> Error {
    match failure.kind {
        Kind::Busy => Error::Busy,
        kind => Error::UnknownOutcome(format!("`{handler}` ended without an answer ({})", kind.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_granted_small_and_shallow_calls_pass() {
        let granted = ["directory".to_owned()];
        let refused = |handler: &str, bytes: usize, depth: u8, in_transaction: bool| match check(
            &granted,
            handler,
            bytes,
            depth,
            in_transaction,
        ) {
            Ok(()) => None,
            Err(Error::Refused(why)) => Some(why),
            Err(other) => panic!("{other:?}"),
        };
        let (most, deepest) = (limits::CALL_BODY_BYTES_MAX, limits::CALL_DEPTH_MAX);
        assert_eq!(refused("directory", most, deepest - 1, false), None);
        for (refusal, why) in [
            (refused("directories", 0, 0, false), "not granted"),
            (refused("directory", most + 1, 0, false), "1048577 bytes"),
            (refused("directory", 0, deepest, false), "at most 4 calls deep"),
            (refused("directory", 0, 0, true), "a transaction is open"),
        ] {
            assert!(refusal.as_ref().is_some_and(|refusal| refusal.contains(why)), "{why}: {refusal:?}");
        }
    }

    #[test]
    fn only_a_call_without_a_slot_is_known_to_have_done_nothing() {
        for kind in Kind::ALL {
            let error = error_of("directory", &Failure::new(kind, "a detail for operators"));
            match error {
                Error::Busy => assert_eq!(kind, Kind::Busy),
                Error::UnknownOutcome(why) => {
                    assert!(why.contains(kind.as_str()) && !why.contains("operators"), "{why}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
