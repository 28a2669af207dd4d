//! A canary and a running release, with generated calls.

use super::*;
use switchboard_runtime::{Caller, Ending, Kind};

/// The calls of two releases.
struct Both {
    canary: CallLog,
    running: CallLog,
    begun: Instant,
    now: Instant,
    users: usize,
}

const TRAP: Ending = Ending::Failed(Kind::Trap);

impl Both {
    fn new() -> Self {
        // A test may look back by an hour.
        let begun = Instant::now() + Duration::from_secs(3600);
        let (canary, running) = (CallLog::default(), CallLog::default());
        Self { canary, running, begun, now: begun + Duration::from_millis(1), users: 0 }
    }

    fn judge(&self) -> Option<Threshold> {
        self.cause().map(|cause| cause.over)
    }

    fn cause(&self) -> Option<Cause> {
        judge(self.now, self.begun, &self.canary, &self.running, &Thresholds::default())
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    /// Records calls, each of a different user.
    fn canary(&mut self, count: usize, ending: Ending, took_ms: u64) {
        self.users += count;
        for n in 0..count {
            let user = format!("user-{}", self.users - n);
            self.canary.record(self.now, Caller::User(&user), Duration::from_millis(took_ms), ending);
        }
    }

    fn running(&mut self, count: usize, ending: Ending, took_ms: u64) {
        self.users += count;
        for n in 0..count {
            let user = format!("user-{}", self.users - n);
            self.running.record(self.now, Caller::User(&user), Duration::from_millis(took_ms), ending);
        }
    }

    fn canary_by(&mut self, caller: Caller<'_>, count: usize, ending: Ending) {
        for _ in 0..count {
            self.canary.record(self.now, caller, Duration::from_millis(1), ending);
        }
    }
}

#[test]
fn a_crash_loop_ends_at_its_tenth_failure_and_sooner_where_nothing_else_comes() {
    let mut both = Both::new();
    both.canary(40, Ending::Answered, 1);
    both.canary(9, TRAP, 1);
    assert_eq!(both.judge(), None);
    both.canary(1, TRAP, 1);
    assert_eq!(both.judge(), Some(Threshold::Failures));

    let mut quiet = Both::new();
    quiet.canary(2, TRAP, 1);
    assert_eq!(quiet.judge(), None);
    quiet.pass(20_000);
    quiet.canary(1, TRAP, 1);
    assert_eq!(quiet.judge(), Some(Threshold::Failures));
}

#[test]
fn three_of_three_calls_are_enough_from_different_users_and_from_nobody() {
    let mut users = Both::new();
    users.running(8, Ending::Answered, 1);
    users.canary(3, TRAP, 1);
    let cause = users.cause().expect("three users met nothing but failures");
    let sentence = cause.to_string();
    assert_eq!(
        sentence,
        "3 of 3 calls ended without an answer, of the running release 0 of 8 (within 0.0 s; 3 of its 3 callers met errors)"
    );

    let mut schedules = Both::new();
    schedules.canary_by(Caller::Host, 3, TRAP);
    assert_eq!(schedules.judge(), Some(Threshold::Failures));

    let mut events = Both::new();
    for id in ["a", "b", "c"] {
        events.canary_by(Caller::Event(id), 1, TRAP);
    }
    assert_eq!(events.judge(), Some(Threshold::Failures));
}

#[test]
fn a_few_callers_do_not_take_a_canary_back_however_often_they_call() {
    for (caller, why) in [
        (Caller::User("eve"), "one user"),
        (Caller::Anonymous, "clients without a token"),
        (Caller::Event("poison"), "one event that is tried again and again"),
    ] {
        let mut alone = Both::new();
        alone.canary_by(caller, 22, TRAP);
        assert_eq!(alone.judge(), None, "{why}, alone");
        let mut among_others = Both::new();
        among_others.running(400, Ending::Answered, 1);
        among_others.canary(30, Ending::Answered, 1);
        among_others.canary_by(caller, 2000, TRAP);
        assert_eq!(among_others.judge(), None, "{why}");
    }
    // Two accounts, and answers that are errors.
    let mut two = Both::new();
    two.running(400, Ending::Answered, 1);
    two.canary(30, Ending::Answered, 1);
    two.canary_by(Caller::User("eve"), 500, Ending::Error);
    two.canary_by(Caller::User("mallory"), 500, TRAP);
    assert_eq!(two.judge(), None);
    // As many accounts as one in twenty of the canary's users, and two more.
    let mut many = Both::new();
    many.running(1000, Ending::Answered, 1);
    many.canary(95, Ending::Answered, 1);
    for n in 0..7 {
        many.canary_by(Caller::User(&format!("eve-{n}")), 100, TRAP);
    }
    assert_eq!(many.judge(), None);
}

#[test]
fn what_everybody_meets_is_noticed_while_one_caller_makes_noise() {
    let mut both = Both::new();
    both.running(400, Ending::Answered, 1);
    both.canary(30, Ending::Answered, 1);
    both.canary_by(Caller::User("eve"), 5000, Ending::Answered);
    both.canary(12, TRAP, 1);
    assert_eq!(both.judge(), Some(Threshold::Failures));
}

#[test]
fn few_users_who_meet_failures_now_and_then_are_enough_in_time() {
    let mut both = Both::new();
    both.running(200, Ending::Answered, 1);
    for user in ["ana", "bo", "cy", "dee"] {
        both.canary_by(Caller::User(user), 6, Ending::Answered);
        both.canary_by(Caller::User(user), 4, TRAP);
    }
    assert_eq!(both.judge(), Some(Threshold::Failures));
}

#[test]
fn a_difference_that_can_be_chance_is_none() {
    // 20 % against 8 %: more than five points, but by chance one time in thirty.
    let mut both = Both::new();
    both.running(92, Ending::Answered, 1);
    both.running(8, TRAP, 1);
    both.canary(40, Ending::Answered, 1);
    both.canary(10, TRAP, 1);
    assert_eq!(both.judge(), None);
    // The same percentages of ten times as many calls are not chance.
    both.running(828, Ending::Answered, 1);
    both.running(72, TRAP, 1);
    both.canary(360, Ending::Answered, 1);
    both.canary(90, TRAP, 1);
    assert_eq!(both.judge(), Some(Threshold::Failures));
}

#[test]
fn what_the_running_release_suffers_too_is_not_the_canarys_fault() {
    let mut both = Both::new();
    both.canary(30, Ending::Failed(Kind::Deadline), 1);
    both.running(300, Ending::Failed(Kind::Deadline), 1);
    assert_eq!(both.judge(), None);
    let mut few = Both::new();
    few.canary(3, Ending::Failed(Kind::Deadline), 1);
    few.running(1, Ending::Failed(Kind::Deadline), 1);
    assert_eq!(few.judge(), None);
}

#[test]
fn both_are_compared_over_the_same_time_when_a_log_is_full() {
    let mut both = Both::new();
    // Postgres is not reachable for both releases.
    both.canary(50, Ending::Failed(Kind::Deadline), 1);
    both.running(500, Ending::Failed(Kind::Deadline), 1);
    both.pass(5_000);
    both.running(limits::CANARY_CALLS_MAX, Ending::Answered, 1);
    both.canary(200, Ending::Answered, 1);
    both.pass(10);
    assert_eq!(
        both.judge(),
        None,
        "the running release's failures were forgotten, so the canary's do not count"
    );
}

#[test]
fn a_good_hour_hides_no_bad_second() {
    let mut both = Both::new();
    for _ in 0..4 * 59 {
        both.canary(5, Ending::Answered, 1);
        both.pass(250);
        assert_eq!(both.judge(), None);
    }
    // 10 of 1,190 are not enough; 10 of 50 are.
    both.canary(10, TRAP, 1);
    assert_eq!(both.judge(), Some(Threshold::Failures));
}

#[test]
fn errors_count_from_enough_calls_on() {
    let mut both = Both::new();
    both.canary(40, Ending::Answered, 1);
    both.canary(9, Ending::Error, 1);
    assert_eq!(both.judge(), None);
    both.canary(1, Ending::Answered, 1);
    assert_eq!(both.judge(), Some(Threshold::Errors));
    both.running(80, Ending::Answered, 1);
    both.running(20, Ending::Error, 1);
    assert_eq!(both.judge(), None, "18 % beside 20 %");
}

#[test]
fn slowness_is_compared_and_noise_is_none() {
    let mut both = Both::new();
    both.running(100, Ending::Answered, 2);
    both.canary(50, Ending::Answered, 4);
    assert_eq!(both.judge(), None);
    let mut slow = Both::new();
    slow.running(100, Ending::Answered, 2);
    slow.canary(50, Ending::Answered, 40);
    assert_eq!(slow.judge(), Some(Threshold::Latency));
    let mut alone = Both::new();
    alone.canary(500, Ending::Answered, 40);
    assert_eq!(alone.judge(), None, "nothing to compare with");
    // A user sends many trivial requests to the running release. That must not make it look faster.
    let mut flooded = Both::new();
    flooded.running(100, Ending::Answered, 40);
    for _ in 0..5000 {
        flooded.running.record(flooded.now, Caller::User("eve"), Duration::from_micros(50), Ending::Answered);
    }
    flooded.canary(100, Ending::Answered, 40);
    assert_eq!(flooded.judge(), None);
}

#[test]
fn old_failures_are_forgotten() {
    let mut both = Both::new();
    both.canary(40, Ending::Answered, 1);
    both.canary(9, TRAP, 1);
    for _ in 0..4 * 70 {
        both.pass(250);
        assert_eq!(both.judge(), None);
    }
    both.canary(40, Ending::Answered, 1);
    both.canary(9, TRAP, 1);
    assert_eq!(both.judge(), None);
}
