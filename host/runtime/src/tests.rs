//! Bad guests, one at a time: the call ends within its bounds, with the right failure, and the next call
//! works.

mod fairness;

use std::time::Duration;

use super::*;
use switchboard_contract::schedule;
use switchboard_core::config::RecordedCalls;
use switchboard_core::{Blame, Blamed};
use switchboard_recording::{Outcome, Recording, redact_secrets};
use switchboard_telemetry::Tracer;
use switchboard_testing::guests;

struct Sandbox {
    runtime: Arc<Runtime>,
    _data: tempfile::TempDir,
}

fn sandbox() -> Sandbox {
    let data = tempfile::tempdir().unwrap();
    let options = Options {
        guest_memory_mib: 128,
        tracer: Tracer::default(),
        compiler: Compiler::InProcess,
        data_dir: data.path().to_owned(),
        secret: "a secret of at least thirty-two characters".into(),
        recordings: Some(RecordingSettings {
            directory: data.path().join("recordings"),
            calls: RecordedCalls::All,
            one_in: 1,
            bodies: true,
        }),
    };
    Sandbox { runtime: Arc::new(Runtime::with(options, Backends::default()).unwrap()), _data: data }
}

/// The calls that are inside the release now.
fn calls_in_flight(release: &LoadedRelease) -> usize {
    release.manifest.limits.concurrency as usize - release.slots.available_permits()
}

/// Yields to other tasks until the condition holds.
async fn until(what: &str, so: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !so() {
            tokio::task::yield_now().await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

impl Sandbox {
    async fn load(&self, file: &[u8]) -> Arc<LoadedRelease> {
        let file = ReleaseFile::parse(file.to_vec()).unwrap();
        self.runtime.load(&file, &Inputs::default()).await.unwrap()
    }

    async fn refusal(&self, file: &[u8]) -> String {
        let file = ReleaseFile::parse(file.to_vec()).unwrap();
        self.runtime.load(&file, &Inputs::default()).await.unwrap_err().reason
    }

    async fn tick(&self, release: &Arc<LoadedRelease>) -> Result<(), Failure> {
        let tick = schedule::Tick { name: "tick".into(), node: "node".into(), due_ms: 7 };
        self.runtime
            .call::<export::Schedule>(release, Call::new(None), tick)
            .await
            .map(|answer| answer.unwrap())
    }

    /// The same, answered by a source.
    async fn tick_with(&self, release: &Arc<LoadedRelease>, source: Source) -> Result<(), Failure> {
        let tick = schedule::Tick { name: "tick".into(), node: "node".into(), due_ms: 7 };
        let (result, _) = self
            .runtime
            .run::<export::Schedule>(release, release.terms(), Call::new(None), source, None, Arc::new(tick))
            .await;
        result.map(|output| assert_eq!(output, Ok(())))
    }

    async fn fails(&self, file: &[u8]) -> Failure {
        let release = self.load(file).await;
        let failure = self.tick(&release).await.unwrap_err();
        assert_eq!(calls_in_flight(&release), 0);
        failure
    }

    fn recordings(&self) -> Vec<Recording> {
        let directory = self._data.path().join("recordings/guest");
        let mut files: Vec<_> =
            std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        files.iter().map(|path| Recording::parse(&std::fs::read_to_string(path).unwrap()).unwrap()).collect()
    }
}

#[tokio::test]
async fn a_handler_answers_and_answers_again() {
    let sandbox = sandbox();
    let release = sandbox.load(&guests::returns()).await;
    for _ in 0..3 {
        sandbox.tick(&release).await.unwrap();
    }
}

/// The pool refuses these when they are loaded, after they were compiled.
#[tokio::test]
async fn what_does_not_fit_the_pool_is_refused_with_its_sentence_and_the_release_is_to_blame() {
    let sandbox = sandbox();
    for (file, reason) in [
        (guests::with_modules(3, 1), "the component has 4 memories; the maximum is 2"),
        (guests::with_modules(1, 2000), "the memory begins with 131072000 bytes; `limits.memory_mib` allows"),
        (guests::with_modules(70, 0), "core module instances"),
    ] {
        let file = ReleaseFile::parse(file).unwrap();
        let refusal = sandbox.runtime.load(&file, &Inputs::default()).await.unwrap_err();
        assert_eq!(refusal.blame(), Blame::Guest, "{refusal}");
        assert!(refusal.reason.contains(reason), "{refusal}");
    }
}

#[tokio::test]
async fn a_loop_ends_at_its_processor_time_and_others_have_their_turn() {
    let sandbox = sandbox();
    let good = sandbox.load(&guests::returns()).await;
    let looping = sandbox.load(&guests::loops()).await;
    // One thread for both: the good calls only get through if the loop yields.
    let mut beside = 0;
    let failure = tokio::select! {
        biased;
        ended = sandbox.tick(&looping) => ended.unwrap_err(),
        () = async { loop {
            // Without a recording: that would wait for a file.
            sandbox.tick_with(&good, Source::Live).await.unwrap();
            beside += 1;
            tokio::task::yield_now().await;
        } } => unreachable!("it goes on until the loop was ended"),
    };
    assert_eq!(failure.kind, Kind::Cpu);
    assert!(
        failure.detail.contains("20 ms") && failure.detail.contains("the_body_of_the_guest"),
        "{failure}"
    );
    assert!(beside >= 5, "{beside} calls went on beside it");
}

#[tokio::test]
async fn processor_time_adds_up_over_host_calls() {
    assert_eq!(sandbox().fails(&guests::works_between_host_calls()).await.kind, Kind::Cpu);
}

#[tokio::test]
async fn a_trap_names_its_function_and_blames_the_guest() {
    let failure = sandbox().fails(&guests::traps()).await;
    assert_eq!((failure.kind, failure.blame()), (Kind::Trap, Blame::Guest));
    assert!(failure.detail.contains("unreachable"), "{failure}");
    assert!(failure.detail.contains("in the_body_of_the_guest"), "{failure}");
    // The problem that the caller gets contains none of it.
    let problem = failure.problem();
    assert_eq!((problem.status, problem.code.as_str()), (500, "internal"));
    assert!(!problem.detail.contains("body"), "{problem:?}");
}

#[tokio::test]
async fn a_panic_is_in_the_failure_with_its_place_even_without_host_calls_left() {
    let sandbox = sandbox();
    let failure = sandbox.fails(&guests::panics("no room", "src/lib.rs:10:9", 10, 1)).await;
    assert_eq!((failure.kind, failure.blame()), (Kind::Trap, Blame::Guest));
    assert!(failure.detail.starts_with("panic: no room, in src/lib.rs:10:9; wasm trap"), "{failure}");
    assert!(!failure.problem().detail.contains("room"), "{failure}");
    let recording = sandbox.recordings().pop().unwrap();
    assert_eq!(recording.exchanges.len(), 10);
    assert_eq!(recording.outcome, Outcome::Failed { kind: "trap".into(), detail: failure.detail });
}

#[tokio::test]
async fn the_report_of_a_panic_is_bounded_and_only_the_first_is_free() {
    let sandbox = sandbox();
    let message = format!("a\0{}", "é".repeat(1000));
    let failure = sandbox.fails(&guests::panics(&message, "here", 0, 1)).await;
    let (panic, _) = failure.detail.split_once(", in here; ").expect("the place");
    assert!(panic.starts_with("panic: a\u{fffd}é") && panic.len() < 1100, "{failure}");
    // The second report is a log line, which is one host call too many.
    let failure = sandbox.fails(&guests::panics("again", "here", 10, 2)).await;
    assert_eq!(failure.kind, Kind::HostCalls);
}

#[tokio::test]
async fn endless_recursion_is_a_trap() {
    let failure = sandbox().fails(&guests::recurses()).await;
    assert_eq!(failure.kind, Kind::Trap);
    assert!(failure.detail.contains("call stack exhausted"), "{failure}");
}

#[tokio::test]
async fn memory_is_bounded_by_the_manifest() {
    let failure = sandbox().fails(&guests::bombs_memory()).await;
    assert_eq!(failure.kind, Kind::Memory);
    assert!(failure.detail.contains("1 MiB"), "{failure}");
}

#[tokio::test]
async fn host_calls_are_counted_to_the_last() {
    let sandbox = sandbox();
    let most = sandbox.load(&guests::asks_the_time(10)).await;
    sandbox.tick(&most).await.unwrap();
    let failure = sandbox.fails(&guests::asks_the_time(11)).await;
    assert_eq!(failure.kind, Kind::HostCalls);
    assert!(failure.detail.contains("more than 10 host calls"), "{failure}");
}

#[tokio::test]
async fn bytes_of_host_calls_are_counted() {
    let sandbox = sandbox();
    // The level counts as eight.
    let most = sandbox.load(&guests::logs(992)).await;
    sandbox.tick(&most).await.unwrap();
    assert_eq!(sandbox.fails(&guests::logs(993)).await.kind, Kind::HostBytes);
}

#[tokio::test]
async fn beyond_its_concurrency_callers_get_a_time_to_retry() {
    let sandbox = sandbox();
    let release = sandbox.load(&guests::loops()).await;
    let (a, b, c) = tokio::join!(sandbox.tick(&release), sandbox.tick(&release), sandbox.tick(&release));
    let kinds = [a, b, c].map(|ended| ended.unwrap_err().kind);
    assert_eq!(kinds, [Kind::Cpu, Kind::Cpu, Kind::Busy]);
    let problem = Failure::new(Kind::Busy, "").problem();
    assert_eq!((problem.status, problem.retry_after_ms), (503, Some(1000)));
}

#[tokio::test]
async fn a_call_that_is_dropped_gives_back_its_slots() {
    let sandbox = sandbox();
    let release = sandbox.load(&guests::loops()).await;
    for _ in 0..3 {
        let dropped = tokio::time::timeout(Duration::from_millis(5), sandbox.tick(&release)).await;
        assert!(dropped.is_err(), "it loops for longer");
        // The call may be on a background thread, where it ends at its next tick.
        until("the call to end", || calls_in_flight(&release) == 0).await;
    }
    until("every slot to be free", || sandbox.runtime.budget.calls.free() == limits::CALLS_MAX as usize)
        .await;
}

#[tokio::test]
async fn a_call_ends_at_the_deadline_of_what_it_is_a_part_of() {
    let sandbox = sandbox();
    let looping = sandbox.load(&guests::loops()).await;
    let until = |ms: u64| Some(tokio::time::Instant::now() + Duration::from_millis(ms));
    let tick = || schedule::Tick { name: "tick".into(), node: "node".into(), due_ms: 7 };
    // The guest's own limits are 20 ms of processor time and 400 ms.
    let call = Call { deadline: until(2), ..Call::new(None) };
    let failure = sandbox.runtime.call::<export::Schedule>(&looping, call, tick()).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Deadline, "{failure}");
    assert!(failure.detail.starts_with("no answer after "), "{failure}");
    // A later deadline does not replace its own.
    let release = sandbox.load(&guests::returns()).await;
    let call = Call { deadline: until(60_000), ..Call::new(None) };
    let state = sandbox.runtime.state(release.terms(), call, Source::Live, None);
    assert_eq!(state.deadline_ms, 400);
}

#[tokio::test]
async fn bad_releases_are_refused_with_a_reason() {
    let sandbox = sandbox();
    let schedule = "name = \"guest\"\non.schedule = [{ name = \"tick\", every_ms = 1000 }]\n";
    for (file, reason) in [
        (guests::starts_with_a_host_call(), "cannot be instantiated: diverged"),
        (
            guests::with_manifest("name = \"guest\"\non.frame = [{ type = \"x\" }]"),
            "binds `on.frame`, but the component does not export `switchboard:host/frame` (it exports \
             `switchboard:host/schedule`)",
        ),
        (
            guests::with_manifest(&format!("{schedule}on.frame = [{{ type = \"x\" }}]")),
            "binds `on.frame`, but",
        ),
        (damaged(), "does not compile"),
    ] {
        let refusal = sandbox.refusal(&file).await;
        assert!(refusal.contains(reason), "{refusal}");
    }
}

/// The right sections with wrong code in them.
fn damaged() -> Vec<u8> {
    let mut bytes = guests::returns();
    // The body's `i32.const 16; end`, with another instruction in front that finds nothing on the stack.
    let at = bytes.windows(3).position(|window| window == [0x41, 0x10, 0x0b]).unwrap();
    bytes[at] = 0x1a;
    bytes
}

#[tokio::test]
async fn a_recording_replays_exactly_and_shows_where_another_release_diverges() {
    let sandbox = sandbox();
    let two = sandbox.load(&guests::asks_the_time(2)).await;
    sandbox.tick(&two).await.unwrap();
    let recording = sandbox.recordings().pop().unwrap();
    assert_eq!(recording.exchanges.len(), 2);
    assert_eq!(recording.input["due_ms"], 7);

    let again = sandbox.runtime.replay(&two, &recording).await.unwrap();
    let without_times = |recording: &Recording| {
        let mut recording = recording.clone();
        recording.exchanges.iter_mut().for_each(|exchange| exchange.micros = 0);
        recording.write(redact_secrets)
    };
    assert_eq!(without_times(&again), without_times(&recording));

    let three = sandbox.load(&guests::asks_the_time(3)).await;
    let other = sandbox.runtime.replay(&three, &recording).await.unwrap();
    let Outcome::Failed { kind, detail } = other.outcome else { panic!("{:?}", other.outcome) };
    assert_eq!(kind, "diverged");
    assert!(detail.contains("at host call 2: the recording ends before clock.now-ms"), "{detail}");
}

#[tokio::test]
async fn a_failed_call_is_recorded_with_its_failure() {
    let sandbox = sandbox();
    let failure = sandbox.fails(&guests::asks_the_time(11)).await;
    let recording = sandbox.recordings().pop().unwrap();
    assert_eq!(recording.exchanges.len(), 10);
    assert_eq!(recording.outcome, Outcome::Failed { kind: "host_calls".into(), detail: failure.detail });
}

fn faulty(at: usize, fault: InjectedFault) -> Source {
    Source::Fault { at, fault, otherwise: Box::new(Source::Live) }
}

#[tokio::test]
async fn a_host_call_that_does_not_answer_ends_with_the_deadline() {
    let sandbox = sandbox();
    let release = sandbox.load(&guests::asks_the_time(3)).await;
    let begun = Instant::now();
    let late = faulty(1, InjectedFault::Delay(Duration::from_secs(3600)));
    let failure = sandbox.tick_with(&release, late).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Deadline);
    assert!(begun.elapsed() >= Duration::from_millis(400));
    assert_eq!(failure.problem().status, 503);
    assert_eq!(calls_in_flight(&release), 0);
    sandbox.tick(&release).await.unwrap();
}

#[tokio::test]
async fn a_fault_meets_the_host_call_it_is_meant_for() {
    let sandbox = sandbox();
    let release = sandbox.load(&guests::asks_the_time(3)).await;
    sandbox.tick_with(&release, faulty(2, InjectedFault::Answer(5.into()))).await.unwrap();
    sandbox.tick_with(&release, faulty(3, InjectedFault::Trap("never met".into()))).await.unwrap();
    let failure =
        sandbox.tick_with(&release, faulty(2, InjectedFault::Trap("cut".into()))).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Trap);
    assert!(failure.detail.contains("injected fault: cut"), "{failure}");
    // The value does not have the type of the function's answer.
    let failure =
        sandbox.tick_with(&release, faulty(0, InjectedFault::Answer("x".into()))).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Diverged);
}

#[tokio::test]
async fn a_call_that_ran_out_of_time_is_replayed_without_waiting() {
    let sandbox = sandbox();
    let release = sandbox.load(&guests::asks_the_time(3)).await;
    let late = faulty(1, InjectedFault::Delay(Duration::from_secs(3600)));
    let input = serde_json::json!({ "name": "tick", "node": "node", "due_ms": 7 });
    let recording =
        sandbox.runtime.play(&release, Call::new(None), "schedule", input, late, 1000).await.unwrap();
    assert_eq!(recording.exchanges[1].answer, None);
    let begun = Instant::now();
    let again = sandbox.runtime.replay(&release, &recording).await.unwrap();
    assert!(
        switchboard_recording::differences(&recording, &again).is_empty(),
        "{:?} {:?}",
        recording.outcome,
        again.outcome
    );
    assert!(begun.elapsed() < Duration::from_millis(400), "it waited for the deadline");
}

#[tokio::test]
async fn a_stage_decides_call_by_call() {
    struct Second;
    impl Responder for Second {
        fn respond(&mut self, at: usize, function: &'static str, _: &serde_json::Value) -> Response {
            assert_eq!(function, "clock.now-ms");
            match at {
                0 => Response::Answer(5.into()),
                1 => Response::DoneBut(6.into()),
                _ => Response::Trap("enough".into()),
            }
        }
    }
    let sandbox = sandbox();
    let release = sandbox.load(&guests::asks_the_time(3)).await;
    let input = serde_json::json!({ "name": "tick", "node": "node", "due_ms": 7 });
    let source = Source::Responder(Box::new(Second));
    let recording =
        sandbox.runtime.play(&release, Call::new(None), "schedule", input, source, 1000).await.unwrap();
    let answers: Vec<_> = recording.exchanges.iter().map(|exchange| exchange.answer.clone()).collect();
    assert_eq!(answers, [Some(5.into()), Some(6.into()), None]);
    assert!(matches!(recording.outcome, Outcome::Failed { kind, .. } if kind == "trap"));
}

#[tokio::test]
async fn what_speaks_wasi_is_recorded_and_replayed_like_the_rest() {
    let sandbox = sandbox();
    let release = sandbox.load(&guests::speaks_wasi()).await;
    sandbox.tick(&release).await.unwrap();
    let recording = sandbox.recordings().pop().unwrap();
    let asked: Vec<_> = recording.exchanges.iter().map(|exchange| exchange.function.as_str()).collect();
    assert_eq!(asked, ["wasi.random", "wasi.monotonic-clock"]);
    let again = sandbox.runtime.replay(&release, &recording).await.unwrap();
    assert_eq!(again.exchanges[0].answer, recording.exchanges[0].answer);
    assert_eq!(again.outcome, recording.outcome);
}

#[tokio::test]
async fn new_settings_need_no_new_release_and_a_call_keeps_those_that_it_began_with() {
    let sandbox = sandbox();
    let manifest = "name = \"guest\"\non.schedule = [{ name = \"tick\", every_ms = 1000 }]\n[config]\nvotes = 3\n\
                    [settings.votes]\ntype = \"integer\"\nmax = 9";
    let release = sandbox.load(&guests::with_manifest(manifest)).await;
    sandbox.tick(&release).await.unwrap();
    let of_a_call_in_flight = release.terms();
    let live =
        |votes: &str| Inputs { live: [("votes".to_owned(), votes.to_owned())].into(), ..Inputs::default() };
    release.apply(live("4")).await.unwrap();
    assert_eq!(release.settings()["votes"], "4");
    assert_eq!(of_a_call_in_flight.settings["votes"], "3");

    sandbox.tick(&release).await.unwrap();
    assert_eq!(release.stats.outcomes(), [("schedule", "returned", 2)]);
    let host_calls = release.host_calls();
    assert_eq!((host_calls[0].0, host_calls[0].1.count()), ("clock.now-ms", 2), "the counts stay");

    let refusal = release.apply(live("10")).await.unwrap_err();
    assert_eq!(refusal.blame(), Blame::Operator);
    assert!(refusal.reason.contains("votes is an integer of at most 9"), "{refusal}");
    assert_eq!(release.settings()["votes"], "4", "it keeps the former ones");
    release.apply(Inputs::default()).await.unwrap();
    assert_eq!(release.settings()["votes"], "3");
}

#[tokio::test]
async fn other_tasks_go_on_while_large_secrets_are_applied() {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    let sandbox = sandbox();
    let release = sandbox.load(&guests::asks_the_time(1)).await;
    let large = |name: &str| -> (String, Vec<u8>) {
        (name.to_owned(), name.bytes().cycle().take(limits::SECRET_BYTES_MAX).collect())
    };
    let secrets = ["A-1", "B-2", "C-3", "D-4"].map(large).into();
    let turns = Arc::<AtomicUsize>::default();
    let counted = turns.clone();
    // The runtime of this test has one thread.
    let others = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Relaxed);
            tokio::task::yield_now().await;
        }
    });
    tokio::task::yield_now().await;
    let before = turns.load(Relaxed);
    release.apply(Inputs { secrets, ..Inputs::default() }).await.unwrap();
    assert!(turns.load(Relaxed) > before + 10, "{} turns", turns.load(Relaxed) - before);
    assert_eq!(release.secret_values().len(), 4);
    others.abort();
}

#[tokio::test]
async fn a_call_gets_a_secret_that_is_granted_and_set() {
    use switchboard_contract::secrets::Error::{Missing, Refused};
    let sandbox = sandbox();
    let manifest = "name = \"guest\"\non.schedule = [{ name = \"tick\", every_ms = 1000 }]\n\
                    [grants]\nsecrets = [\"TOKEN\", \"UNSET\"]";
    let release = sandbox.load(&guests::with_manifest(manifest)).await;
    let secrets = |value: &[u8]| {
        let all = [("TOKEN", value), ("OTHER", b"a value of the fleet")];
        Inputs {
            secrets: all.map(|(name, value)| (name.to_owned(), value.to_vec())).into(),
            ..Inputs::default()
        }
    };
    release.apply(secrets(b"\0first value")).await.unwrap();
    let of_a_call_in_flight = release.terms();
    release.apply(secrets(b"second value")).await.unwrap();
    assert_eq!(of_a_call_in_flight.secret("TOKEN"), Ok(b"\0first value".to_vec()));
    let terms = release.terms();
    assert_eq!(terms.secret("TOKEN"), Ok(b"second value".to_vec()));
    assert_eq!((terms.secret("UNSET"), terms.secret("OTHER")), (Err(Missing), Err(Refused)));
    assert_eq!(terms.secrets.conceal_text("a second value!"), "a [secret TOKEN]!");
    release.apply(Inputs::default()).await.unwrap();
    assert_eq!(release.terms().secret("TOKEN"), Err(Missing));
}
