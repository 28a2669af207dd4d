//! The state of a timer after a call: it is done, fires again, or is parked. Pure.

use std::time::Duration;

use super::super::retries::retry_after;
use switchboard_contract::timer::Verdict;
use switchboard_core::limits;
use switchboard_postgres::timers::Outcome;
use switchboard_runtime::Failure;

/// Decides about a timer by the result of its call. `attempts_max` is the attempt after which it is parked.
pub(super) fn outcome_of(result: Result<Verdict, Failure>, attempt: u32, attempts_max: u32) -> Outcome {
    match result {
        Ok(Verdict::Ack) => Outcome::Done,
        Ok(Verdict::Reject(error)) => Outcome::Parked { error },
        Ok(Verdict::Retry(ms)) => {
            let asked = Duration::from_millis(ms.into()).min(limits::EVENT_ASKED_RETRY_MAX);
            postpone_or_park(attempt, attempts_max, asked, "the handler asked for a retry".to_owned())
        }
        // The handler did not run.
        Err(failure) if failure.had_no_effect() => Outcome::Released { after: limits::TIMER_BUSY_WAIT },
        Err(failure) => postpone_or_park(attempt, attempts_max, Duration::ZERO, failure.to_string()),
    }
}

fn postpone_or_park(attempt: u32, attempts_max: u32, delay_min: Duration, error: String) -> Outcome {
    if attempt >= attempts_max {
        return Outcome::Parked { error };
    }
    Outcome::Postponed { after: retry_after(attempt).max(delay_min), error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchboard_runtime::Kind;

    fn failed(kind: Kind, attempt: u32) -> Outcome {
        outcome_of(Err(Failure::new(kind, "unreachable")), attempt, 3)
    }

    #[test]
    fn delays_grow_and_the_last_attempt_parks() {
        let after = |attempt| match failed(Kind::Trap, attempt) {
            Outcome::Postponed { after, error } if error.contains("unreachable") => after,
            other => panic!("{other:?}"),
        };
        assert_eq!([after(1), after(2)], [limits::EVENT_RETRY_AFTER, 2 * limits::EVENT_RETRY_AFTER]);
        assert!(matches!(failed(Kind::Trap, 3), Outcome::Parked { error } if error.contains("unreachable")));
        // A manifest can lower the attempts while a timer waits.
        assert!(matches!(failed(Kind::Deadline, 9), Outcome::Parked { .. }));
    }

    #[test]
    fn the_verdict_of_the_handler_counts() {
        assert_eq!(outcome_of(Ok(Verdict::Ack), 3, 3), Outcome::Done);
        let rejected = outcome_of(Ok(Verdict::Reject("no".to_owned())), 1, 3);
        assert_eq!(rejected, Outcome::Parked { error: "no".to_owned() });
        let after = |ms| outcome_of(Ok(Verdict::Retry(ms)), 1, 3).delay();
        assert_eq!(after(0), Some(limits::EVENT_RETRY_AFTER));
        assert_eq!(after(5000), Some(Duration::from_secs(5)));
        assert_eq!(after(u32::MAX), Some(limits::EVENT_ASKED_RETRY_MAX), "a handler cannot ask for days");
        assert!(matches!(outcome_of(Ok(Verdict::Retry(0)), 3, 3), Outcome::Parked { .. }));
    }

    #[test]
    fn a_busy_handler_costs_no_attempt() {
        assert_eq!(failed(Kind::Busy, 3), Outcome::Released { after: limits::TIMER_BUSY_WAIT });
    }
}
