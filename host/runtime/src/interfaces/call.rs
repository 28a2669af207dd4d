//! The middleware: the one wrapper that every host call of every handler goes through. It counts the call against the
//! budgets, stops the guest's clock, opens a span, asks whoever answers (the world, a trace, an injected fault), and takes
//! down what was asked and answered. It knows no interface: those bring the function, its arguments and a future that
//! does the work, which is never polled when something else answers.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::Instrument;

use super::clockwork::GuestClock;
use super::weight;
use crate::limits;
use crate::manifest::Limits;
use crate::telemetry::histogram::{Counts, Histogram};
use crate::telemetry::spans;
use crate::trace::{self, Exchange, Recorder, Secrets};

macro_rules! functions {
    ($($variant:ident = $name:literal,)*) => {
        /// Every host function, by the name it has in logs, metrics and traces.
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
    WasiWallClock = "wasi.wall-clock",
    WasiMonotonicClock = "wasi.monotonic-clock",
    WasiRandom = "wasi.random",
}

/// Why the middleware ended a call. It travels out of the guest as the error of the host call.
#[derive(Clone, Debug, PartialEq)]
pub enum Stop {
    HostCalls {
        most: u32,
    },
    HostBytes {
        most: u64,
    },
    Cpu {
        most_ms: u64,
    },
    /// The guest broke a rule of the contract that is worth a trap.
    Broke(String),
    /// A replay has no answer for this host call.
    Diverged {
        at: usize,
        why: String,
    },
    /// An injected fault.
    Fault(String),
    /// The traced call was waiting for this answer when its time was up. A replay need not wait.
    Deadline {
        after_ms: u64,
    },
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostCalls { most } => write!(f, "more than {most} host calls"),
            Self::HostBytes { most } => write!(f, "more than {most} bytes in host calls"),
            Self::Cpu { most_ms } => write!(f, "more than {most_ms} ms inside the guest"),
            Self::Broke(rule) => f.write_str(rule),
            Self::Diverged { at, why } => write!(f, "diverged at host call {at}: {why}"),
            Self::Fault(what) => write!(f, "injected fault: {what}"),
            Self::Deadline { after_ms } => write!(f, "no answer after {after_ms} ms"),
        }
    }
}

impl std::error::Error for Stop {}

/// Who answers.
#[derive(Default)]
pub enum Source {
    #[default]
    Live,
    /// The answers of a trace; the first call that it does not hold ends the replay.
    Replay(Script),
    /// A test decides, call by call.
    Responder(Box<dyn Responder>),
    /// The host call with this number, counted from 0, meets the fault; the others are answered by `otherwise`.
    Fault { at: usize, fault: InjectedFault, otherwise: Box<Source> },
}

#[derive(Clone, Debug)]
pub enum InjectedFault {
    /// This instead of the answer, as a trace writes it.
    Answer(Value),
    /// The answer comes so much later.
    Delay(Duration),
    /// The call ends here.
    Trap(String),
}

/// Stands between a handler and the world, or in the world's place.
pub trait Responder: Send {
    /// The host call with this number, counted from 0. `args` are as a trace has them.
    fn respond(&mut self, at: usize, function: &'static str, args: &Value) -> Response;
}

/// What a stage says to one host call.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// The world answers.
    Live,
    /// This, as a trace writes it.
    Answer(Value),
    /// The world does it, and then this is the answer all the same.
    DoneBut(Value),
    /// The world answers, so much later.
    Late(Duration),
    /// It never comes back: the call ends like one whose time is up.
    Never,
    /// The call ends here.
    Trap(String),
    /// Nothing in the script fits; why.
    Diverged(String),
}

/// The answers of a trace, in order.
#[derive(Debug)]
pub struct Script {
    left: VecDeque<Exchange>,
}

impl Script {
    pub fn new(exchanges: Vec<Exchange>) -> Self {
        Self { left: exchanges.into() }
    }

    /// None where the traced call ended while it waited for this answer.
    fn answer(&mut self, at: usize, function: &str, args: Value) -> Result<Option<Value>, Stop> {
        let diverged = |why: String| Stop::Diverged { at, why };
        let Some(expected) = self.left.front() else {
            return Err(diverged(format!("the trace ends before {function}")));
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

/// What the host calls of one release were, and how long they took: as long as the release is there.
#[derive(Clone)]
pub struct HostCallStats(Arc<[Histogram]>);

impl HostCallStats {
    pub fn new() -> Self {
        Self(Function::ALL.iter().map(|_| Histogram::default()).collect())
    }

    /// Of each function that was called.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, Counts)> {
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

/// One host call as a failure's log line names it: no argument, no answer.
#[derive(Clone, Copy, Debug)]
pub struct HostCallSummary {
    function: Function,
    args: weight::Weight,
    /// Bytes of the answer and microseconds; None while it is on its way.
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

pub struct Middleware {
    source: Source,
    host_call_stats: HostCallStats,
    deadline_ms: u64,
    pub(crate) clock: Arc<GuestClock>,
    calls: u32,
    calls_max: u32,
    bytes: u64,
    bytes_max: u64,
    /// The last ones, as a ring: the oldest is at `calls % LAST_HOST_CALLS` once it is full.
    last: Vec<HostCallSummary>,
    recorder: Option<Recorder>,
    secrets: Secrets,
    /// The call's span, where it is one that is traced.
    pub(crate) traced: Option<spans::Context>,
    /// Of the spans of its host calls: whose they are. Empty where nothing is traced.
    pub(crate) span_attributes: Vec<(&'static str, String)>,
}

impl Middleware {
    pub fn new(
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
            traced: None,
            span_attributes: Vec::new(),
        }
    }

    /// A host call. `args` is a record with a field for each parameter; `live` does it, grants included.
    pub(crate) async fn call<A: Serialize, R: Serialize + DeserializeOwned>(
        &mut self,
        function: Function,
        args: &A,
        live: impl Future<Output = R>,
    ) -> wasmtime::Result<R> {
        let begun = self.enter(function, args)?;
        let at = self.calls as usize - 1;
        let answer = match self.source.decide(at, function, args, &self.secrets)? {
            Action::Run { delay, instead } => {
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                let answer =
                    live.instrument(tracing::debug_span!("host call", function = function.name())).await;
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

    /// The same for WASI's clocks and randomness, whose side of the linker is not asynchronous.
    pub(crate) fn call_now<A: Serialize, R: Serialize + DeserializeOwned>(
        &mut self,
        function: Function,
        args: &A,
        live: impl FnOnce() -> R,
    ) -> wasmtime::Result<R> {
        let begun = self.enter(function, args)?;
        let at = self.calls as usize - 1;
        let answer = match self.source.decide(at, function, args, &self.secrets)? {
            // What is answered at once is not delayed.
            Action::Run { instead: None, .. } => live(),
            Action::Run { instead: Some(value), .. } | Action::Answer(value) => read(at, function, value)?,
            Action::TimeOut => return Err(Stop::Deadline { after_ms: self.deadline_ms }.into()),
        };
        self.leave(function, begun, &answer)?;
        Ok(answer)
    }

    /// The last host calls, oldest first.
    pub fn last(&self) -> impl Iterator<Item = &HostCallSummary> {
        let oldest =
            if self.last.len() < limits::LAST_HOST_CALLS { 0 } else { self.calls as usize % self.last.len() };
        self.last[oldest..].iter().chain(&self.last[..oldest])
    }

    pub fn calls(&self) -> u32 {
        self.calls
    }

    pub fn take_recorder(&mut self) -> Option<Recorder> {
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
            recorder.asked(function.name(), args_weight.bytes, || trace::value_of(args));
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
        if let Some(traced) = self.traced {
            traced.child(function.name(), spans::Kind::Client, begun, self.span_attributes.clone());
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.answered(micros.try_into().unwrap_or(u64::MAX), bytes, || trace::value_of(answer));
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

/// What a source says to one host call.
enum Action {
    /// The world does it, so much later; its answer counts unless there is another.
    Run {
        delay: Duration,
        instead: Option<Value>,
    },
    Answer(Value),
    /// The call ends here, for want of time.
    TimeOut,
}

impl Source {
    /// What answers instead of the world sees arguments as a recording has them, without secret settings.
    fn decide<A: Serialize>(
        &mut self,
        at: usize,
        function: Function,
        args: &A,
        secrets: &Secrets,
    ) -> Result<Action, Stop> {
        let shown = || {
            let mut args = trace::value_of(args);
            secrets.conceal(&mut args);
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
                        Response::Late(more) => Ok(Action::Run { delay: delay + more, instead: None }),
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
    trace::value_from(value).map_err(|error| Stop::Diverged {
        at,
        why: format!("the trace's answer does not fit {}: {error}", function.name()),
    })
}
