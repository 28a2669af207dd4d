//! The circuit breaker of one handler, host and port: after some failures in a row, fetches fail at once, and
//! from time to time one is tried. So a dead service costs its callers milliseconds instead of their
//! deadline. [`Breaker`] is pure: the caller passes the time in. [`Breakers`] keeps those that have failures.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use switchboard_core::limits;

/// A breaker that has counted at least one failure.
#[derive(Debug)]
struct Breaker {
    /// Failures in a row.
    failures: u32,
    /// The last failure.
    last: String,
    state: State,
    changed: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    /// Until this time every fetch fails at once; after it, one is the trial. `wait` is how long it is open.
    Open {
        until: Instant,
        wait: Duration,
    },
    /// The trial is under way; the other fetches fail at once.
    Trial {
        wait: Duration,
    },
}

/// How a fetch passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Closed,
    Trial,
}

/// The change that a failure made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Counted,
    Opened(Duration),
    OpenedAgain,
}

impl Breaker {
    fn new(now: Instant) -> Self {
        Self { failures: 0, last: String::new(), state: State::Closed, changed: now }
    }

    /// Lets a fetch pass, or says when the next attempt is.
    fn pass(&mut self, now: Instant) -> Result<Pass, Option<Duration>> {
        match self.state {
            State::Closed => Ok(Pass::Closed),
            State::Open { until, wait } if now >= until => {
                self.state = State::Trial { wait };
                Ok(Pass::Trial)
            }
            State::Open { until, .. } => Err(Some(until - now)),
            State::Trial { .. } => Err(None),
        }
    }

    fn failed(&mut self, now: Instant, pass: Pass, why: &str) -> Change {
        self.failures = self.failures.saturating_add(1);
        why.clone_into(&mut self.last);
        self.changed = now;
        match (self.state, pass) {
            (State::Closed, _) if self.failures >= limits::BREAKER_FAILURES => {
                let wait = limits::BREAKER_OPEN_MIN;
                self.state = State::Open { until: now + wait, wait };
                Change::Opened(wait)
            }
            (State::Trial { wait }, Pass::Trial) => {
                let wait = (wait * 2).min(limits::BREAKER_OPEN_MAX);
                self.state = State::Open { until: now + wait, wait };
                Change::OpenedAgain
            }
            // A fetch that passed before the breaker opened says nothing new.
            _ => Change::Counted,
        }
    }

    /// The fetch ended without a verdict about the service. The next fetch is the trial.
    fn abandoned(&mut self, now: Instant, pass: Pass) {
        if let (State::Trial { wait }, Pass::Trial) = (self.state, pass) {
            self.state = State::Open { until: now, wait };
        }
    }

    fn is_open(&self, now: Instant) -> bool {
        match self.state {
            State::Closed => false,
            // After that time it only waits for a fetch, which may never come.
            State::Open { until, .. } => until > now,
            State::Trial { .. } => true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    handler: Arc<str>,
    host: String,
    port: u16,
}

/// Removes secrets from a text for the log, or for an error. A host can have a secret in its name.
pub type Conceal = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// The breakers of a node that have failures, at most [`limits::BREAKERS_MAX`]. One without is not kept.
#[derive(Default)]
pub(super) struct Breakers(Mutex<HashMap<Key, Breaker>>);

/// A fetch that a breaker let pass. It reports one result. Dropping it without one means that the call ended
/// first: that is a failure of the service if its time was up, and no verdict otherwise.
pub(super) struct Passed {
    breakers: Arc<Breakers>,
    key: Key,
    pass: Pass,
    deadline: Instant,
    conceal: Conceal,
    is_reported: bool,
}

impl Breakers {
    /// Lets a fetch pass that ends at this deadline.
    ///
    /// # Errors
    /// The breaker is open; the text is for the handler.
    pub(super) fn pass(
        self: &Arc<Self>,
        handler: &Arc<str>,
        host: &str,
        port: u16,
        deadline: Instant,
        conceal: &Conceal,
    ) -> Result<Passed, String> {
        let key = Key { handler: handler.clone(), host: host.to_owned(), port };
        let pass = match self.0.lock().get_mut(&key) {
            None => Pass::Closed,
            Some(breaker) => breaker.pass(Instant::now()).map_err(|next| {
                let next = match next {
                    Some(next) => format!("next attempt in {} ms", next.as_millis()),
                    None => "one attempt is under way".to_owned(),
                };
                let Breaker { failures, last, .. } = breaker;
                format!(
                    "circuit breaker for {host}:{port} is open: {failures} failures, last: {last}; {next}"
                )
            })?,
        };
        let (breakers, conceal) = (self.clone(), conceal.clone());
        Ok(Passed { breakers, key, pass, deadline, conceal, is_reported: false })
    }

    pub(super) fn open(&self) -> usize {
        let now = Instant::now();
        self.0.lock().values().filter(|breaker| breaker.is_open(now)).count()
    }

    fn failed(&self, key: &Key, pass: Pass, why: &str, conceal: &Conceal) {
        let now = Instant::now();
        // A later call, whose secrets are others, gets it as the reason.
        let why = &conceal(why);
        let mut breakers = self.0.lock();
        if !breakers.contains_key(key) && breakers.len() >= limits::BREAKERS_MAX {
            forget_one(&mut breakers);
        }
        let breaker = breakers.entry(key.clone()).or_insert_with(|| Breaker::new(now));
        let change = breaker.failed(now, pass, why);
        drop(breakers);
        if let Change::Opened(wait) = change {
            let host = conceal(&key.host);
            warn!(
                handler.name = &*key.handler,
                host,
                port = key.port,
                last = why,
                "the circuit breaker of {} for {}:{} has opened after {} failures: its fetches fail at once, and one is \
                 tried after {} ms",
                key.handler,
                host,
                key.port,
                limits::BREAKER_FAILURES,
                wait.as_millis(),
            );
        }
    }

    fn succeeded(&self, key: &Key, conceal: &Conceal) {
        let Some(breaker) = self.0.lock().remove(key) else { return };
        if breaker.state != State::Closed {
            let host = conceal(&key.host);
            info!(
                handler.name = &*key.handler,
                host,
                port = key.port,
                "the circuit breaker of {} for {}:{} has closed: the service answers again",
                key.handler,
                host,
                key.port,
            );
        }
    }

    fn abandoned(&self, key: &Key, pass: Pass) {
        if let Some(breaker) = self.0.lock().get_mut(key) {
            breaker.abandoned(Instant::now(), pass);
        }
    }
}

/// Forgets a breaker of the handler that has the most, so that a handler with many bad hosts loses its own.
fn forget_one(breakers: &mut HashMap<Key, Breaker>) {
    let mut of_handlers: HashMap<&str, usize> = HashMap::new();
    for key in breakers.keys() {
        *of_handlers.entry(&key.handler).or_default() += 1;
    }
    let most = of_handlers.into_iter().max_by_key(|(_, count)| *count).map(|(handler, _)| handler);
    let of_most = breakers.iter().filter(|(key, _)| Some(&*key.handler) == most);
    if let Some(key) = of_most.min_by_key(|(_, breaker)| breaker.changed).map(|(key, _)| key.clone()) {
        breakers.remove(&key);
    }
}

impl Passed {
    /// The service answered.
    pub(super) fn succeeded(mut self) {
        self.is_reported = true;
        self.breakers.succeeded(&self.key, &self.conceal);
    }

    /// The service did not answer, or answered that it cannot.
    pub(super) fn failed(mut self, why: &str) {
        self.is_reported = true;
        self.breakers.failed(&self.key, self.pass, why, &self.conceal);
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        if self.is_reported {
            return;
        }
        if Instant::now() >= self.deadline {
            self.breakers.failed(&self.key, self.pass, "no answer in time", &self.conceal);
        } else {
            self.breakers.abandoned(&self.key, self.pass);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begin: Instant, ms: u64) -> Instant {
        begin + Duration::from_millis(ms)
    }

    fn opened(begin: Instant) -> Breaker {
        let mut breaker = Breaker::new(begin);
        for _ in 1..limits::BREAKER_FAILURES {
            assert_eq!(breaker.pass(begin), Ok(Pass::Closed));
            assert_eq!(breaker.failed(begin, Pass::Closed, "reset"), Change::Counted);
        }
        assert_eq!(breaker.failed(begin, Pass::Closed, "reset"), Change::Opened(Duration::from_secs(1)));
        breaker
    }

    #[test]
    fn it_opens_after_failures_and_lets_one_trial_pass() {
        let begin = Instant::now();
        let mut breaker = opened(begin);
        assert_eq!(breaker.pass(at(begin, 160)), Err(Some(Duration::from_millis(840))));
        assert!(breaker.is_open(at(begin, 999)));
        assert_eq!(breaker.pass(at(begin, 1000)), Ok(Pass::Trial));
        assert_eq!(breaker.pass(at(begin, 1000)), Err(None), "only one");
        assert!(breaker.is_open(at(begin, 9000)));
    }

    #[test]
    fn each_failed_trial_doubles_the_wait_up_to_the_maximum() {
        let begin = Instant::now();
        let mut breaker = opened(begin);
        let (mut now, mut waits) = (begin, Vec::new());
        for _ in 0..7 {
            let wait = match breaker.state {
                State::Open { wait, .. } => wait,
                state => panic!("{state:?}"),
            };
            waits.push(wait.as_secs());
            now += wait;
            assert_eq!(breaker.pass(now), Ok(Pass::Trial));
            assert_eq!(breaker.failed(now, Pass::Trial, "refused"), Change::OpenedAgain);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn a_trial_without_a_verdict_is_tried_again_at_once() {
        let begin = Instant::now();
        let mut breaker = opened(begin);
        assert_eq!(breaker.pass(at(begin, 1000)), Ok(Pass::Trial));
        breaker.abandoned(at(begin, 1001), Pass::Closed);
        assert_eq!(breaker.pass(at(begin, 1001)), Err(None), "that was not the trial");
        breaker.abandoned(at(begin, 1002), Pass::Trial);
        assert_eq!(breaker.pass(at(begin, 1002)), Ok(Pass::Trial));
    }

    #[test]
    fn a_failure_from_before_it_opened_does_not_make_it_longer() {
        let begin = Instant::now();
        let mut breaker = opened(begin);
        let open = breaker.state;
        assert_eq!(breaker.failed(at(begin, 500), Pass::Closed, "late"), Change::Counted);
        assert_eq!(breaker.state, open);
        assert_eq!(breaker.pass(at(begin, 1000)), Ok(Pass::Trial));
        assert_eq!(breaker.failed(at(begin, 1001), Pass::Closed, "late"), Change::Counted);
        assert_eq!(breaker.pass(at(begin, 1001)), Err(None), "the trial decides");
    }

    fn plain() -> Conceal {
        Arc::new(str::to_owned)
    }

    #[test]
    fn the_reason_that_a_breaker_keeps_has_no_secret() {
        let breakers = Arc::new(Breakers::default());
        let conceal: Conceal = Arc::new(|text: &str| text.replace("s3cret", "[secret KEY]"));
        let pass = || {
            let deadline = Instant::now() + Duration::from_secs(60);
            breakers.pass(&"x".into(), "s3cret.example", 443, deadline, &conceal)
        };
        for _ in 0..limits::BREAKER_FAILURES {
            pass().unwrap().failed("cannot connect to s3cret.example");
        }
        let why = pass().map(drop).unwrap_err();
        assert!(why.contains("last: cannot connect to [secret KEY].example; next attempt"), "{why}");
    }

    fn pass(breakers: &Arc<Breakers>, handler: &str, host: &str) -> Result<Passed, String> {
        breakers.pass(&handler.into(), host, 443, Instant::now() + Duration::from_secs(60), &plain())
    }

    #[test]
    fn breakers_are_per_handler_and_host_and_a_success_forgets_them() {
        let breakers = Arc::new(Breakers::default());
        for _ in 0..limits::BREAKER_FAILURES {
            pass(&breakers, "directory", "a.example").unwrap().failed("connection refused");
        }
        let why = pass(&breakers, "directory", "a.example").map(drop).unwrap_err();
        let begin = "circuit breaker for a.example:443 is open: 5 failures, last: connection refused; next attempt in ";
        assert!(why.starts_with(begin) && why.ends_with(" ms"), "{why}");
        assert!(pass(&breakers, "directory", "b.example").is_ok());
        assert!(pass(&breakers, "webhooks", "a.example").is_ok());
        assert_eq!(breakers.open(), 1);
        // Failures that are not in a row do not open it.
        for _ in 0..limits::BREAKER_FAILURES {
            pass(&breakers, "webhooks", "a.example").unwrap().failed("reset");
            pass(&breakers, "webhooks", "a.example").unwrap().succeeded();
        }
        assert_eq!((breakers.open(), breakers.0.lock().len()), (1, 1));
    }

    #[test]
    fn a_dropped_fetch_counts_only_if_its_time_was_up() {
        let breakers = Arc::new(Breakers::default());
        for _ in 0..limits::BREAKER_FAILURES {
            drop(pass(&breakers, "x", "a.example").unwrap());
        }
        assert_eq!(breakers.open(), 0);
        for _ in 0..limits::BREAKER_FAILURES {
            drop(breakers.pass(&"x".into(), "a.example", 443, Instant::now(), &plain()).unwrap());
        }
        assert_eq!(breakers.open(), 1);
        let why = pass(&breakers, "x", "a.example").map(drop).unwrap_err();
        assert!(why.contains("last: no answer in time"), "{why}");
    }

    #[test]
    fn a_handler_with_many_bad_hosts_loses_its_own_breakers() {
        let breakers = Arc::new(Breakers::default());
        for _ in 0..limits::BREAKER_FAILURES {
            pass(&breakers, "victim", "a.example").unwrap().failed("reset");
        }
        for number in 0..limits::BREAKERS_MAX * 2 {
            pass(&breakers, "greedy", &format!("{number}.example")).unwrap().failed("reset");
        }
        assert_eq!(breakers.0.lock().len(), limits::BREAKERS_MAX);
        assert!(pass(&breakers, "victim", "a.example").is_err(), "it is still open");
    }
}
