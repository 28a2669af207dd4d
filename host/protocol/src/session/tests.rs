use proptest::prelude::*;
use serde_json::Value;

use super::*;
use switchboard_core::limits::CALLS_OF_CONNECTION_MAX;

const UNIX_MS: u64 = 1_763_600_000_000;
const IDLE_MAX: Duration = Duration::from_secs(90);

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        frames_per_second: 100,
        frames_burst: 500,
        leeway: Duration::from_secs(30),
        auth_wait: Duration::from_secs(10),
        idle: IDLE_MAX,
        stall: Duration::from_secs(30),
        expiry_warning: Duration::from_secs(60),
    })
}

/// A session with its own clock.
struct Talk {
    session: Session,
    start: Instant,
    now: Instant,
}

fn credentials(user: &str, session_id: &str, lasts: Duration) -> Arc<Credentials> {
    Arc::new(Credentials {
        user: UserId::parse(user).unwrap(),
        principal: Principal {
            user_id: user.to_owned(),
            name: None,
            roles: Vec::new(),
            session_id: session_id.to_owned(),
        },
        groups: Box::default(),
        expires_ms: UNIX_MS + lasts.as_millis() as u64,
        issued_ms: 0,
        renewed_as: None,
    })
}

impl Talk {
    fn begin() -> Self {
        let now = Instant::now();
        Self { session: Session::new(now, settings()), start: now, now }
    }

    fn signed_in(lasts: Duration) -> Self {
        let mut talk = Self::begin();
        talk.verified(Ok(credentials("ana", "s1", lasts)));
        talk.says(Input::Done);
        talk
    }

    fn says(&mut self, input: Input<'_>) -> Vec<Action> {
        self.session.handle(self.now, input)
    }

    fn sends(&mut self, text: &str) -> Vec<Action> {
        self.says(Input::Text(text))
    }

    fn verified(&mut self, verdict: Result<Arc<Credentials>, Problem>) -> Vec<Action> {
        let unix_ms = UNIX_MS + self.now.duration_since(self.start).as_millis() as u64;
        self.says(Input::Verified { verdict, unix_ms })
    }

    /// Waits for the next deadline and returns how long it took.
    fn sleeps(&mut self) -> (Duration, Vec<Action>) {
        let deadline = self.session.deadline().expect("a live session has a deadline");
        let slept = deadline.duration_since(self.now);
        self.now = deadline;
        (slept, self.says(Input::Deadline))
    }
}

fn frame(action: &Action) -> Value {
    match action {
        Action::Send(text) | Action::Open { auth_success: text, .. } => serde_json::from_str(text).unwrap(),
        other => panic!("not a frame: {other:?}"),
    }
}

/// `type`, `id`, and the error code if there is one.
fn gist(action: &Action) -> (String, Value, Value) {
    let frame = frame(action);
    (frame["type"].as_str().unwrap().to_owned(), frame["id"].clone(), frame["payload"]["code"].clone())
}

fn error(id: Value, code: &str) -> (String, Value, Value) {
    ("error".to_owned(), id, code.into())
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_first_frame_with_a_token_opens_the_connection() {
    let mut talk = Talk::begin();
    let refused = talk.sends(r#"{"type":"message.send","id":1}"#);
    assert_eq!(gist(&refused[0]), error(1.into(), "unauthorized"));
    assert_eq!(
        talk.sends(r#"{"type":"auth","id":"a","payload":{"token":"t"}}"#),
        [Action::Verify { token: "t".to_owned() }]
    );
    assert!(!talk.session.accepts_frames());

    let welcome = talk.verified(Ok(credentials("ana", "s1", secs(3600))));
    let auth_success = frame(&welcome[0]);
    assert_eq!((&auth_success["type"], &auth_success["id"]), (&"auth.success".into(), &"a".into()));
    assert_eq!(auth_success["payload"]["user_id"], "ana");
    assert_eq!(auth_success["payload"]["session_id"], "s1");
    assert_eq!(auth_success["payload"]["expires_at"], "2025-11-20T01:53:20.000Z");
    assert_eq!(auth_success["payload"]["server_time"], "2025-11-20T00:53:20.000Z");
    assert_eq!(auth_success["payload"]["heartbeat_ms"], 30_000);
    assert!(!talk.session.accepts_frames());
    assert_eq!(talk.says(Input::Done), []);
    assert!(talk.session.accepts_frames());
}

#[test]
fn without_a_token_in_ten_seconds_it_ends() {
    let mut talk = Talk::begin();
    talk.now += secs(5);
    assert_eq!(gist(&talk.sends(r#"{"type":"ping","id":1}"#)[0]).0, "pong");
    let (slept, actions) = talk.sleeps();
    assert_eq!(slept, secs(5));
    assert_eq!(actions[1], Action::Close(Close::TOKEN));
    assert_eq!(talk.session.deadline(), None);
    assert_eq!(talk.sends(r#"{"type":"ping","id":1}"#), []);
}

#[test]
fn a_bad_token_is_answered_and_ends_it() {
    for mut talk in [Talk::begin(), Talk::signed_in(secs(3600))] {
        talk.sends(r#"{"type":"auth","id":7,"payload":{"token":"t"}}"#);
        let actions = talk.verified(Err(Code::Unauthorized.problem("expired")));
        assert_eq!(gist(&actions[0]), error(7.into(), "unauthorized"));
        assert_eq!(actions[1..], [Action::Close(Close::TOKEN)]);
    }
}

#[test]
fn a_busy_verifier_and_a_missing_token_are_only_errors() {
    let mut talk = Talk::begin();
    assert_eq!(gist(&talk.sends(r#"{"type":"auth","id":7}"#)[0]), error(7.into(), "invalid"));
    talk.sends(r#"{"type":"auth","id":8,"payload":{"token":"t"}}"#);
    let actions = talk.verified(Err(Code::Unavailable.problem("busy")));
    assert_eq!((actions.len(), gist(&actions[0])), (1, error(8.into(), "unavailable")));
    assert!(talk.session.accepts_frames());
}

#[test]
fn a_token_near_its_end_is_announced_renewed_or_the_end() {
    let mut talk = Talk::signed_in(secs(100));
    let (slept, actions) = talk.sleeps();
    assert_eq!(slept, secs(40));
    assert_eq!(frame(&actions[0])["type"], "auth.expiring");
    assert_eq!(frame(&actions[0])["payload"]["expires_at"], "2025-11-20T00:55:00.000Z");

    talk.sends(r#"{"type":"auth.refresh","id":1,"payload":{"token":"t"}}"#);
    let actions = talk.verified(Ok(credentials("ana", "s2", secs(200))));
    let renewed = frame(&actions[0]);
    assert_eq!((&renewed["type"], &renewed["payload"]["session_id"]), (&"auth.success".into(), &"s1".into()));
    let who = talk.session.who().unwrap().clone();
    // The session id stays; a revocation may name either id.
    assert_eq!((who.principal.session_id.as_str(), who.renewed_as.as_deref()), ("s1", Some("s2")));
    assert_eq!(actions[1..], [Action::Renewed(who)]);

    talk.now += secs(80);
    talk.sends(r#"{"type":"ping"}"#);
    let (slept, actions) = talk.sleeps();
    assert_eq!((slept, frame(&actions[0])["type"].as_str()), (secs(20), Some("auth.expiring")));
    talk.now += secs(60);
    talk.sends(r#"{"type":"ping"}"#);
    let (slept, actions) = talk.sleeps();
    assert_eq!((slept, actions), (secs(30), vec![Action::Close(Close::TOKEN)]));
}

#[test]
fn another_users_token_is_refused_and_changes_nothing() {
    let mut talk = Talk::signed_in(secs(3600));
    talk.sends(r#"{"type":"auth.refresh","id":1,"payload":{"token":"t"}}"#);
    let actions = talk.verified(Ok(credentials("bo", "s2", secs(3600))));
    assert_eq!((actions.len(), gist(&actions[0])), (1, error(1.into(), "forbidden")));
    assert_eq!(talk.session.who().unwrap().user.as_str(), "ana");
    assert!(talk.session.accepts_frames());
}

#[test]
fn a_token_within_its_leeway_still_has_what_is_left_of_it() {
    let mut talk = Talk::begin();
    let mut late = Credentials::clone(&credentials("ana", "s1", secs(0)));
    late.expires_ms = UNIX_MS - 20_000;
    talk.verified(Ok(Arc::new(late)));
    assert_eq!(frame(&talk.says(Input::Done)[0])["type"], "auth.expiring");
    assert_eq!(talk.sleeps(), (secs(10), vec![Action::Close(Close::TOKEN)]));
}

#[test]
fn a_frame_of_a_handler_is_called_and_nothing_else_until_it_is_done() {
    let mut talk = Talk::signed_in(secs(3600));
    let actions = talk.sends(r#"{"type":"message.send","id":1,"payload":{"content":"hi"}}"#);
    assert_eq!(actions[0], Action::Touch { active: true });
    assert!(matches!(&actions[1], Action::Call(frame) if frame.payload == r#"{"content":"hi"}"#));
    assert!(!talk.session.accepts_frames());
    talk.now += secs(89);
    assert_eq!(talk.says(Input::Done), []);
    assert!(talk.session.accepts_frames());
    assert_eq!(talk.session.deadline(), Some(talk.now + IDLE_MAX));
}

#[test]
fn pings_keep_it_alive_and_silence_ends_it() {
    let mut talk = Talk::signed_in(secs(36_000));
    for (ping, pong) in
        [(r#"{"type":"ping","id":"x"}"#, Value::from("x")), (r#"{"type":"heartbeat"}"#, Value::Null)]
    {
        talk.now += secs(89);
        let actions = talk.sends(ping);
        assert_eq!(gist(&actions[0]), ("pong".to_owned(), pong, Value::Null));
        assert_eq!(actions[1..], [Action::Touch { active: false }]);
    }
    talk.now += secs(89);
    assert_eq!(talk.says(Input::Control), [Action::Touch { active: false }]);
    assert_eq!(talk.sleeps(), (secs(90), vec![Action::Close(Close::IDLE)]));
}

#[test]
fn ten_malformed_frames_in_a_minute_are_answered_and_the_next_one_ends_it() {
    let mut talk = Talk::signed_in(secs(3600));
    for number in 0..MALFORMED_FRAMES_MAX {
        let actions = if number % 2 == 0 { talk.sends("hello") } else { talk.says(Input::NotText) };
        assert_eq!((actions.len(), gist(&actions[0])), (1, error(Value::Null, "malformed")));
        talk.now += secs(5);
    }
    // An invalid frame does not count as malformed.
    assert_eq!(gist(&talk.sends(r#"{"type":"read","id":1.5}"#)[0]), error(Value::Null, "invalid"));
    talk.now += secs(15);
    assert_eq!(talk.sends("hello").len(), 1, "the first two are older than a minute");
    talk.sends("hello");
    let actions = talk.sends("hello");
    assert_eq!(gist(&actions[0]), error(Value::Null, "malformed"));
    assert_eq!(actions[1..], [Action::Close(Close::MALFORMED)]);
}

#[test]
fn a_flood_is_refused_with_its_ids_and_the_third_ends_it() {
    let mut talk = Talk::signed_in(secs(3600));
    for flood in 1..=3 {
        while gist(&talk.sends(r#"{"type":"ping","id":5}"#)[0]).0 == "pong" {}
        if flood < 3 {
            let refused = talk.sends(r#"{"type":"message.send","id":6}"#);
            assert_eq!((refused.len(), gist(&refused[0])), (1, error(6.into(), "rate_limited")));
            assert_eq!(frame(&refused[0])["payload"]["retry_after_ms"], 1000);
            talk.now += secs(1);
        }
    }
    assert!(talk.session.is_closing());
}

#[test]
fn a_full_queue_of_which_nothing_is_read_for_thirty_seconds_is_too_slow() {
    let mut talk = Talk::signed_in(secs(3600));
    talk.sends(r#"{"type":"x"}"#);
    assert_eq!(talk.says(Input::Blocked { full_since: None }), []);
    // A client that does not read is not too slow while its queue is not full, but the session checks again.
    for _ in 0..20 {
        assert_eq!(talk.sleeps(), (BLOCKED_CHECK_EVERY, vec![]));
        assert_eq!(talk.says(Input::Blocked { full_since: None }), []);
    }
    let full_since = Some(talk.now - secs(3));
    talk.says(Input::Blocked { full_since });
    talk.says(Input::Flowing);
    talk.says(Input::Blocked { full_since });
    assert_eq!(talk.sleeps(), (secs(27), vec![Action::Close(Close::TOO_SLOW)]));
}

#[test]
fn somebody_else_may_end_it_once() {
    let mut talk = Talk::signed_in(secs(3600));
    talk.sends(r#"{"type":"x"}"#);
    assert_eq!(talk.says(Input::End(Close::DISCONNECTED)), [Action::Close(Close::DISCONNECTED)]);
    assert_eq!(talk.says(Input::End(Close::DISCONNECTED)), []);
    assert_eq!(talk.says(Input::Done), []);
}

#[test]
fn a_drain_says_when_to_come_back_and_lets_the_call_finish() {
    let mut talk = Talk::signed_in(secs(3600));
    let actions = talk.says(Input::Drain { reconnect_after: Duration::from_millis(1500) });
    assert_eq!(frame(&actions[0])["payload"]["reconnect_after_ms"], 1500);
    talk.sends(r#"{"type":"message.send","id":1}"#);
    talk.now += secs(3);
    assert_eq!(talk.says(Input::Deadline), []);
    assert_eq!(talk.says(Input::Done), [Action::Close(Close::DRAINING)]);
}

#[derive(Clone, Debug)]
enum Step {
    Text(&'static str),
    NotText,
    Control,
    /// Finish the work in progress, successfully or not.
    Finish(bool),
    /// True when the queue is full.
    Blocked(bool),
    Flowing,
    Drain,
    Wait(u64),
    Sleep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::sample::select(vec![
            r#"{"type":"ping","id":1}"#, r#"{"type":"auth","id":1,"payload":{"token":"t"}}"#,
            r#"{"type":"auth.refresh","id":1,"payload":{"token":"t"}}"#, r#"{"type":"read","id":1}"#,
            r#"{"type":"read","id":{}}"#, "nonsense",
        ]).prop_map(Step::Text),
        1 => Just(Step::NotText),
        1 => Just(Step::Control),
        3 => any::<bool>().prop_map(Step::Finish),
        1 => any::<bool>().prop_map(Step::Blocked),
        1 => Just(Step::Flowing),
        1 => Just(Step::Drain),
        2 => (0u64..40_000).prop_map(Step::Wait),
        1 => Just(Step::Sleep),
    ]
}

proptest! {
    /// For any order of inputs: one piece of work at a time, one answer for each frame, no action after the
    /// close, and the time always advances.
    #[test]
    fn any_conversation_keeps_the_rules(steps in prop::collection::vec(step(), 0..200)) {
        let mut talk = Talk::begin();
        let mut verifying = false;
        let mut closed = false;
        for step in steps {
            let listened = talk.session.accepts_frames();
            let is_frame = matches!(step, Step::Text(_) | Step::NotText);
            let actions = match step {
                // The gateway reads no frame while the session accepts none.
                Step::Text(_) | Step::NotText | Step::Control if !listened => continue,
                Step::Text(text) => talk.sends(text),
                Step::NotText => talk.says(Input::NotText),
                Step::Control => talk.says(Input::Control),
                Step::Finish(_) if listened => continue,
                Step::Finish(true) if verifying => talk.verified(Ok(credentials("ana", "s1", secs(300)))),
                Step::Finish(false) if verifying => talk.verified(Err(Code::Unavailable.problem("busy"))),
                Step::Finish(_) => talk.says(Input::Done),
                Step::Blocked(full) => {
                    let full_since = full.then_some(talk.now);
                    talk.says(Input::Blocked { full_since })
                }
                Step::Flowing => talk.says(Input::Flowing),
                Step::Drain => talk.says(Input::Drain { reconnect_after: secs(1) }),
                Step::Wait(ms) => {
                    talk.now += Duration::from_millis(ms);
                    let actions = talk.says(Input::Deadline);
                    if let Some(Blocked { too_slow_at: None, .. }) = talk.session.blocked {
                        talk.says(Input::Blocked { full_since: None });
                    }
                    actions
                }
                Step::Sleep if closed || talk.session.blocked.is_some() => continue,
                Step::Sleep => match talk.session.deadline() {
                    Some(_) => talk.sleeps().1,
                    None => continue,
                },
            };
            prop_assert!(!closed || actions.is_empty());
            let work = actions.iter().filter(|action| {
                matches!(action, Action::Call(_) | Action::Verify { .. } | Action::Open { .. })
            });
            let (work, answers) = (work.count(), actions.iter().filter(|a| matches!(a, Action::Send(_))).count());
            prop_assert!(work <= 1);
            if is_frame && !talk.session.is_closing() {
                // An expiry warning may be among them.
                prop_assert!(work + answers >= 1);
            }
            if work == 1 {
                verifying = matches!(actions.iter().find(|a| !matches!(a, Action::Touch { .. } | Action::Send(_))),
                    Some(Action::Verify { .. }));
                prop_assert!(!talk.session.accepts_frames());
            }
            closed = talk.session.is_closing();
            if closed && !actions.is_empty() {
                prop_assert!(matches!(actions.last(), Some(Action::Close(_))));
            }
            if let Some(deadline) = talk.session.deadline() {
                prop_assert!(deadline > talk.now, "a deadline that has passed would spin");
            } else {
                prop_assert!(!talk.session.accepts_frames(), "only work or the end may take as long as they like");
            }
        }
    }
}

fn types(actions: &[Action]) -> Vec<String> {
    let of = |action: &Action| match action {
        Action::Call(frame) => format!("call {}", frame.frame_type),
        Action::Send(_) => gist(action).0,
        Action::Close(close) => format!("close {}", close.code()),
        Action::Touch { .. } => "touch".to_owned(),
        other => panic!("{other:?}"),
    };
    actions.iter().map(of).filter(|action| action != "touch").collect()
}

#[test]
fn frames_of_one_type_overlap_after_the_ordered_point_and_others_wait_for_the_end() {
    let mut talk = Talk::signed_in(secs(3600));
    let send = r#"{"type":"message.send","id":1}"#;
    assert_eq!(types(&talk.sends(send)), ["call message.send"]);
    assert!(!talk.session.accepts_frames(), "the first call has not reached its ordered point");
    talk.says(Input::Ordered);
    assert_eq!(types(&talk.sends(send)), ["call message.send"]);
    assert!(!talk.session.accepts_frames(), "nor has the second");
    talk.says(Input::Ordered);

    assert_eq!(types(&talk.sends(r#"{"type":"ping","id":2}"#)), [""; 0]);
    assert!(!talk.session.accepts_frames(), "the ping waits, and what comes after it");
    assert_eq!(types(&talk.says(Input::Done)), [""; 0]);
    assert_eq!(types(&talk.says(Input::Done)), ["pong"]);
    assert!(talk.session.accepts_frames());

    for held in ["{", r#"{"type":"typing.start"}"#] {
        talk.sends(send);
        talk.says(Input::Ordered);
        assert_eq!(types(&talk.sends(held)), [""; 0], "{held}");
        let answer = types(&talk.says(Input::Done));
        assert!(answer == ["error"] || answer == ["call typing.start"], "{held}: {answer:?}");
        talk.says(Input::Done);
    }
}

#[test]
fn a_connection_has_at_most_so_many_calls_in_flight() {
    let mut talk = Talk::signed_in(secs(3600));
    for n in 1..=CALLS_OF_CONNECTION_MAX {
        assert!(talk.session.accepts_frames(), "{n}");
        talk.sends(r#"{"type":"message.send"}"#);
        talk.says(Input::Ordered);
    }
    assert!(!talk.session.accepts_frames());
    talk.says(Input::Done);
    assert!(talk.session.accepts_frames());
}

#[test]
fn the_payloads_of_the_calls_in_flight_are_bounded() {
    let mut talk = Talk::signed_in(secs(3600));
    let large = format!(r#"{{"type":"message.send","payload":{{"content":"{}"}}}}"#, "x".repeat(60_000));
    for n in 1..=3 {
        assert!(talk.session.accepts_frames(), "{n}");
        talk.sends(&large);
        talk.says(Input::Ordered);
    }
    assert!(!talk.session.accepts_frames(), "the third was over the bound");
    talk.says(Input::Done);
    assert!(talk.session.accepts_frames());
}

#[test]
fn what_ends_a_connection_waits_for_the_calls_in_flight() {
    type End = fn(&mut Talk) -> Vec<Action>;
    let ends: [(&str, End, u16); 3] = [
        ("a close frame", |talk| talk.says(Input::PeerClosed(Close::DONE)), Close::DONE.code()),
        ("not WebSocket", |talk| talk.says(Input::Broken(Violation::Protocol("a rule"))), 1002),
        (
            "an expired token, seen at the next frame",
            |talk| {
                talk.now += secs(3600);
                talk.sends(r#"{"type":"message.send","id":9}"#)
            },
            Close::TOKEN.code(),
        ),
    ];
    for (what, end, code) in ends {
        let mut talk = Talk::signed_in(secs(3000));
        talk.sends(r#"{"type":"message.send","id":1}"#);
        talk.says(Input::Ordered);
        talk.sends(r#"{"type":"message.send","id":2}"#);
        talk.says(Input::Ordered);
        let actions = end(&mut talk);
        assert!(!types(&actions).iter().any(|action| action.starts_with("close")), "{what}: {actions:?}");
        assert!(!talk.session.accepts_frames(), "{what}");
        assert_eq!(types(&talk.says(Input::Done)), [""; 0], "{what}");
        let last = types(&talk.says(Input::Done));
        assert_eq!(last.last(), Some(&format!("close {code}")), "{what}: {last:?}");
    }
}

#[test]
fn a_frame_over_the_rate_is_refused_after_the_calls_in_flight() {
    let mut talk = Talk::signed_in(secs(3600));
    let ping = r#"{"type":"ping"}"#;
    for flood in 1..=3 {
        let mut sent = 0;
        // The first flood has the whole burst, the others what one second gives.
        while sent < if flood == 1 { 499 } else { 99 } {
            assert_eq!(types(&talk.sends(ping)), ["pong"]);
            sent += 1;
        }
        talk.sends(r#"{"type":"message.send","id":1}"#);
        talk.says(Input::Ordered);
        let refused = r#"{"type":"message.send","id":2}"#;
        assert_eq!(types(&talk.sends(refused)), [""; 0], "flood {flood}: a call is in flight");
        assert!(!talk.session.accepts_frames(), "flood {flood}: a later frame waits too");
        let actions = talk.says(Input::Done);
        assert_eq!(gist(&actions[0]), error(2.into(), "rate_limited"));
        assert_eq!(talk.session.is_closing(), flood == 3, "flood {flood}: {actions:?}");
        talk.now += secs(1);
    }
}

#[test]
fn a_flood_pauses_from_its_answer_on_when_calls_were_in_flight() {
    let mut talk = Talk::signed_in(secs(3600));
    let ping = r#"{"type":"ping"}"#;
    for _ in 0..499 {
        talk.sends(ping);
    }
    talk.sends(r#"{"type":"message.send","id":1}"#);
    talk.says(Input::Ordered);
    talk.sends(ping);
    // The commit takes longer than the pause.
    talk.now += FLOOD_PAUSE * 2;
    let actions = talk.says(Input::Done);
    assert_eq!(gist(&actions[0]), error(Value::Null, "rate_limited"));
    // The client could not read the error before it sent these frames, so they belong to the same flood.
    for frame in 0..1000 {
        assert!(!types(&talk.sends(ping)).iter().any(|answer| answer == "error"), "frame {frame}");
    }
}

#[test]
fn a_token_near_its_end_is_announced_once_while_calls_are_in_flight() {
    let mut talk = Talk::signed_in(secs(100));
    let send = r#"{"type":"message.send","id":1}"#;
    talk.sends(send);
    let (slept, actions) = talk.sleeps();
    assert_eq!((slept, types(&actions)), (secs(40), vec!["auth.expiring".to_owned()]));
    // A client that always has calls in flight.
    for _ in 0..70 {
        talk.says(Input::Ordered);
        talk.now += secs(1);
        assert_eq!(types(&talk.sends(send)), ["call message.send"]);
        assert_eq!(types(&talk.says(Input::Done)), [""; 0]);
    }
    assert_eq!(talk.session.deadline(), None, "the end of the token waits for the call in flight");
    talk.now += secs(20);
    assert_eq!(types(&talk.says(Input::Done)), ["close 4001"]);
}
