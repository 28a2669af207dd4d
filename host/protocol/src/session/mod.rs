//! One connection's protocol state. No sockets, no clock: time comes in, actions go out.
//!
//! It knows what the host itself answers (`auth`, `ping`, errors) and when a connection must end. It knows no handler:
//! every other frame is a [`Action::Call`], one at a time, in order.

mod flood;
mod stage;

pub use stage::Stage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::contract::types::{Principal, Problem};
use crate::ids::UserId;
use crate::limits::{BLOCKED_LOOK, FLOOD_PAUSE_MS, MALFORMED_FRAMES_MAX};
use crate::wire::close::Close;
use crate::wire::frames::{self, Frame, FrameId, NotAFrame};
use crate::wire::problem::Code;
use crate::wire::timestamp;
use crate::wire::websocket::Violation;
use flood::{Flood, LastMinute, Verdict};

/// What a verified token says.
#[derive(Clone, Debug, PartialEq)]
pub struct Credentials {
    pub user: UserId,
    pub principal: Principal,
    /// `exp`, in milliseconds since 1970 UTC.
    pub expires_ms: u64,
    /// `iat`, likewise; 0 where the token does not say, and then it is older than any revocation.
    pub issued_ms: u64,
    /// The `jti` of the present token, where a renewal made it another than the session's.
    pub renewed_as: Option<Box<str>>,
}

impl Credentials {
    /// What they take in memory, roughly.
    pub fn bytes(&self) -> usize {
        let texts = [&self.principal.user_id, &self.principal.session_id].into_iter();
        let texts = texts.chain(&self.principal.name).chain(&self.principal.roles);
        texts.map(|text| size_of::<String>() + text.len()).sum::<usize>() + size_of::<Self>()
    }
}

/// The operator's numbers, the same for all connections.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub frames_per_second: u32,
    pub frames_burst: u32,
    /// How long after its `exp` a token counts as expired.
    pub leeway: Duration,
    /// How long a connection may be without a token.
    pub auth_wait: Duration,
    /// How long it may say nothing. Clients are told to speak three times as often.
    pub idle: Duration,
    /// How long it may take nothing of a full queue.
    pub stall: Duration,
    /// How long before the end of its token it is warned.
    pub expiry_warning: Duration,
}

#[derive(Debug)]
pub enum Input<'a> {
    /// A text message.
    Text(&'a str),
    /// A message that is not text.
    NotText,
    /// A ping or pong of the WebSocket protocol: a sign of life.
    Control,
    /// The peer broke the WebSocket protocol.
    Broken(Violation),
    /// The answer to [`Action::Verify`], or unasked: the handshake carried a good token.
    Verified { verdict: Result<Arc<Credentials>, Problem>, unix_ms: u64 },
    /// [`Action::Welcome`] or [`Action::Call`] is done, and what it had to say is queued.
    Done,
    /// The socket takes no bytes although some wait; since when the queue behind it is full, if it is. Said again whenever
    /// the deadline comes and it is still so.
    Blocked { full_since: Option<Instant> },
    /// The socket took bytes.
    Flowing,
    /// The node ends. This connection has so long to move.
    Drain { patience: Duration },
    /// Somebody else decided that it is over: an operator, a handler, the queue, a bound of the node.
    End(Close),
    /// [`Session::deadline`] has come.
    Deadline,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Queue a text message.
    Send(String),
    /// Verify a token and say [`Input::Verified`].
    Verify { token: String },
    /// The connection is somebody's: queue the greeting, join the hub, ask the handlers what they want to send first, say
    /// [`Input::Done`].
    Welcome { who: Arc<Credentials>, greeting: String },
    /// The connection has another token from here on.
    Renewed(Arc<Credentials>),
    /// Ask the handler of this frame, queue its reply, say [`Input::Done`].
    Call(Frame),
    /// A sign of life, of the person or only of the client.
    Touch { active: bool },
    /// Queue a close frame; nothing follows it. The last action of a session.
    Close(Close),
}

pub struct Session {
    settings: Arc<Settings>,
    phase: Phase,
    work: Option<Work>,
    last_heard: Instant,
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
        /// The handlers have said what comes first.
        greeted: bool,
        warn_at: Option<Instant>,
        expires_at: Instant,
    },
    Closing {
        /// It was connected before.
        was_connected: bool,
    },
}

#[derive(Clone, Copy)]
struct Blocked {
    look_again: Instant,
    too_slow_at: Option<Instant>,
}

/// What somebody else is doing for this connection. While there is any, no frame is handled.
enum Work {
    Verification { id: Option<FrameId> },
    Other,
}

impl Session {
    pub fn new(now: Instant, settings: Arc<Settings>) -> Self {
        Self {
            phase: Phase::Anonymous { until: now + settings.auth_wait },
            work: None,
            last_heard: now,
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
                    self.malformed(
                        now,
                        None,
                        &Code::Malformed.problem("a frame is text, not binary"),
                        &mut actions,
                    );
                }
            }
            Input::Control => {
                if self.admits(now, None, &mut actions) {
                    self.touch(false, &mut actions);
                }
            }
            Input::Broken(violation) => self.close(violation.close(), &mut actions),
            Input::Verified { verdict, unix_ms } => self.verified(now, verdict, unix_ms, &mut actions),
            Input::Done => {
                self.work = None;
                if let Phase::Open { greeted, .. } = &mut self.phase {
                    *greeted = true;
                }
                // Nothing was read meanwhile, so silence proves nothing.
                self.last_heard = now;
            }
            Input::Blocked { full_since } => {
                self.blocked = Some(Blocked {
                    look_again: now + BLOCKED_LOOK,
                    too_slow_at: full_since.map(|since| since + self.settings.stall),
                });
            }
            Input::Flowing => self.blocked = None,
            Input::End(close) => self.close(close, &mut actions),
            Input::Drain { patience } => {
                let notice = json!({ "reconnect_after_ms": patience.as_millis() as u64 });
                actions.push(Action::Send(frames::push("draining", &notice)));
                self.drained_at = Some(now + patience);
            }
            Input::Deadline => {}
        }
        self.keep_time(now, &mut actions);
        actions
    }

    /// Whether the next frame may be read.
    pub fn listens(&self) -> bool {
        self.work.is_none() && !self.is_closing()
    }

    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    pub fn stage(&self) -> Stage {
        match self.phase {
            Phase::Anonymous { .. } => Stage::Connecting,
            Phase::Open { greeted: false, .. } => Stage::Authenticated,
            Phase::Open { greeted: true, .. } => Stage::Connected,
            Phase::Closing { was_connected: true } => Stage::Disconnected,
            Phase::Closing { was_connected: false } => Stage::Rejected,
        }
    }

    /// Who is connected, once the token is verified.
    pub fn who(&self) -> Option<&Arc<Credentials>> {
        match &self.phase {
            Phase::Open { who, .. } => Some(who),
            _ => None,
        }
    }

    /// When [`Input::Deadline`] is due. It may be said later, and earlier does no harm.
    pub fn deadline(&self) -> Option<Instant> {
        let blocked = self.blocked.map(|blocked| blocked.too_slow_at.unwrap_or(blocked.look_again));
        let (always, at_rest) = match self.phase {
            Phase::Anonymous { until } => (Some(until), [None, None]),
            Phase::Open { warn_at, expires_at, .. } => (None, [warn_at, Some(expires_at)]),
            Phase::Closing { .. } => return None,
        };
        // While somebody works for the connection its end can wait: the answer is on its way, and every call is bounded.
        let at_rest = at_rest
            .into_iter()
            .chain([self.drained_at, Some(self.last_heard + self.settings.idle)])
            .filter(|_| self.work.is_none());
        [blocked, always].into_iter().chain(at_rest).flatten().min()
    }

    fn text(&mut self, now: Instant, text: &str, actions: &mut Vec<Action>) {
        if !self.admits(now, Some(text), actions) {
            return;
        }
        match Frame::parse(text) {
            Ok(frame) => self.frame(frame, actions),
            Err(NotAFrame::Malformed { id, problem }) => self.malformed(now, id.as_ref(), &problem, actions),
            Err(NotAFrame::Invalid { id, problem }) => refuse(id.as_ref(), &problem, actions),
        }
    }

    /// A sign of life, and whether it is within what one connection may send.
    fn admits(&mut self, now: Instant, text: Option<&str>, actions: &mut Vec<Action>) -> bool {
        self.last_heard = now;
        let verdict = self.flood.frame(now, self.settings.frames_per_second, self.settings.frames_burst);
        if verdict == Verdict::Within {
            return true;
        }
        let problem = Code::RateLimited
            .problem(format!("more than {} frames a second", self.settings.frames_per_second))
            .retry_after_ms(FLOOD_PAUSE_MS as u32);
        // The frame is not handled, but a client that waits for its reply gets one.
        let id = text.and_then(|text| Frame::parse(text).ok()?.id);
        if id.is_some() || verdict != Verdict::Paused {
            refuse(id.as_ref(), &problem, actions);
        }
        if verdict == Verdict::Hopeless {
            self.close(Close::FLOOD, actions);
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
                        let problem = Code::Invalid.problem("`token` is a text").field("token");
                        refuse(frame.id.as_ref(), &problem, actions);
                    }
                }
            }
            (_, Phase::Open { .. }) => {
                self.touch(true, actions);
                self.work = Some(Work::Other);
                actions.push(Action::Call(frame));
            }
            (_, Phase::Anonymous { .. } | Phase::Closing { .. }) => {
                let problem = Code::Unauthorized.problem("the first frame is `auth` with a token");
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
                // A verifier that is busy is no judgement of the token.
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
                let problem = Code::Forbidden.problem("the token is another user's").field("token");
                return refuse(id.as_ref(), &problem, actions);
            }
        };
        let who = match self.who() {
            // The connection stays the session it was: that is what a forced disconnect names.
            Some(before) if before.principal.session_id != fresh.principal.session_id => {
                let mut who = Credentials::clone(&fresh);
                let session_id = before.principal.session_id.clone();
                let token_id = std::mem::replace(&mut who.principal.session_id, session_id);
                who.renewed_as = Some(token_id.into());
                Arc::new(who)
            }
            _ => fresh,
        };
        let greeting = frames::own(
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
        let left = Duration::from_millis(who.expires_ms.saturating_sub(unix_ms)).min(LIFE_MAX);
        // Within the leeway the token is over but still good: what is left of it began in the past.
        let over = Duration::from_millis(unix_ms.saturating_sub(who.expires_ms));
        self.phase = Phase::Open {
            who: who.clone(),
            greeted: renewed,
            warn_at: Some(now + left.saturating_sub(self.settings.expiry_warning)),
            expires_at: now + left + self.settings.leeway.saturating_sub(over),
        };
        if renewed {
            actions.extend([Action::Send(greeting), Action::Renewed(who)]);
        } else {
            self.work = Some(Work::Other);
            actions.push(Action::Welcome { who, greeting });
        }
    }

    /// Everything that happens because of the time alone.
    fn keep_time(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let has_come = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if has_come(self.blocked.and_then(|blocked| blocked.too_slow_at)) {
            return self.close(Close::TOO_SLOW, actions);
        }
        match &mut self.phase {
            Phase::Closing { .. } => return,
            Phase::Anonymous { until } if *until <= now => {
                refuse(None, &Code::Unauthorized.problem("no token came in time"), actions);
                return self.close(Close::TOKEN, actions);
            }
            Phase::Anonymous { .. } => {}
            Phase::Open { who, warn_at, .. } => {
                // After the greeting; a warning about an unknown session would confuse.
                if has_come(*warn_at) && self.work.is_none() {
                    *warn_at = None;
                    let notice = json!({ "expires_at": timestamp::rfc3339(who.expires_ms) });
                    actions.push(Action::Send(frames::push("auth.expiring", &notice)));
                }
            }
        }
        if self.work.is_some() {
            return;
        }
        if matches!(self.phase, Phase::Open { expires_at, .. } if expires_at <= now) {
            self.close(Close::TOKEN, actions);
        } else if has_come(self.drained_at) {
            self.close(Close::DRAINING, actions);
        } else if self.last_heard + self.settings.idle <= now {
            self.close(Close::IDLE, actions);
        }
    }

    fn touch(&self, active: bool, actions: &mut Vec<Action>) {
        if self.who().is_some() {
            actions.push(Action::Touch { active });
        }
    }

    fn close(&mut self, close: Close, actions: &mut Vec<Action>) {
        self.phase = Phase::Closing { was_connected: self.stage() == Stage::Connected };
        self.work = None;
        actions.push(Action::Close(close));
    }
}

/// No timer looks further ahead; a token that lasts longer is checked again at the next connect.
const LIFE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

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
