//! Host-call middleware: the one wrapper of every host call of every handler. It counts the call against the
//! budgets, stops the guest's clock, opens a span, takes the answer from the source (the live backend, a
//! recording, an injected fault), and records arguments and answer. It knows no interface. An interface
//! passes the function, its arguments and a future that does the work. The middleware does not poll that
//! future when the answer comes from elsewhere.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::Instrument;

use super::guest_clock::GuestClock;
use super::stop::Stop;
use super::weight;
use switchboard_core::limits;
use switchboard_core::manifest::Limits;
use switchboard_recording::{self as recording, Exchange, Recorder, Secrets};
use switchboard_telemetry::histogram::{Counts, Histogram};
use switchboard_telemetry::spans;

macro_rules! functions {
    ($($variant:ident = $name:literal,)*) => {
        /// A host function. Its name is the one in logs, metrics, spans and recordings.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Function { $($variant,)* }

        impl Function {
            pub(crate) const ALL: &[Function] = &[$(Function::$variant,)*];

            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

functions! {
    PostgresQuery = "postgres.query",
    PostgresExecute = "postgres.execute",
    PostgresCollect = "postgres.collect",
    PostgresBegin = "postgres.begin",
    TransactionQuery = "transaction.query",
    TransactionExecute = "transaction.execute",
    TransactionCommit = "transaction.commit",
    TransactionDrop = "transaction.drop",
    RedisCommand = "redis.command",
    RedisPipeline = "redis.pipeline",
    RedisScript = "redis.script",
    RedisScripts = "redis.scripts",
    ChannelsPublish = "channels.publish",
    ChannelsSubscribe = "channels.subscribe",
    ChannelsUnsubscribe = "channels.unsubscribe",
    ChannelsRevoke = "channels.revoke",
    ChannelsSend = "channels.send",
    ChannelsDisconnect = "channels.disconnect",
    WakeOutbox = "wake.outbox",
    ClockNow = "clock.now-ms",
    RandomBytes = "random.bytes",
    LogLog = "log.log",
    ConfigGet = "config.get",
    FetchSend = "fetch.send",
    FetchSendAll = "fetch.send-all",
    SecretsGet = "secrets.get",
    CallsCall = "calls.call",
    TimersSet = "timers.set",
    TimersSetAll = "timers.set-all",
    TimersCancel = "timers.cancel",
    WasiWallClock = "wasi.wall-clock",
    WasiMonotonicClock = "wasi.monotonic-clock",
    WasiRandom = "wasi.random",
}

/// Where the answers of host calls come from.
#[derive(Default)]
pub enum Source {
    /// The backends of the host.
    #[default]
    Live,
    /// A recording. The first host call that it does not contain ends the replay.
    Replay(Script),
    /// A test, which decides for each host call.
    Responder(Box<dyn Responder>),
    /// The fault, for the host call with the number `at`, counted from 0; `otherwise`, for all others.
    Fault { at: usize, fault: InjectedFault, otherwise: Box<Source> },
}

#[derive(Clone, Debug)]
pub enum InjectedFault {
    /// The host call gets this answer, in the form of a recording.
    Answer(Value),
    /// The answer is delayed by this time.
    Delay(Duration),
    /// The call ends with a trap.
    Trap(String),
}

/// Decides how each host call of a call is answered.
pub trait Responder: Send {
    /// Decides about the host call with the number `at`, counted from 0. `args` have the form of a recording.
    fn respond(&mut self, at: usize, function: &'static str, args: &Value) -> Response;
}

/// A responder's decision about one host call.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// The backend answers.
    Live,
    /// The host call gets this answer, in the form of a recording. The backend is not used.
    Answer(Value),
    /// The backend does the work, and its answer is replaced by this one.
    DoneBut(Value),
    /// The host call does not return. The call ends like one whose deadline has passed.
    Never,
    /// The call ends with a trap.
    Trap(String),
    /// The responder has no answer, for this reason.
    Diverged(String),
}

/// The answers of a recording, in order.
#[derive(Debug)]
pub struct Script {
    left: VecDeque<Exchange>,
}

impl Script {
    pub fn new(exchanges: Vec<Exchange>) -> Self {
        Self { left: exchanges.into() }
    }

    /// Takes the answer to a host call. It is `None` when the recorded call ended while it waited for the
    /// answer.
    ///
    /// # Errors
    /// `Diverged` when the recording does not contain this host call here.
    fn answer(&mut self, at: usize, function: &str, args: Value) -> Result<Option<Value>, Stop> {
        let diverged = |why: String| Stop::Diverged { at, why };
        let Some(expected) = self.left.front() else {
            return Err(diverged(format!("the recording ends before {function}")));
        };
        let group = 1 + self.left.iter().skip(1).take_while(|exchange| exchange.unordered).count();
        let is_it = |exchange: &Exchange| exchange.function == function && exchange.args == args;
        match self.left.iter().take(group).position(is_it) {
            Some(place) => Ok(self.left.remove(place).and_then(|exchange| exchange.answer)),
            None if expected.function != function => {
                Err(diverged(format!("{function} instead of {}", expected.function)))
            }
            None => Err(diverged(format!("{function} with {args} instead of {}", expected.args))),
        }
    }
}

/// Number and duration of the host calls of one release, for each function. It is dropped with the release.
#[derive(Clone)]
pub(crate) struct HostCallStats(Arc<[Histogram]>);

impl HostCallStats {
    pub(crate) fn new() -> Self {
        Self(Function::ALL.iter().map(|_| Histogram::default()).collect())
    }

    /// Returns the counts of each function that was called.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, Counts)> {
        let counted =
            Function::ALL.iter().zip(&*self.0).map(|(function, calls)| (function.name(), calls.counts()));
        counted.filter(|(_, counts)| counts.count() > 0)
    }

    fn record(&self, function: Function, took: Duration) {
        self.0[function as usize].record(took);
    }
}

impl Default for HostCallStats {
    fn default() -> Self {
        Self::new()
    }
}

/// Summary of one host call for the log line of a failed call. It contains no argument and no answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostCallSummary {
    function: Function,
    args: weight::Weight,
    /// Bytes of the answer, and microseconds until it. `None` before the answer.
    answer: Option<(u64, u32)>,
}

impl fmt::Display for HostCallSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:08x} {} B", self.function.name(), self.args.digest, self.args.bytes)?;
        match self.answer {
            Some((bytes, micros)) => write!(f, " -> {bytes} B in {micros} us"),
            None => f.write_str(" -> (no answer)"),
        }
    }
}

/// The state of the middleware for one call.
pub(crate) struct Middleware {
    source: Source,
    host_call_stats: HostCallStats,
    deadline_ms: u64,
    pub(crate) clock: Arc<GuestClock>,
    calls: u32,
    calls_max: u32,
    bytes: u64,
    bytes_max: u64,
    /// The last host calls, as a ring. Once it is full, the oldest is at `calls % LAST_HOST_CALLS`.
    last: Vec<HostCallSummary>,
    recorder: Option<Recorder>,
    secrets: Secrets,
    /// The call's span, if the call is traced.
    pub(crate) span: Option<spans::ActiveSpan>,
    /// Attributes of the spans of its host calls. Empty if the call is not traced.
    pub(crate) span_attributes: Vec<(&'static str, String)>,
    /// Attributes of the span of the present host call alone. `None` if the call is not traced.
    annotations: Option<Annotations>,
}

/// Attributes that a host call adds to its own span.
pub(crate) type Annotations = Arc<Mutex<Vec<(&'static str, String)>>>;

impl Middleware {
    pub(crate) fn new(
        limits: &Limits,
        host_call_stats: HostCallStats,
        secrets: Secrets,
        source: Source,
        recorder: Option<Recorder>,
    ) -> Self {
        Self {
            source,
            host_call_stats,
            deadline_ms: limits.deadline_ms,
            clock: Arc::new(GuestClock::new(Duration::from_millis(limits.cpu_ms))),
            calls: 0,
            calls_max: limits.host_calls,
            bytes: 0,
            bytes_max: limits.host_bytes,
            last: Vec::new(),
            recorder,
            secrets,
            span: None,
            span_attributes: Vec::new(),
            annotations: None,
        }
    }

    /// Returns the place for further attributes of the span of the next host call. `None` if the call is not
    /// traced.
    pub(crate) fn annotations(&mut self) -> Option<Annotations> {
        self.annotations = self.span.is_some().then(Annotations::default);
        self.annotations.clone()
    }

    /// Runs one host call. `args` is a record with a field for each parameter. `live` checks the grants and
    /// does the work. It is boxed, because a future of several KiB would be part of the future of every
    /// function between here and wasmtime, and each of them would copy it.
    ///
    /// # Errors
    /// A [`Stop`], which ends the call.
    pub(crate) fn call<A: Serialize, R: Serialize + DeserializeOwned>(
        &mut self,
        function: Function,
        args: &A,
        live: impl Future<Output = R>,
    ) -> impl Future<Output = wasmtime::Result<R>> {
        let live = Box::pin(live);
        self.call_with(function, args, |_| live)
    }

    /// The same for work that needs the arguments themselves, and not a copy of them.
    pub(crate) async fn call_with<A: Serialize, R: Serialize + DeserializeOwned, F: Future<Output = R>>(
        &mut self,
        function: Function,
        args: A,
        live: impl FnOnce(A) -> Pin<Box<F>>,
    ) -> wasmtime::Result<R> {
        let begun = self.enter(function, &args)?;
        let at = self.calls as usize - 1;
        let answer = match self.source.decide(at, function, &args, &self.secrets)? {
            Action::Run { delay, instead } => {
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                let span = tracing::debug_span!("host call", function = function.name());
                let answer = live(args).instrument(span).await;
                match instead {
                    Some(value) => read(at, function, value)?,
                    None => answer,
                }
            }
            Action::Answer(value) => read(at, function, value)?,
            Action::TimeOut => return Err(Stop::Deadline { after_ms: self.deadline_ms }.into()),
        };
        self.leave(function, begun, &answer)?;
        Ok(answer)
    }

    /// The same for WASI's clocks and randomness, whose functions in the linker are not asynchronous.
    pub(crate) fn call_now<A: Serialize, R: Serialize + DeserializeOwned>(
        &mut self,
        function: Function,
        args: &A,
        live: impl FnOnce() -> R,
    ) -> wasmtime::Result<R> {
        let begun = self.enter(function, args)?;
        let at = self.calls as usize - 1;
        let answer = match self.source.decide(at, function, args, &self.secrets)? {
            // A synchronous host call cannot wait, so a delay has no effect.
            Action::Run { instead: None, .. } => live(),
            Action::Run { instead: Some(value), .. } | Action::Answer(value) => read(at, function, value)?,
            Action::TimeOut => return Err(Stop::Deadline { after_ms: self.deadline_ms }.into()),
        };
        self.leave(function, begun, &answer)?;
        Ok(answer)
    }

    /// Returns the last host calls, the oldest first.
    pub(crate) fn last(&self) -> impl Iterator<Item = &HostCallSummary> {
        let oldest =
            if self.last.len() < limits::LAST_HOST_CALLS { 0 } else { self.calls as usize % self.last.len() };
        self.last[oldest..].iter().chain(&self.last[..oldest])
    }

    /// Returns the bytes that the call may still carry.
    pub(crate) fn bytes_left(&self) -> u64 {
        self.bytes_max.saturating_sub(self.bytes)
    }

    pub(crate) fn calls(&self) -> u32 {
        self.calls
    }

    pub(crate) fn take_recorder(&mut self) -> Option<Recorder> {
        self.recorder.take()
    }

    fn enter<A: Serialize>(&mut self, function: Function, args: &A) -> Result<Instant, Stop> {
        let now = Instant::now();
        self.clock.leave_guest(now)?;
        self.clock.give_up_turn();
        if self.calls == self.calls_max {
            return Err(Stop::HostCalls { most: self.calls_max });
        }
        let args_weight = weight::of(args);
        self.carry(args_weight.bytes)?;
        let digest = HostCallSummary { function, args: args_weight, answer: None };
        match self.calls as usize {
            filling if filling < limits::LAST_HOST_CALLS => self.last.push(digest),
            full => self.last[full % limits::LAST_HOST_CALLS] = digest,
        }
        self.calls += 1;
        if let Some(recorder) = &mut self.recorder {
            recorder.asked(function.name(), args_weight.bytes, || recording::value_of(args));
        }
        Ok(now)
    }

    fn leave<R: Serialize>(&mut self, function: Function, begun: Instant, answer: &R) -> Result<(), Stop> {
        let now = Instant::now();
        let took = now - begun;
        let bytes = weight::of(answer).bytes;
        let micros = took.as_micros();
        let last = (self.calls as usize - 1) % limits::LAST_HOST_CALLS;
        self.last[last].answer = Some((bytes, micros.try_into().unwrap_or(u32::MAX)));
        self.host_call_stats.record(function, took);
        if let Some(span) = &self.span {
            let mut attributes = self.span_attributes.clone();
            if let Some(own) = self.annotations.take() {
                attributes.append(&mut own.lock());
            }
            span.child(function.name(), spans::Kind::Client, begun, attributes);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.answered(micros.try_into().unwrap_or(u64::MAX), bytes, || recording::value_of(answer));
        }
        self.carry(bytes)?;
        self.clock.enter_guest(now);
        Ok(())
    }

    fn carry(&mut self, bytes: u64) -> Result<(), Stop> {
        self.bytes += bytes;
        if self.bytes > self.bytes_max { Err(Stop::HostBytes { most: self.bytes_max }) } else { Ok(()) }
    }
}

/// The middleware's next step for one host call.
enum Action {
    /// Run the live future after `delay`. `instead` replaces its answer.
    Run { delay: Duration, instead: Option<Value> },
    /// Return this answer, in the form of a recording.
    Answer(Value),
    /// End the call, as if its deadline had passed.
    TimeOut,
}

impl Source {
    /// Decides about one host call. A source other than `Live` gets the arguments in the form of a recording,
    /// without secret settings.
    fn decide<A: Serialize>(
        &mut self,
        at: usize,
        function: Function,
        args: &A,
        secrets: &Secrets,
    ) -> Result<Action, Stop> {
        let shown = || {
            let mut args = recording::value_of(args);
            secrets.conceal_raw(&mut args);
            args
        };
        let mut delay = Duration::ZERO;
        let mut source = self;
        loop {
            match source {
                Self::Live => return Ok(Action::Run { delay, instead: None }),
                Self::Replay(script) => {
                    let answer = script.answer(at, function.name(), shown())?;
                    return Ok(answer.map_or(Action::TimeOut, Action::Answer));
                }
                Self::Responder(responder) => {
                    return match responder.respond(at, function.name(), &shown()) {
                        Response::Live => Ok(Action::Run { delay, instead: None }),
                        Response::DoneBut(answer) => Ok(Action::Run { delay, instead: Some(answer) }),
                        Response::Answer(answer) => Ok(Action::Answer(answer)),
                        Response::Never => Ok(Action::TimeOut),
                        Response::Trap(what) => Err(Stop::Fault(what)),
                        Response::Diverged(why) => Err(Stop::Diverged { at, why }),
                    };
                }
                Self::Fault { at: faulty, fault, otherwise } => {
                    match fault {
                        InjectedFault::Answer(answer) if *faulty == at => {
                            return Ok(Action::Answer(answer.clone()));
                        }
                        InjectedFault::Trap(what) if *faulty == at => return Err(Stop::Fault(what.clone())),
                        InjectedFault::Delay(more) if *faulty == at => delay += *more,
                        _ => {}
                    }
                    source = otherwise;
                }
            }
        }
    }
}

fn read<R: DeserializeOwned>(at: usize, function: Function, value: Value) -> Result<R, Stop> {
    recording::value_from(value).map_err(|error| Stop::Diverged {
        at,
        why: format!("the recorded answer does not fit {}: {error}", function.name()),
    })
}
