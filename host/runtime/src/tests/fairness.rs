//! One release takes all resources that it can get. It must not affect the calls of another release.

use futures_util::future::join_all;
use tokio::task::JoinHandle;

use super::*;

const PATIENT: &str = "deadline_ms = 60000\ncpu_ms = 10000\nmemory_mib = 64\nconcurrency = 1024";

/// Calls that go on until they are dropped.
struct Flood(Vec<JoinHandle<Result<(), Failure>>>);

impl Flood {
    /// Each waits in its first host call for an hour.
    fn that_waits(sandbox: &Sandbox, release: &Arc<LoadedRelease>, calls: usize) -> Self {
        let call = |runtime: Arc<Runtime>, release: Arc<LoadedRelease>| async move {
            let hour = faulty(0, InjectedFault::Delay(Duration::from_secs(3600)));
            runtime
                .run::<export::Schedule>(
                    &release,
                    release.terms(),
                    Call::new(None),
                    hour,
                    None,
                    Arc::new(due()),
                )
                .await
                .0
                .map(drop)
        };
        Self((0..calls).map(|_| tokio::spawn(call(sandbox.runtime.clone(), release.clone()))).collect())
    }

    fn that_loops(sandbox: &Sandbox, release: &Arc<LoadedRelease>, calls: usize) -> Self {
        let call = |runtime: Arc<Runtime>, release: Arc<LoadedRelease>| async move {
            runtime.call::<export::Schedule>(&release, Call::new(None), due()).await.map(drop)
        };
        Self((0..calls).map(|_| tokio::spawn(call(sandbox.runtime.clone(), release.clone()))).collect())
    }

    async fn end(self) -> Vec<Failure> {
        let mut failures = Vec::new();
        for call in self.0 {
            call.abort();
            if let Ok(Err(failure)) = call.await {
                failures.push(failure);
            }
        }
        failures
    }
}

fn due() -> schedule::Tick {
    schedule::Tick { name: "tick".into(), node: "node".into(), due_ms: 7 }
}

#[tokio::test]
async fn releases_whose_calls_hang_leave_slots_to_the_others() {
    let sandbox = sandbox();
    let mut floods = Vec::new();
    let mut hanging = Vec::new();
    for n in 0..3 {
        let release = sandbox.load(&guests::named(&format!("hangs-{n}"), PATIENT, 0)).await;
        floods.push(Flood::that_waits(&sandbox, &release, 1024));
        hanging.push(release);
    }
    let other = sandbox.load(&guests::named("other", "concurrency = 1024", 0)).await;
    until("every call to hang or to be refused", || {
        let left = floods.iter().flat_map(|flood| &flood.0).filter(|call| !call.is_finished()).count();
        left == hanging.iter().map(|release| calls_in_flight(release)).sum::<usize>() && left > 1000
    })
    .await;
    // A release that runs alone is bounded only by its own manifest.
    assert_eq!(calls_in_flight(&hanging[0]), 1024);
    // Forty calls at a time, as on an idle node.
    for _ in 0..5 {
        let answers = join_all((0..40).map(|_| sandbox.tick(&other))).await;
        let refused = answers.iter().filter(|answer| answer.is_err()).count();
        assert_eq!(refused, 0, "{refused} of 40 calls found no slot");
    }
    for flood in floods {
        assert!(flood.end().await.iter().all(|failure| failure.kind == Kind::Busy));
    }
    until("every slot to be free", || sandbox.runtime.budget.calls.free() == limits::CALLS_MAX as usize)
        .await;
}

#[tokio::test]
async fn calls_that_take_much_memory_leave_some_to_the_others() {
    // The node of these tests has 128 MiB for its guests.
    let sandbox = sandbox();
    let greedy = sandbox.load(&guests::named("greedy", PATIENT, 60 * 16)).await;
    let other = sandbox.load(&guests::named("other", PATIENT, 12 * 16)).await;
    let flood = Flood::that_waits(&sandbox, &greedy, 40);
    until("every call to hold its memory or to be refused", || {
        let held = flood.0.iter().filter(|call| !call.is_finished()).count();
        held == 1 && calls_in_flight(&greedy) == 1
    })
    .await;
    let taken = 128 * 16 - sandbox.runtime.budget.memory.free();
    let holding = calls_in_flight(&greedy);
    assert!(holding == 1 && taken < 64 * 16, "{holding} calls hold {taken} units of 64 KiB");
    for _ in 0..10 {
        sandbox.tick(&other).await.unwrap();
    }
    let failures = flood.end().await;
    assert_eq!(failures.len(), 39);
    for failure in failures {
        assert_eq!((failure.kind, failure.blame()), (Kind::NodeMemory, Blame::Host), "{failure}");
        assert_eq!(failure.problem().status, 503);
    }
    assert_eq!(sandbox.runtime.budget.memory.free(), 128 * 16);
    // Once they are gone there is room again.
    sandbox.tick(&greedy).await.unwrap();
}

/// Returns the 99th percentile of the durations of two hundred calls.
async fn p99(sandbox: &Sandbox, release: &Arc<LoadedRelease>) -> Duration {
    let mut took = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        // The call comes from outside: tasks that are ready go first.
        tokio::task::yield_now().await;
        sandbox.tick_with(release, Source::Live).await.unwrap();
        took.push(begun.elapsed());
    }
    took.sort();
    took[took.len() * 99 / 100]
}

/// The looping calls leave the thread of this test, which is the only worker. On it, each of them would delay
/// every call of the other release by a tick, so by 1 ms.
#[tokio::test]
async fn calls_beside_ninety_that_loop_are_as_fast_as_alone() {
    let turns = crate::interfaces::turns::Turns::count();
    let sandbox = sandbox();
    let looping = sandbox.load(&guests::works("looping", PATIENT, None)).await;
    let other = sandbox.load(&guests::returns()).await;
    let (mut alone, mut beside) = (Duration::MAX, Duration::MAX);
    // A tenth more, and what a clock and a busy machine add to some microseconds.
    let is_as_fast =
        |beside: Duration, alone: Duration| beside < alone + alone / 10 + Duration::from_micros(700);
    // The best of some rounds: other processes of this machine disturb single ones.
    for _ in 0..10 {
        alone = alone.min(p99(&sandbox, &other).await);
        let flood = Flood::that_loops(&sandbox, &looping, turns + 89);
        until("all but the turns to wait", || {
            sandbox.runtime.budget.turns.waiting() == 89 && calls_in_flight(&looping) == turns + 89
        })
        .await;
        beside = beside.min(p99(&sandbox, &other).await);
        assert!(flood.end().await.is_empty(), "none of them was out of time");
        until("the looping calls to end on their threads", || calls_in_flight(&looping) == 0).await;
        if is_as_fast(beside, alone) {
            break;
        }
    }
    println!("p99 of a call: {alone:?} alone, {beside:?} beside {} looping calls", turns + 89);
    assert!(is_as_fast(beside, alone), "{beside:?} instead of {alone:?}");
}

#[tokio::test]
async fn a_long_call_of_another_release_has_its_turn_before_ninety_of_one() {
    let sandbox = sandbox();
    let looping = sandbox.load(&guests::works("looping", PATIENT, None)).await;
    // Some ten milliseconds: three or four turns, between which the other release has one each. Behind all of
    // its calls each turn would take a third of a second.
    let limits = "deadline_ms = 500\ncpu_ms = 400";
    let long = sandbox.load(&guests::works("long", limits, Some(20_000_000))).await;
    let turns = std::thread::available_parallelism().map_or(1, |cores| cores.get() - 1).max(1);
    let flood = Flood::that_loops(&sandbox, &looping, turns + 89);
    until("all but the turns to wait", || sandbox.runtime.budget.turns.waiting() == 89).await;
    sandbox.tick(&long).await.unwrap();
    assert!(flood.end().await.is_empty());
    until("the looping calls to end on their threads", || calls_in_flight(&looping) == 0).await;
    // Their turns are free again.
    sandbox.tick(&long).await.unwrap();
    assert_eq!(sandbox.runtime.budget.turns.waiting(), 0);
}
