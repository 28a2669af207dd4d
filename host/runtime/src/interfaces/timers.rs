//! `timers`: one-shot timers of the handler. Postgres stores them (`postgres::timers`), through the host's
//! own connection: the handler's role cannot see the table, so no statement can touch the timers of another
//! handler. Therefore a timer is no part of the handler's transaction.

use std::collections::BTreeSet;

use serde::Serialize;

use super::call::Function;
use super::{Backends, CallState, Terms};
use switchboard_contract::timers::{self, Due, Error, Timer};
use switchboard_core::{limits, timestamp};
use switchboard_postgres::timers::{self as stored, NewTimer, Set, Timers};
use switchboard_postgres::{Postgres, in_time};

#[derive(Serialize)]
struct SetArgs<'a> {
    timer: &'a Timer,
}

#[derive(Serialize)]
struct SetAllArgs<'a> {
    timers: &'a [Timer],
}

#[derive(Serialize)]
struct CancelArgs<'a> {
    key: &'a str,
}

impl timers::Host for CallState {
    async fn set(&mut self, timer: Timer) -> wasmtime::Result<Result<(), Error>> {
        let (backends, terms) = (&self.backends, &self.terms);
        let live = set(backends, terms, std::slice::from_ref(&timer));
        self.middleware.call(Function::TimersSet, &SetArgs { timer: &timer }, live).await
    }

    async fn set_all(&mut self, timers: Vec<Timer>) -> wasmtime::Result<Result<(), Error>> {
        let (backends, terms) = (&self.backends, &self.terms);
        let live = set(backends, terms, &timers);
        self.middleware.call(Function::TimersSetAll, &SetAllArgs { timers: &timers }, live).await
    }

    async fn cancel(&mut self, key: String) -> wasmtime::Result<Result<bool, Error>> {
        let (backends, terms) = (&self.backends, &self.terms);
        let live = async {
            if !is_key(&key) {
                return Err(Error::Refused(KEY_RULE.to_owned()));
            }
            let timers = store(backends)?;
            let cancelled = timers.cancel(&terms.handler, &key);
            in_time(limits::TIMER_SET_WAIT, cancelled).await.map_err(|error| failed(backends, &error))
        };
        self.middleware.call(Function::TimersCancel, &CancelArgs { key: &key }, live).await
    }
}

const KEY_RULE: &str = "a key has 1 to 256 bytes, without control characters";

async fn set(backends: &Backends, terms: &Terms, timers: &[Timer]) -> Result<(), Error> {
    let timers = checked(timers, timestamp::now_ms()).map_err(Error::Refused)?;
    let store = store(backends)?;
    let set = store.set(&terms.handler, &timers);
    match in_time(limits::TIMER_SET_WAIT, set).await {
        Ok(Set::Stored) => Ok(()),
        Ok(Set::Full) => Err(Error::Full),
        Err(error) => Err(failed(backends, &error)),
    }
}

/// The table, or `unavailable` in a runtime without Postgres.
fn store(backends: &Backends) -> Result<Timers, Error> {
    backends.postgres.as_ref().map(Postgres::timers).ok_or(Error::Unavailable)
}

fn failed(backends: &Backends, error: &switchboard_postgres::Error) -> Error {
    if let Some(postgres) = &backends.postgres {
        postgres.note(error);
    }
    metrics::counter!("switchboard_timers_unavailable_total").increment(1);
    tracing::debug!(%error, "Postgres did not store the timers of a handler; it got `unavailable`");
    Error::Unavailable
}

fn is_key(key: &str) -> bool {
    (1..=limits::TIMER_KEY_BYTES_MAX).contains(&key.len()) && !key.contains(char::is_control)
}

/// Checks the bounds of the contract. Returns the timers in the form of the table, or the broken rule.
fn checked(timers: &[Timer], now_ms: u64) -> Result<Vec<NewTimer>, String> {
    if !(1..=limits::TIMERS_PER_SET_MAX).contains(&timers.len()) {
        return Err(format!("a call sets 1 to {} timers", limits::TIMERS_PER_SET_MAX));
    }
    let keys: BTreeSet<&str> = timers.iter().map(|timer| timer.key.as_str()).collect();
    if keys.len() < timers.len() {
        return Err("the timers of one call have different keys".to_owned());
    }
    timers.iter().map(|timer| checked_one(timer, now_ms)).collect()
}

fn checked_one(timer: &Timer, now_ms: u64) -> Result<NewTimer, String> {
    if !is_key(&timer.key) {
        return Err(KEY_RULE.to_owned());
    }
    if timer.payload.len() > limits::TIMER_PAYLOAD_BYTES_MAX {
        return Err(format!("a payload has at most {} bytes", limits::TIMER_PAYLOAD_BYTES_MAX));
    }
    if timer.payload.contains('\0') {
        return Err("a payload cannot contain the character U+0000".to_owned());
    }
    let ahead_max = limits::TIMER_AHEAD_MAX.as_millis() as u64;
    let (due, ahead) = match timer.due {
        Due::AtMs(at_ms) => (stored::Due::AtMs(at_ms), at_ms.saturating_sub(now_ms)),
        Due::AfterMs(after_ms) => (stored::Due::AfterMs(after_ms), after_ms),
    };
    if ahead > ahead_max {
        return Err(format!("a timer is due within {ahead_max} ms"));
    }
    Ok(NewTimer { key: timer.key.clone(), payload: timer.payload.clone(), due })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;
    const AHEAD_MAX_MS: u64 = limits::TIMER_AHEAD_MAX.as_millis() as u64;

    fn timer(key: &str, due: Due, payload: &str) -> Timer {
        Timer { key: key.to_owned(), due, payload: payload.to_owned() }
    }

    fn check(timers: &[Timer]) -> Result<usize, String> {
        checked(timers, NOW_MS).map(|timers| timers.len())
    }

    #[test]
    fn what_is_within_the_bounds_is_stored() {
        let key = "k".repeat(limits::TIMER_KEY_BYTES_MAX);
        let payload = "p".repeat(limits::TIMER_PAYLOAD_BYTES_MAX);
        for due in
            [Due::AtMs(0), Due::AtMs(NOW_MS + AHEAD_MAX_MS), Due::AfterMs(0), Due::AfterMs(AHEAD_MAX_MS)]
        {
            let what = format!("{due:?}");
            assert_eq!(check(&[timer(&key, due, &payload)]), Ok(1), "{what}");
        }
        let timers: Vec<_> =
            (0..limits::TIMERS_PER_SET_MAX).map(|n| timer(&n.to_string(), Due::AfterMs(1), "")).collect();
        assert_eq!(check(&timers), Ok(timers.len()));
    }

    #[test]
    fn what_is_beyond_a_bound_is_refused_with_the_rule() {
        let soon = || Due::AfterMs(1);
        let long_key = "k".repeat(limits::TIMER_KEY_BYTES_MAX + 1);
        let long_payload = "p".repeat(limits::TIMER_PAYLOAD_BYTES_MAX + 1);
        let many: Vec<_> =
            (0..=limits::TIMERS_PER_SET_MAX).map(|n| timer(&n.to_string(), soon(), "")).collect();
        for (timers, rule) in [
            (vec![], "1 to 256 timers"),
            (many, "1 to 256 timers"),
            (vec![timer("a", soon(), ""), timer("a", soon(), "x")], "different keys"),
            (vec![timer("", soon(), "")], "a key has"),
            (vec![timer("a\nb", soon(), "")], "a key has"),
            (vec![timer(&long_key, soon(), "")], "a key has"),
            (vec![timer("a", soon(), &long_payload)], "a payload has"),
            (vec![timer("a", soon(), "\0")], "U+0000"),
            (vec![timer("a", Due::AfterMs(AHEAD_MAX_MS + 1), "")], "due within"),
            (vec![timer("a", Due::AtMs(u64::MAX), "")], "due within"),
        ] {
            let refusal = check(&timers).unwrap_err();
            assert!(refusal.contains(rule), "{refusal}");
        }
    }
}
