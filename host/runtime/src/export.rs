//! Triggers as types: each export of the contract is an [`Export`], which joins its input, its output and its
//! rules. A trigger calls `runtime.call::<Http>(…)` and gets the output of `Http`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wasmtime::Store;

use super::answer;
use super::call_log::Caller;
use super::release::Exports;
use super::trigger::Trigger;
use crate::interfaces::CallState;
use switchboard_contract::types::{Principal, Problem, Push};
use switchboard_contract::{before, call, connection, connection_batch, event, frame, http, schedule, timer};
use switchboard_core::limits;
use switchboard_telemetry::spans;

/// Statuses from here on are errors of the handler.
const ERROR_STATUS_MIN: u16 = 500;

/// One export of a handler. Only the types of this file implement it, because `Calls` uses types that are
/// private to this crate.
pub trait Export: Calls {
    const TRIGGER: Trigger;
    const NAME: &'static str = Self::TRIGGER.as_str();
}

/// The part of an export that only this crate uses.
pub trait Calls: Send + Sync + 'static {
    type Input: Clone + Serialize + DeserializeOwned + Send + Sync + 'static;
    type Output: std::fmt::Debug + Serialize + Send + 'static;

    const SPAN_KIND: spans::Kind = spans::Kind::Internal;
    /// Whether a long call continues on a background thread. Calls with events do not: there are few of them,
    /// one for each consumer of this node, and deliveries to clients wait for them. Neither do calls for many
    /// new connections: two for each release, and all these clients wait.
    const MAY_MOVE_TO_BACKGROUND: bool = true;
    /// The consequence of a call without an answer, for the log.
    const WITHOUT_ANSWER: &'static str = "the caller gets a problem and no answer";

    /// Calls the export in a fresh instance.
    fn call(
        store: &mut Store<CallState>,
        exports: &Exports,
        input: &Self::Input,
    ) -> impl Future<Output = wasmtime::Result<Self::Output>> + Send;

    /// Passes the sentences of the output that the host logs, stores or cuts to `conceal`, before they are
    /// cut. Bodies, frames and headers are the handler's own affair.
    fn conceal(_: &mut Self::Output, _: impl Fn(&mut String)) {}

    /// Checks the output, and cuts its texts.
    ///
    /// # Errors
    /// The rule that the output breaks.
    fn settle(output: &mut Self::Output) -> Result<(), String>;

    /// Returns true when the output reports an error of the handler.
    fn is_error(output: &Self::Output) -> bool;

    /// Returns the caller, for the log of calls.
    fn caller(_: &Self::Input) -> Caller<'_> {
        Caller::Host
    }

    /// Returns the client whose request the call answers. The handlers that it calls get this principal.
    fn principal(_: &Self::Input) -> Option<&Principal> {
        None
    }

    /// Returns the caller's span, if the input names one.
    fn cause(_: &Self::Input) -> Option<spans::Context> {
        None
    }
}

/// Runs `$body` with the type `$export` of the trigger with this name, or returns `$unknown`.
macro_rules! with_export {
    ($name:expr, $export:ident => $body:expr, $unknown:expr) => {
        with_export!(@arms $name, $export, $body, $unknown,
            Http Frame Opened OpenedBatch Closed ClosedBatch Touched Missed Schedule Event Before Called Timer)
    };
    (@arms $name:expr, $export:ident, $body:expr, $unknown:expr, $($known:ident)*) => {
        match $name {
            $(name if name == <$crate::export::$known as $crate::export::Export>::NAME => {
                type $export = $crate::export::$known;
                $body
            })*
            _ => $unknown,
        }
    };
}
pub(super) use with_export;

#[derive(Debug, thiserror::Error)]
#[error("the release does not bind `on.{0}`")]
pub(super) struct NotExported(&'static str);

/// Makes a fresh instance for one export of the release.
macro_rules! instance {
    ($store:ident, $exports:ident, $export:ident) => {
        match &$exports.$export {
            Some(pre) => pre.instantiate_async(&mut *$store).await?,
            None => return Err(NotExported(stringify!($export)).into()),
        }
    };
}

/// Conceals only texts that will be cut, because a recording conceals the others whole. A problem may repeat
/// what a client sent, and a placeholder would tell that client that it has guessed a value.
fn conceal_problem(problem: &mut Problem, conceal: &impl Fn(&mut String)) {
    let texts = [Some(&mut problem.detail), problem.field.as_mut()];
    let is_cut = |text: &&mut String| text.len() > limits::REASON_BYTES_MAX;
    texts.into_iter().flatten().filter(is_cut).for_each(conceal);
}

fn is_error(problem: &Problem) -> bool {
    problem.status >= ERROR_STATUS_MIN
}

fn of_client(principal: Option<&Principal>) -> Caller<'_> {
    principal.map_or(Caller::Anonymous, |principal| Caller::User(&principal.user_id))
}

/// An HTTP request.
pub enum Http {}

impl Export for Http {
    const TRIGGER: Trigger = Trigger::Http;
}

impl Calls for Http {
    type Input = http::Request;
    type Output = Result<http::Response, Problem>;

    const SPAN_KIND: spans::Kind = spans::Kind::Server;

    async fn call(
        store: &mut Store<CallState>,
        exports: &Exports,
        request: &http::Request,
    ) -> wasmtime::Result<Self::Output> {
        instance!(store, exports, http).switchboard_host_http().call_handle(store, request).await
    }

    fn conceal(output: &mut Self::Output, conceal: impl Fn(&mut String)) {
        output.as_mut().err().into_iter().for_each(|problem| conceal_problem(problem, &conceal));
    }

    fn settle(output: &mut Self::Output) -> Result<(), String> {
        answer::settle_or_problem(output, answer::response)
    }

    fn is_error(output: &Self::Output) -> bool {
        output.as_ref().map_or_else(is_error, |response| response.status >= ERROR_STATUS_MIN)
    }

    fn caller(request: &http::Request) -> Caller<'_> {
        of_client(request.caller.as_ref())
    }

    fn principal(request: &http::Request) -> Option<&Principal> {
        request.caller.as_ref()
    }

    fn cause(request: &http::Request) -> Option<spans::Context> {
        let header = request.headers.iter().find(|(name, _)| name == "traceparent");
        header.and_then(|(_, value)| spans::of_header(value))
    }
}

/// A frame of a connection.
pub enum Frame {}

impl Export for Frame {
    const TRIGGER: Trigger = Trigger::Frame;
}

impl Calls for Frame {
    type Input = frame::Request;
    type Output = Result<Option<frame::Reply>, Problem>;

    const SPAN_KIND: spans::Kind = spans::Kind::Server;

    async fn call(
        store: &mut Store<CallState>,
        exports: &Exports,
        request: &frame::Request,
    ) -> wasmtime::Result<Self::Output> {
        // Only while its frame is handled, a connection can subscribe.
        let state = store.data_mut();
        state.gates = state.connection.filter(|_| !state.overlaps);
        instance!(store, exports, frame).switchboard_host_frame().call_handle(store, request).await
    }

    fn conceal(output: &mut Self::Output, conceal: impl Fn(&mut String)) {
        output.as_mut().err().into_iter().for_each(|problem| conceal_problem(problem, &conceal));
    }

    fn settle(output: &mut Self::Output) -> Result<(), String> {
        answer::settle_or_problem(output, |reply| reply.as_ref().map_or(Ok(()), answer::reply))
    }

    fn is_error(output: &Self::Output) -> bool {
        output.as_ref().is_err_and(is_error)
    }

    fn caller(request: &frame::Request) -> Caller<'_> {
        Caller::User(&request.caller.user_id)
    }

    fn principal(request: &frame::Request) -> Option<&Principal> {
        Some(&request.caller)
    }
}

/// A connection has opened.
pub enum Opened {}

impl Export for Opened {
    const TRIGGER: Trigger = Trigger::Opened;
}

impl Calls for Opened {
    type Input = connection::Opened;
    type Output = Result<Vec<Push>, Problem>;

    async fn call(
        store: &mut Store<CallState>,
        exports: &Exports,
        opened: &connection::Opened,
    ) -> wasmtime::Result<Self::Output> {
        instance!(store, exports, connection).switchboard_host_connection().call_open(store, opened).await
    }

    fn conceal(output: &mut Self::Output, conceal: impl Fn(&mut String)) {
        output.as_mut().err().into_iter().for_each(|problem| conceal_problem(problem, &conceal));
    }

    fn settle(output: &mut Self::Output) -> Result<(), String> {
        answer::settle_or_problem(output, |pushes| answer::opened(pushes))
    }

    fn is_error(output: &Self::Output) -> bool {
        output.as_ref().is_err_and(is_error)
    }

    fn caller(opened: &connection::Opened) -> Caller<'_> {
        Caller::User(&opened.caller.user_id)
    }

    fn principal(opened: &connection::Opened) -> Option<&Principal> {
        Some(&opened.caller)
    }
}

/// A connection has closed.
pub enum Closed {}

impl Export for Closed {
    const TRIGGER: Trigger = Trigger::Closed;
}

impl Calls for Closed {
    type Input = connection::Closed;
    type Output = ();

    async fn call(
        store: &mut Store<CallState>,
        exports: &Exports,
        closed: &connection::Closed,
    ) -> wasmtime::Result<()> {
        instance!(store, exports, connection).switchboard_host_connection().call_close(store, closed).await
    }

    fn settle((): &mut ()) -> Result<(), String> {
        Ok(())
    }

    fn is_error((): &()) -> bool {
        false
    }

    fn caller(closed: &connection::Closed) -> Caller<'_> {
        Caller::User(&closed.user_id)
    }
}

/// Connections have opened: one call for all of them.
pub enum OpenedBatch {}

/// The arguments of `connection-batch.open`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Openings {
    pub node: String,
    pub opened: Vec<connection_batch::Opened>,
}

impl Export for OpenedBatch {
    const TRIGGER: Trigger = Trigger::OpenedBatch;
}

impl Calls for OpenedBatch {
    type Input = Openings;
    type Output = Vec<connection_batch::Opening>;

    const MAY_MOVE_TO_BACKGROUND: bool = false;

    async fn call(
        store: &mut Store<CallState>,
        exports: &Exports,
        Openings { node, opened }: &Openings,
    ) -> wasmtime::Result<Self::Output> {
        let guest = instance!(store, exports, connection_batch);
        guest.switchboard_host_connection_batch().call_open(store, node, opened).await
    }

    fn conceal(openings: &mut Self::Output, conceal: impl Fn(&mut String)) {
        for opening in openings {
            if let connection_batch::Opening::Failed(problem) = opening {
                conceal_problem(problem, &conceal);
            }
        }
    }

    fn settle(openings: &mut Self::Output) -> Result<(), String> {
        answer::openings(openings)
    }

    fn is_error(openings: &Self::Output) -> bool {
        let failed = |opening: &_| match opening {
            connection_batch::Opening::Failed(problem) => is_error(problem),
            connection_batch::Opening::Pushes(_) | connection_batch::Opening::Alone => false,
        };
        openings.iter().any(failed)
    }

    fn caller(input: &Openings) -> Caller<'_> {
        match &input.opened[..] {
            [one] => Caller::User(&one.caller.user_id),
            _ => Caller::Batch,
        }
    }
}

/// Connections have closed: one call for all of them.
pub enum ClosedBatch {}

/// The arguments of `connection-batch.close`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Closings {
    pub node: String,
    pub closed: Vec<connection_batch::Closed>,
}

impl Export for ClosedBatch {
    const TRIGGER: Trigger = Trigger::ClosedBatch;
}

impl Calls for ClosedBatch {
    type Input = Closings;
    type Output = ();

    async fn call(
        store: &mut Store<CallState>,
        exports: &Exports,
        Closings { node, closed }: &Closings,
    ) -> wasmtime::Result<()> {
        let guest = instance!(store, exports, connection_batch);
        guest.switchboard_host_connection_batch().call_close(store, node, closed).await
    }

    fn settle((): &mut ()) -> Result<(), String> {
        Ok(())
    }

    fn is_error((): &()) -> bool {
        false
    }

    fn caller(input: &Closings) -> Caller<'_> {
        match &input.closed[..] {
            [one] => Caller::User(&one.user_id),
            _ => Caller::Batch,
        }
    }
}

/// Connections have sent frames since the last report.
pub enum Touched {}

/// The arguments of `connection.touched`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Touches {
    pub node: String,
    pub touches: Vec<connection::Touch>,
}

impl Export for Touched {
    const TRIGGER: Trigger = Trigger::Touched;
}

impl Calls for Touched {
    type Input = Touches;
    type Output = ();

    async fn call(
        store: &mut Store<CallState>,
        exports: &Exports,
        Touches { node, touches }: &Touches,
    ) -> wasmtime::Result<()> {
        let guest = instance!(store, exports, connection);
        guest.switchboard_host_connection().call_touched(store, node, touches).await
    }

    fn settle((): &mut ()) -> Result<(), String> {
        Ok(())
    }

    fn is_error((): &()) -> bool {
        false
    }
}

/// Subscribers of an address lack pushes.
pub enum Missed {}

impl Export for Missed {
    const TRIGGER: Trigger = Trigger::Missed;
}

impl Calls for Missed {
    type Input = connection::Gap;
    type Output = Result<connection::Page, Problem>;

    async fn call(
        store: &mut Store<CallState>,
        exports: &Exports,
        gap: &connection::Gap,
    ) -> wasmtime::Result<Self::Output> {
        instance!(store, exports, connection).switchboard_host_connection().call_missed(store, gap).await
    }

    fn conceal(output: &mut Self::Output, conceal: impl Fn(&mut String)) {
        output.as_mut().err().into_iter().for_each(|problem| conceal_problem(problem, &conceal));
    }

    fn settle(output: &mut Self::Output) -> Result<(), String> {
        // The hub cuts a page that is too long, and asks for the rest again.
        answer::settle_or_problem(output, |page| page.pushes.iter().try_for_each(answer::push))
    }

    fn is_error(output: &Self::Output) -> bool {
        output.as_ref().is_err_and(is_error)
    }
}

/// A schedule is due.
pub enum Schedule {}

impl Export for Schedule {
    const TRIGGER: Trigger = Trigger::Schedule;
}

impl Calls for Schedule {
    type Input = schedule::Tick;
    type Output = Result<(), String>;

    async fn call(
        store: &mut Store<CallState>,
        exports: &Exports,
        tick: &schedule::Tick,
    ) -> wasmtime::Result<Self::Output> {
        instance!(store, exports, schedule).switchboard_host_schedule().call_run(store, tick).await
    }

    fn conceal(output: &mut Self::Output, conceal: impl Fn(&mut String)) {
        if let Err(reason) = output {
            conceal(reason);
        }
    }

    fn settle(output: &mut Self::Output) -> Result<(), String> {
        if let Err(reason) = output {
            answer::cut(reason);
        }
        Ok(())
    }

    fn is_error(output: &Self::Output) -> bool {
        output.is_err()
    }
}

/// A batch of events of the outbox.
pub enum Event {}

/// The argument of `event.handle`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Events {
    pub events: Vec<event::Event>,
}

impl Export for Event {
    const TRIGGER: Trigger = Trigger::Event;
}

impl Calls for Event {
    type Input = Events;
    type Output = Vec<event::Verdict>;

    const SPAN_KIND: spans::Kind = spans::Kind::Consumer;
    const MAY_MOVE_TO_BACKGROUND: bool = false;

    async fn call(
        store: &mut Store<CallState>,
        exports: &Exports,
        Events { events }: &Events,
    ) -> wasmtime::Result<Self::Output> {
        instance!(store, exports, event).switchboard_host_event().call_handle(store, events).await
    }

    fn conceal(verdicts: &mut Self::Output, conceal: impl Fn(&mut String)) {
        for verdict in verdicts {
            if let event::Verdict::Reject(reason) = verdict {
                conceal(reason);
            }
        }
    }

    fn settle(verdicts: &mut Self::Output) -> Result<(), String> {
        for verdict in verdicts {
            if let event::Verdict::Reject(reason) = verdict {
                answer::cut(reason);
            }
        }
        Ok(())
    }

    fn is_error(verdicts: &Self::Output) -> bool {
        verdicts.iter().any(|verdict| matches!(verdict, event::Verdict::Reject(_)))
    }

    fn caller(input: &Events) -> Caller<'_> {
        input.events.first().map_or(Caller::Host, |event| Caller::Event(&event.id))
    }
}

/// A hook decides about an action.
pub enum Before {}

impl Export for Before {
    const TRIGGER: Trigger = Trigger::Before;
}

impl Calls for Before {
    type Input = before::Request;
    type Output = before::Decision;

    const WITHOUT_ANSWER: &'static str = "its `on_failure` decides whether the action is done";

    async fn call(
        store: &mut Store<CallState>,
        exports: &Exports,
        request: &before::Request,
    ) -> wasmtime::Result<Self::Output> {
        instance!(store, exports, before).switchboard_host_before().call_decide(store, request).await
    }

    fn conceal(decision: &mut Self::Output, conceal: impl Fn(&mut String)) {
        if let before::Decision::Refuse(problem) = decision {
            conceal_problem(problem, &conceal);
        }
    }

    fn settle(decision: &mut Self::Output) -> Result<(), String> {
        answer::decision(decision)
    }

    fn is_error(decision: &Self::Output) -> bool {
        matches!(decision, before::Decision::Refuse(problem) if is_error(problem))
    }

    fn caller(request: &before::Request) -> Caller<'_> {
        of_client(request.caller.as_ref())
    }

    fn principal(request: &before::Request) -> Option<&Principal> {
        request.caller.as_ref()
    }
}

/// Another handler calls.
pub enum Called {}

/// The answer of `call.handle`. It has a name in recordings, which then show the bytes as text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    pub body: Vec<u8>,
}

impl Export for Called {
    const TRIGGER: Trigger = Trigger::Call;
}

impl Calls for Called {
    type Input = call::Request;
    type Output = Result<Answered, Problem>;

    const WITHOUT_ANSWER: &'static str = "the handler that called gets an error";

    async fn call(
        store: &mut Store<CallState>,
        exports: &Exports,
        request: &call::Request,
    ) -> wasmtime::Result<Self::Output> {
        let guest = instance!(store, exports, call);
        let answer = guest.switchboard_host_call().call_handle(store, request).await?;
        Ok(answer.map(|body| Answered { body }))
    }

    fn conceal(output: &mut Self::Output, conceal: impl Fn(&mut String)) {
        output.as_mut().err().into_iter().for_each(|problem| conceal_problem(problem, &conceal));
    }

    fn settle(output: &mut Self::Output) -> Result<(), String> {
        answer::settle_or_problem(output, answer::answered)
    }

    fn is_error(output: &Self::Output) -> bool {
        output.as_ref().is_err_and(is_error)
    }

    fn caller(request: &call::Request) -> Caller<'_> {
        request.caller.as_ref().map_or(Caller::Host, |caller| Caller::User(&caller.user_id))
    }

    fn principal(request: &call::Request) -> Option<&Principal> {
        request.caller.as_ref()
    }
}

/// A timer of the handler is due.
pub enum Timer {}

impl Export for Timer {
    const TRIGGER: Trigger = Trigger::Timer;
}

impl Calls for Timer {
    type Input = timer::Firing;
    type Output = timer::Verdict;

    const SPAN_KIND: spans::Kind = spans::Kind::Consumer;

    async fn call(
        store: &mut Store<CallState>,
        exports: &Exports,
        firing: &timer::Firing,
    ) -> wasmtime::Result<Self::Output> {
        instance!(store, exports, timer).switchboard_host_timer().call_fire(store, firing).await
    }

    fn conceal(verdict: &mut Self::Output, conceal: impl Fn(&mut String)) {
        if let timer::Verdict::Reject(reason) = verdict {
            conceal(reason);
        }
    }

    fn settle(verdict: &mut Self::Output) -> Result<(), String> {
        if let timer::Verdict::Reject(reason) = verdict {
            answer::cut(reason);
        }
        Ok(())
    }

    fn is_error(verdict: &Self::Output) -> bool {
        matches!(verdict, timer::Verdict::Reject(_))
    }

    fn caller(firing: &timer::Firing) -> Caller<'_> {
        Caller::Timer(&firing.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user always reaches the same release, so all closed connections of one user are one caller.
    /// Otherwise one user could make a canary look worse by connecting again and again.
    #[test]
    fn the_caller_of_a_closed_connection_is_its_user() {
        let closed = |connection: &str| connection::Closed {
            connection: connection.to_owned(),
            user_id: "ana".to_owned(),
            node: "n".to_owned(),
            code: 1000,
        };
        assert_eq!(Closed::caller(&closed("first")), Caller::User("ana"));
        assert_eq!(Closed::caller(&closed("second")), Caller::User("ana"));
    }

    /// A user whose connections fail must count once, also when many others are in the same batches. The
    /// calls that repeat a failed batch one by one have the users as callers.
    #[test]
    fn all_batches_of_several_connections_are_one_caller() {
        let closings = |users: &[&str]| Closings {
            node: "n".to_owned(),
            closed: users
                .iter()
                .map(|user| connection_batch::Closed {
                    connection: "c".to_owned(),
                    user_id: (*user).to_owned(),
                    code: 1000,
                })
                .collect(),
        };
        assert_eq!(ClosedBatch::caller(&closings(&["ana"])), Caller::User("ana"));
        assert_eq!(ClosedBatch::caller(&closings(&["ana", "bo"])), Caller::Batch);
    }
}
