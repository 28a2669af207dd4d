//! The protocol state of one connection. It has no sockets and no clock: the caller passes the time in, and
//! the state returns actions.
//!
//! It knows what the host itself answers (`auth`, `ping`, errors), and when a connection must end. It knows
//! no handler: every other frame is an [`Action::Call`], in order. A call begins after the call before it has
//! ended. For a frame of the same type it begins once that call has reached its ordered point
//! ([`Input::Ordered`]).

mod calls;
mod flood;
mod stage;

pub use stage::Stage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::wire::close::Close;
use crate::wire::frames::{self, Frame, FrameId, NotAFrame};
use crate::wire::problem::Code;
use crate::wire::websocket::Violation;
use calls::Calls;
use flood::{Flood, LastMinute, Verdict};
use switchboard_contract::types::{Principal, Problem};
use switchboard_core::ids::UserId;
use switchboard_core::limits::{BLOCKED_CHECK_EVERY, FLOOD_PAUSE, MALFORMED_FRAMES_MAX, TOKEN_TIMER_MAX};
use switchboard_core::timestamp;

/// The content of a verified token.
#[derive(Clone, Debug, PartialEq)]
pub struct Credentials {
    pub user: UserId,
    pub principal: Principal,
    /// Hashes (FNV-1a) of the names in the claim `groups`, by which a canary may select users. Handlers do
    /// not get them. The names themselves could have 32 KiB for each connection.
    pub groups: Box<[u64]>,
    /// `exp`, in milliseconds since 1970 UTC.
    pub expires_ms: u64,
    /// `iat`, in milliseconds since 1970 UTC. 0 when the token has none; then it is older than any
    /// revocation.
    pub issued_ms: u64,
    /// The `jti` of the present token, if a renewal made it different from the session's.
    pub renewed_as: Option<Box<str>>,
}

impl Credentials {
    /// The approximate memory size.
    pub fn bytes(&self) -> usize {
        let texts = [&self.principal.user_id, &self.principal.session_id].into_iter();
        let texts = texts.chain(&self.principal.name).chain(&self.principal.roles);
        let texts = texts.map(|text| size_of::<String>() + text.len()).sum::<usize>();
        texts + size_of_val(&*self.groups) + size_of::<Self>()
    }
}

/// The settings of the operator, the same for all connections.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub frames_per_second: u32,
    pub frames_burst: u32,
    /// How long after its `exp` a token is still accepted.
    pub leeway: Duration,
    /// How long a connection may stay without a token.
    pub auth_wait: Duration,
    /// How long a client may send nothing. Clients are asked to send a heartbeat three times as often.
    pub idle: Duration,
    /// How long a client may read nothing while its queue is full.
    pub stall: Duration,
    /// How long before its token expires a client is warned.
    pub expiry_warning: Duration,
}

#[derive(Debug)]
pub enum Input<'a> {
    /// A text message.
    Text(&'a str),
    /// A message that is not text.
    NotText,
    /// A ping or pong of the WebSocket protocol. It shows that the client is alive.
    Control,
    /// The peer broke the WebSocket protocol.
    Broken(Violation),
    /// The peer closed the connection; this is the answer to its close frame.
    PeerClosed(Close),
    /// The result of [`Action::Verify`]. Also passed at the start, when the handshake carried a valid token.
    Verified { verdict: Result<Arc<Credentials>, Problem>, unix_ms: u64 },
    /// [`Action::Open`] is done, or the oldest [`Action::Call`]; its output is queued.
    Done,
    /// The latest [`Action::Call`] has reached its ordered point: a call that begins now comes after it, also
    /// with what it writes.
    Ordered,
    /// The socket takes no bytes although some wait. `full_since` says since when the queue behind it is
    /// full, if it is. Passed again at each deadline while this is still so.
    Blocked { full_since: Option<Instant> },
    /// The socket took bytes.
    Flowing,
    /// The node is shutting down. This connection must close within this time.
    Drain { reconnect_after: Duration },
    /// Another part of the host ends the connection: an operator, a handler, the queue, or a bound of the
    /// node.
    End(Close),
    /// [`Session::deadline`] has come.
    Deadline,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Queue a text message.
    Send(String),
    /// Verify a token, then pass [`Input::Verified`].
    Verify { token: String },
    /// The client has signed in. Queue `auth.success`, join the hub, run the connection handlers, then pass
    /// [`Input::Done`].
    Open { who: Arc<Credentials>, auth_success: String },
    /// The connection has a new token from here on.
    Renewed(Arc<Credentials>),
    /// Call the handler of this frame. Pass [`Input::Ordered`] when it has reached its ordered point, if it
    /// does. Queue its reply after those of the calls before it, then pass [`Input::Done`].
    Call(Frame),
    /// The client is alive. `active` is true when its user did something.
    Touch { active: bool },
    /// Queue a close frame. It is the last action of a session.
    Close(Close),
}

pub struct Session {
    settings: Arc<Settings>,
    phase: Phase,
    work: Option<Work>,
    calls: Calls,
    /// A frame that arrived while calls were in flight, and waits for their end.
    held: Option<Box<Held>>,
    last_received: Instant,
    blocked: Option<Blocked>,
    drained_at: Option<Instant>,
    flood: Flood,
    malformed: LastMinute,
}

enum Phase {
    Anonymous {
        until: Instant,
    },
    Open {
        who: Arc<Credentials>,
        /// True when the connection handlers have run.
        opened: bool,
        warn_at: Option<Instant>,
        expires_at: Instant,
    },
    Closing {
        /// True when the connection was open before.
        was_connected: bool,
    },
}

#[derive(Clone, Copy)]
struct Blocked {
    check_again_at: Instant,
    too_slow_at: Option<Instant>,
}

/// Work that another part does for this connection. Until it is done, no frame is handled.
enum Work {
    Verification { id: Option<FrameId> },
    Opening,
}

/// Something that the client sent, which is handled after the calls in flight.
enum Held {
    Frame(Result<Frame, NotAFrame>),
    NotText,
    /// A frame over the rate limit.
    TooFast {
        id: Option<FrameId>,
        verdict: Verdict,
    },
    Broken(Violation),
    PeerClosed(Close),
}

impl Session {
    pub fn new(now: Instant, settings: Arc<Settings>) -> Self {
        Self {
            phase: Phase::Anonymous { until: now + settings.auth_wait },
            work: None,
            calls: Calls::default(),
            held: None,
            last_received: now,
            blocked: None,
            drained_at: None,
            flood: Flood::new(now, settings.frames_burst),
            malformed: LastMinute::default(),
            settings,
        }
    }

    pub fn handle(&mut self, now: Instant, input: Input<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.is_closing() {
            return actions;
        }
        match input {
            Input::Text(text) => self.text(now, text, &mut actions),
            Input::NotText => {
                if self.admits(now, None, &mut actions) {
                    self.take(now, Held::NotText, &mut actions);
                }
            }
            Input::Control => {
                if self.admits(now, None, &mut actions) {
                    self.touch(false, &mut actions);
                }
            }
            Input::Broken(violation) => self.take(now, Held::Broken(violation), &mut actions),
            Input::PeerClosed(close) => self.take(now, Held::PeerClosed(close), &mut actions),
            Input::Verified { verdict, unix_ms } => self.verified(now, verdict, unix_ms, &mut actions),
            Input::Done => {
                if self.work.take().is_none() {
                    self.calls.end();
                }
                if let Phase::Open { opened, .. } = &mut self.phase {
                    *opened = true;
                }
                // The host read nothing meanwhile, so the client's silence proves nothing.
                self.last_received = now;
            }
            Input::Ordered => self.calls.latest_is_ordered(),
            Input::Blocked { full_since } => {
                self.blocked = Some(Blocked {
                    check_again_at: now + BLOCKED_CHECK_EVERY,
                    too_slow_at: full_since.map(|since| since + self.settings.stall),
                });
            }
            Input::Flowing => self.blocked = None,
            Input::End(close) => self.close(close, &mut actions),
            Input::Drain { reconnect_after } => {
                let notice = json!({ "reconnect_after_ms": reconnect_after.as_millis() as u64 });
                actions.push(Action::Send(frames::push("draining", &notice)));
                self.drained_at = Some(now + reconnect_after);
            }
            Input::Deadline => {}
        }
        self.check_deadlines(now, &mut actions);
        if !self.is_busy()
            && !self.is_closing()
            && let Some(held) = self.held.take()
        {
            self.take(now, *held, &mut actions);
        }
        actions
    }

    /// True when the next frame may be read.
    pub fn accepts_frames(&self) -> bool {
        self.work.is_none() && self.held.is_none() && self.calls.accept_another() && !self.is_closing()
    }

    /// True while other parts of the host work for this connection.
    fn is_busy(&self) -> bool {
        self.work.is_some() || self.calls.are_in_flight()
    }

    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    pub fn stage(&self) -> Stage {
        match self.phase {
            Phase::Anonymous { .. } => Stage::Connecting,
            Phase::Open { opened: false, .. } => Stage::Authenticated,
            Phase::Open { opened: true, .. } => Stage::Connected,
            Phase::Closing { was_connected: true } => Stage::Disconnected,
            Phase::Closing { was_connected: false } => Stage::Rejected,
        }
    }

    /// The signed-in user, after the token was verified.
    pub fn who(&self) -> Option<&Arc<Credentials>> {
        match &self.phase {
            Phase::Open { who, .. } => Some(who),
            _ => None,
        }
    }

    /// When [`Input::Deadline`] is due. Passing it later or earlier does no harm.
    pub fn deadline(&self) -> Option<Instant> {
        let blocked = self.blocked.map(|blocked| blocked.too_slow_at.unwrap_or(blocked.check_again_at));
        let (always, at_rest) = match self.phase {
            Phase::Anonymous { until } => (Some(until), None),
            Phase::Open { warn_at, expires_at, .. } => {
                (warn_at.filter(|_| self.work.is_none()), Some(expires_at))
            }
            Phase::Closing { .. } => return None,
        };
        // While work is in progress, these deadlines wait: the answer will come, because every call is
        // bounded.
        let at_rest = [at_rest, self.drained_at, Some(self.last_received + self.settings.idle)]
            .into_iter()
            .filter(|_| !self.is_busy());
        [blocked, always].into_iter().chain(at_rest).flatten().min()
    }

    fn text(&mut self, now: Instant, text: &str, actions: &mut Vec<Action>) {
        if !self.admits(now, Some(text), actions) {
            return;
        }
        self.take(now, Held::Frame(Frame::parse(text)), actions);
    }

    /// Handles what the client sent, or holds it back until the calls in flight have ended. Answers then keep
    /// the order of the frames.
    fn take(&mut self, now: Instant, held: Held, actions: &mut Vec<Action>) {
        match held {
            Held::Frame(Ok(frame)) if self.calls.may_overlap(&frame.frame_type) && !self.must_end(now) => {
                self.call(frame, actions);
            }
            held if self.calls.are_in_flight() => self.held = Some(Box::new(held)),
            Held::Frame(Ok(frame)) => self.frame(frame, actions),
            Held::Frame(Err(NotAFrame::Malformed { id, problem })) => {
                self.malformed(now, id.as_ref(), &problem, actions);
            }
            Held::Frame(Err(NotAFrame::Invalid { id, problem })) => refuse(id.as_ref(), &problem, actions),
            Held::NotText => {
                let problem = Code::Malformed.problem("a frame must be text, not binary");
                self.malformed(now, None, &problem, actions);
            }
            Held::TooFast { id, verdict } => {
                let rate = self.settings.frames_per_second;
                let problem = Code::RateLimited.problem(format!("more than {rate} frames a second"));
                refuse(id.as_ref(), &problem.retry_after(FLOOD_PAUSE), actions);
                match verdict {
                    Verdict::Over => self.flood.answered(now),
                    Verdict::TooOften => self.close(Close::FLOOD, actions),
                    Verdict::Within | Verdict::Paused => {}
                }
            }
            Held::Broken(violation) => self.close(violation.close(), actions),
            Held::PeerClosed(close) => self.close(close, actions),
        }
    }

    fn call(&mut self, frame: Frame, actions: &mut Vec<Action>) {
        self.touch(true, actions);
        self.calls.begin(&frame);
        actions.push(Action::Call(frame));
    }

    /// Notes that the client is alive. Returns whether the frame is within the rate limit.
    fn admits(&mut self, now: Instant, text: Option<&str>, actions: &mut Vec<Action>) -> bool {
        self.last_received = now;
        let verdict = self.flood.frame(now, self.settings.frames_per_second, self.settings.frames_burst);
        if verdict == Verdict::Within {
            return true;
        }
        // The frame is not handled, but a client that waits for a reply gets one.
        let id = text.and_then(|text| Frame::parse(text).ok()?.id);
        if id.is_some() || verdict != Verdict::Paused {
            self.take(now, Held::TooFast { id, verdict }, actions);
        }
        false
    }

    fn malformed(
        &mut self,
        now: Instant,
        id: Option<&FrameId>,
        problem: &Problem,
        actions: &mut Vec<Action>,
    ) {
        refuse(id, problem, actions);
        if self.malformed.count(now) > MALFORMED_FRAMES_MAX {
            self.close(Close::MALFORMED, actions);
        }
    }

    fn frame(&mut self, frame: Frame, actions: &mut Vec<Action>) {
        match (frame.frame_type.as_str(), &self.phase) {
            ("ping" | "heartbeat", _) => {
                actions.push(Action::Send(frames::own("pong", frame.id.as_ref(), &json!({}))));
                self.touch(false, actions);
            }
            ("auth" | "auth.refresh", Phase::Open { .. }) | ("auth", Phase::Anonymous { .. }) => {
                self.touch(false, actions);
                match token(&frame.payload) {
                    Some(token) => {
                        self.work = Some(Work::Verification { id: frame.id });
                        actions.push(Action::Verify { token });
                    }
                    None => {
                        let problem = Code::Invalid.problem("`token` must be a text").field("token");
                        refuse(frame.id.as_ref(), &problem, actions);
                    }
                }
            }
            (_, Phase::Open { .. }) => self.call(frame, actions),
            (_, Phase::Anonymous { .. } | Phase::Closing { .. }) => {
                let problem = Code::Unauthorized.problem("the first frame must be `auth` with a token");
                refuse(frame.id.as_ref(), &problem, actions);
            }
        }
    }

    fn verified(
        &mut self,
        now: Instant,
        verdict: Result<Arc<Credentials>, Problem>,
        unix_ms: u64,
        actions: &mut Vec<Action>,
    ) {
        let id = match self.work.take() {
            Some(Work::Verification { id }) => id,
            _ => None,
        };
        let fresh = match verdict {
            Ok(fresh) => fresh,
            Err(problem) => {
                refuse(id.as_ref(), &problem, actions);
                // A busy verifier says nothing about the token.
                if problem.status == Code::Unauthorized.status() {
                    self.close(Close::TOKEN, actions);
                }
                return;
            }
        };
        let renewed = match self.who() {
            None => false,
            Some(who) if who.user == fresh.user => true,
            Some(_) => {
                let problem = Code::Forbidden.problem("the token belongs to another user").field("token");
                return refuse(id.as_ref(), &problem, actions);
            }
        };
        let who = match self.who() {
            // The connection keeps its session id, because a forced disconnect names it.
            Some(before) if before.principal.session_id != fresh.principal.session_id => {
                let mut who = Credentials::clone(&fresh);
                let session_id = before.principal.session_id.clone();
                let token_id = std::mem::replace(&mut who.principal.session_id, session_id);
                who.renewed_as = Some(token_id.into());
                Arc::new(who)
            }
            _ => fresh,
        };
        let auth_success = frames::own(
            "auth.success",
            id.as_ref(),
            &json!({
                "user_id": who.user.as_str(),
                "session_id": who.principal.session_id,
                "expires_at": timestamp::rfc3339(who.expires_ms),
                "heartbeat_ms": self.settings.idle.as_millis() as u64 / 3,
                "server_time": timestamp::rfc3339(unix_ms),
            }),
        );
        let left = Duration::from_millis(who.expires_ms.saturating_sub(unix_ms)).min(TOKEN_TIMER_MAX);
        // Within the leeway the token has expired but is still accepted: part of the leeway has already
        // passed.
        let over = Duration::from_millis(unix_ms.saturating_sub(who.expires_ms));
        self.phase = Phase::Open {
            who: who.clone(),
            opened: renewed,
            warn_at: Some(now + left.saturating_sub(self.settings.expiry_warning)),
            expires_at: now + left + self.settings.leeway.saturating_sub(over),
        };
        if renewed {
            actions.extend([Action::Send(auth_success), Action::Renewed(who)]);
        } else {
            self.work = Some(Work::Opening);
            actions.push(Action::Open { who, auth_success });
        }
    }

    /// Does everything that depends on the time alone.
    fn check_deadlines(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let has_come = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if has_come(self.blocked.and_then(|blocked| blocked.too_slow_at)) {
            return self.close(Close::TOO_SLOW, actions);
        }
        match &mut self.phase {
            Phase::Closing { .. } => return,
            Phase::Anonymous { until } if *until <= now => {
                refuse(None, &Code::Unauthorized.problem("no token arrived in time"), actions);
                return self.close(Close::TOKEN, actions);
            }
            Phase::Anonymous { .. } => {}
            Phase::Open { who, warn_at, .. } => {
                // After `auth.success`: a warning about an unknown session would confuse the client.
                if has_come(*warn_at) && self.work.is_none() {
                    *warn_at = None;
                    let notice = json!({ "expires_at": timestamp::rfc3339(who.expires_ms) });
                    actions.push(Action::Send(frames::push("auth.expiring", &notice)));
                }
            }
        }
        if self.is_busy() {
            return;
        }
        if matches!(self.phase, Phase::Open { expires_at, .. } if expires_at <= now) {
            self.close(Close::TOKEN, actions);
        } else if has_come(self.drained_at) {
            self.close(Close::DRAINING, actions);
        } else if self.last_received + self.settings.idle <= now {
            self.close(Close::IDLE, actions);
        }
    }

    /// True when the connection must end as soon as no call is in flight.
    fn must_end(&self, now: Instant) -> bool {
        self.drained_at.is_some_and(|at| at <= now)
            || matches!(self.phase, Phase::Open { expires_at, .. } if expires_at <= now)
    }

    fn touch(&self, active: bool, actions: &mut Vec<Action>) {
        if self.who().is_some() {
            actions.push(Action::Touch { active });
        }
    }

    fn close(&mut self, close: Close, actions: &mut Vec<Action>) {
        self.phase = Phase::Closing { was_connected: self.stage() == Stage::Connected };
        (self.work, self.held) = (None, None);
        actions.push(Action::Close(close));
    }
}

fn refuse(id: Option<&FrameId>, problem: &Problem, actions: &mut Vec<Action>) {
    actions.push(Action::Send(frames::error(id, problem)));
}

fn token(payload: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Auth {
        token: String,
    }
    serde_json::from_str::<Auth>(payload).ok().map(|auth| auth.token)
}

#[cfg(test)]
mod tests;
