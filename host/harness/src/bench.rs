//! One call of one handler, for tests in Rust: script the answers of its host calls, then assert on its host
//! calls and result.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use super::props::Live;
use super::{Error, Props, World, complete};
use switchboard_core::ids::ConnectionId;
use switchboard_core::limits;
use switchboard_core::manifest::Manifest;
use switchboard_recording::{Exchange, Injection, Outcome, Recording, Scenario, keep_all};
use switchboard_runtime::{self as runtime, LoadedRelease, Responder, Response, Runtime, Source};

/// A loaded release, on its own or in a [`World`].
#[derive(Clone)]
pub struct Handler {
    pub(super) runtime: Arc<Runtime>,
    pub(super) release: Arc<LoadedRelease>,
    pub(super) world: Option<Arc<World>>,
}

/// A call that is being prepared.
pub struct Call<'a> {
    handler: &'a Handler,
    trigger: String,
    input: Value,
    scenario: Scenario,
    script: HashMap<String, VecDeque<Response>>,
}

/// A call that was made.
#[derive(Debug)]
pub struct Ran {
    pub recording: Recording,
}

impl Handler {
    pub fn manifest(&self) -> &Manifest {
        &self.release.manifest
    }

    /// [`complete`] completes `input`.
    pub fn call(&self, trigger: &str, input: Value) -> Call<'_> {
        Call {
            handler: self,
            trigger: trigger.to_owned(),
            input,
            scenario: Scenario::default(),
            script: HashMap::new(),
        }
    }

    /// Takes input and scenario of a recording. Its answers are used only if no service answers.
    pub fn again<'a>(&'a self, recording: &Recording) -> Call<'a> {
        let mut call = self.call(&recording.trigger, recording.input.clone());
        call.scenario = recording.scenario.clone().unwrap_or_default();
        if self.world.is_none() {
            for Exchange { function, answer, .. } in &recording.exchanges {
                let response = answer.clone().map_or(Response::Never, Response::Answer);
                call.script.entry(function.clone()).or_default().push_back(response);
            }
            call.scenario.inject.clear();
        }
        call
    }

    pub fn digest(&self) -> switchboard_core::ids::Digest {
        self.release.digest
    }

    /// Runs one call with the present time. Services of the handler answer; others are unavailable.
    pub async fn invoke(&self, trigger: &str, input: Value) -> Result<Recording, Error> {
        self.play_timed(trigger, input, Live).await
    }

    /// Runs a prepared responder.
    pub(super) async fn play(
        &self,
        trigger: &str,
        input: Value,
        responder: impl Responder + 'static,
    ) -> Result<Recording, Error> {
        let mut recording = self.play_timed(trigger, input, responder).await?;
        // These differ each time and do not matter in a test.
        recording.exchanges.iter_mut().for_each(|exchange| exchange.micros = 0);
        Ok(recording)
    }

    async fn play_timed(
        &self,
        trigger: &str,
        input: Value,
        responder: impl Responder + 'static,
    ) -> Result<Recording, Error> {
        let input = complete(self.manifest(), trigger, input)?;
        let text = |pointer: &str| input.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let call = runtime::Call {
            id: text("/id").map_or_else(|| "test".into(), Into::into),
            connection: text("/connection").and_then(|id| ConnectionId::parse(&id)),
            ..runtime::Call::new(None)
        };
        let played = self.runtime.play(
            &self.release,
            call,
            trigger,
            input,
            Source::Responder(Box::new(responder)),
            limits::TEST_RECORDING_BYTES_MAX,
        );
        Ok(played.await?)
    }
}

impl Call<'_> {
    /// Sets the answer of the next host call of this function, in the form of a recording. The world answers
    /// the others, if there is one. Without it, clock, randomness, settings and log answer by themselves, and
    /// the rest is unavailable.
    pub fn answer(mut self, function: &str, answer: Value) -> Self {
        self.script.entry(function.to_owned()).or_default().push_back(Response::Answer(answer));
        self
    }

    /// The nth host call of this function, counted from 1, fails with this answer.
    pub fn fail(mut self, function: &str, nth: u32, answer: Value) -> Self {
        self.scenario.inject.push(Injection {
            call: function.to_owned(),
            nth,
            answer: Some(answer),
            done: false,
        });
        self
    }

    /// The service does the work, but the answer is lost: the handler gets this instead.
    pub fn lose(mut self, function: &str, nth: u32, answer: Value) -> Self {
        self.scenario.inject.push(Injection {
            call: function.to_owned(),
            nth,
            answer: Some(answer),
            done: true,
        });
        self
    }

    /// The host call never returns.
    pub fn hang(mut self, function: &str, nth: u32) -> Self {
        self.scenario.inject.push(Injection { call: function.to_owned(), nth, answer: None, done: false });
        self
    }

    /// Sets the time, RFC 3339. The clock advances a millisecond at each read.
    pub fn at(mut self, now: &str) -> Self {
        self.scenario.now = Some(now.to_owned());
        self
    }

    pub async fn run(self) -> Ran {
        let responder =
            Props::of(&self.scenario, Scripted { script: self.script }).unwrap_or_else(|why| panic!("{why}"));
        let release = &self.handler.release;
        let responder = responder.granting(release.fetch_rules()).calling(&release.manifest.grants.calls);
        let recording = self.handler.play(&self.trigger, self.input, responder).await;
        Ran { recording: recording.unwrap_or_else(|why| panic!("{why}")) }
    }
}

/// The world answers calls that are not scripted. Without a world, settings and log work and the rest is
/// unavailable.
struct Scripted {
    script: HashMap<String, VecDeque<Response>>,
}

impl Responder for Scripted {
    fn respond(&mut self, _: usize, function: &'static str, _: &Value) -> Response {
        self.script.get_mut(function).and_then(VecDeque::pop_front).unwrap_or(Response::Live)
    }
}

impl Ran {
    /// The host calls, in order.
    pub fn calls(&self) -> &[Exchange] {
        &self.recording.exchanges
    }

    pub fn calls_of<'a>(&'a self, function: &'a str) -> impl Iterator<Item = &'a Exchange> {
        self.recording.exchanges.iter().filter(move |exchange| exchange.function == function)
    }

    /// The result of the export, in the form of a recording. If it did not return, the test fails and shows
    /// the whole call.
    pub fn returned(&self) -> &Value {
        match &self.recording.outcome {
            Outcome::Returned(value) => value,
            _ => panic!("it did not return:\n{self}"),
        }
    }

    /// The `Ok` of the result.
    pub fn expect_ok(&self) -> &Value {
        self.returned().get("Ok").unwrap_or_else(|| panic!("it was refused:\n{self}"))
    }

    /// The JSON that a client would get: the body of a response, the payload of a reply.
    pub fn answer(&self) -> Value {
        let ok = self.expect_ok();
        let text = ok.pointer("/body/text").or_else(|| ok.get("payload")).and_then(Value::as_str);
        serde_json::from_str(text.unwrap_or_default()).unwrap_or_default()
    }

    /// Checks for a refusal with this code.
    pub fn expect_problem(&self, code: &str) -> &Value {
        let problem = self.returned().get("Err").unwrap_or_else(|| panic!("it was not refused:\n{self}"));
        assert_eq!(problem["code"], code, "{self}");
        problem
    }

    /// Checks that it ended without an answer: `trap`, `deadline`, `cpu`, …
    pub fn expect_failure(&self, expected: &str) {
        match &self.recording.outcome {
            Outcome::Failed { kind, .. } => assert_eq!(kind, expected, "{self}"),
            _ => panic!("it returned:\n{self}"),
        }
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.recording.write(keep_all))
    }
}
