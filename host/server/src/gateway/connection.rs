//! One WebSocket connection from its upgrade to its end: a task that waits until there is something to read,
//! write, answer or close. `session` holds the rules and `socket` the bytes; this module connects both with
//! the handlers and the hub.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::{Sleep, timeout};
use tracing::debug;

use super::Gateway;
use super::in_flight::{Answered, InFlight, Progress};
use super::permits::UserPermit;
use super::socket::{Next, Socket};
use crate::calls::{FrameIn, HandshakeIn};
use switchboard_contract::connection::{Closed, Opened};
use switchboard_contract::frame::Reply;
use switchboard_contract::types::{Problem, Push};
use switchboard_core::ids::{ConnectionId, RequestId};
use switchboard_core::limits::{CLOSE_WAIT, CONNECTION_TIMER_MAX};
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_core::timestamp;
use switchboard_fanout::{ConnectionInfo, Hub, Outlet};
use switchboard_http::http_server::slots::Held;
use switchboard_http::http_server::{Slot, Stalled};
use switchboard_protocol::session::{Action, Credentials, Input, Session, Stage};
use switchboard_protocol::wire::close::Close;
use switchboard_protocol::wire::frames::{self, Frame, FrameId};
use switchboard_protocol::wire::websocket::{Message, encode_pong, encode_text};

/// The results of the handshake. Its parts are boxed, because the task of a connection is to be small.
pub(super) struct Handshake {
    pub requests: Box<Requests>,
    pub client: Box<ClientInfo>,
    pub identity: Identity,
}

/// Passed to the handlers once, when the client has signed in.
pub(super) struct ClientInfo {
    pub remote: SocketAddr,
    pub user_agent: Option<String>,
}

/// The ids of a connection's requests.
pub(super) struct Requests {
    /// The `x-request-id` of the handshake's answer. The ids of the frames begin with it.
    handshake: RequestId,
    /// The number of frames that called a handler.
    calls: u64,
    /// The value of the header of testers in the handshake.
    tester: Option<Arc<str>>,
}

impl Requests {
    pub(super) fn of(handshake: RequestId, tester: Option<Arc<str>>) -> Self {
        Self { handshake, calls: 0, tester }
    }

    /// The id of the frame that was called last. A connection calls one at a time.
    fn current(&self, frame_id: Option<&FrameId>) -> RequestId {
        self.handshake.of_frame(frame_id.map(FrameId::text), self.calls)
    }
}

/// Whether the client has signed in, and the permit that the connection holds.
pub(super) enum Identity {
    /// Not signed in. The connection is closed for another one when the node is full. The slot holds the
    /// permit.
    Anonymous(Slot),
    /// The handshake carried a valid token.
    SignedIn(Arc<Credentials>, Held),
}

/// The permit of a connection among those of the node.
enum Admission {
    Anonymous(Slot),
    /// The client has signed in. `None` when the permit was given to another connection at that moment.
    SignedIn {
        _held: Option<Held>,
    },
}

struct Connection {
    gateway: Arc<Gateway>,
    id: ConnectionId,
    requests: Box<Requests>,
    socket: Socket,
    session: Session,
    work: Option<BoxFuture<'static, Done>>,
    /// None while no call is in flight: an idle connection must not carry its memory.
    calls: Option<Box<InFlight>>,
    /// Set after the client has signed in and the connection handlers have run. Until then pushes wait.
    joined: Option<Joined>,
    user_permit: Option<UserPermit>,
    admission: Admission,
    /// True when the socket took no more bytes at the last attempt.
    blocked: bool,
    /// The last stage that was counted.
    stage: Stage,
    /// `None` after the client has signed in.
    client: Option<Box<ClientInfo>>,
}

/// The registration in the hub. It ends also when the connection's task panics.
struct Joined {
    outlet: Arc<Outlet>,
    hub: Hub,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.hub.close_connection(self.outlet.info().connection);
    }
}

/// The result of work that a session requested.
enum Done {
    Verified(Result<Arc<Credentials>, Problem>),
    Opened { joined: Joined, pushes: Vec<Push> },
}

/// The reason why the task woke up.
enum Event {
    Received(Vec<Action>),
    Done(Done),
    Answered(Answered),
    /// The latest call has reached its ordered point.
    Ordered,
    Blocked,
    Flowing,
    /// The outlet was closed: another part of the host wants this connection closed.
    Ended(Close),
    /// The peer is gone or has closed.
    Gone(u16),
    Timer,
    Drain,
}

/// Runs a connection to its end. Its close code is counted, and reported to the handlers.
///
/// This is no `async fn`: such a function would keep its arguments beside the `Connection` that it makes of
/// them.
pub(super) fn run(
    gateway: Arc<Gateway>,
    socket: Socket,
    handshake: Handshake,
    mut guard: ShutdownGuard,
) -> impl Future<Output = ()> {
    let Handshake { requests, client, identity } = handshake;
    let (credentials, admission) = match identity {
        Identity::Anonymous(slot) => (None, Admission::Anonymous(slot)),
        Identity::SignedIn(who, held) => (Some(who), Admission::SignedIn { _held: Some(held) }),
    };
    let mut connection = Connection {
        id: ConnectionId::random(),
        requests,
        session: Session::new(Instant::now(), gateway.session.clone()),
        gateway,
        socket,
        work: None,
        calls: None,
        joined: None,
        user_permit: None,
        admission,
        blocked: false,
        stage: Stage::Connecting,
        client: Some(client),
    };
    async move {
        connection.reached(Stage::Connecting);
        let code = connection.serve(credentials, &mut guard).await;
        connection.finish_work().await;
        let gateway = connection.gateway.clone();
        // Everything of the connection is dropped before its end is reported.
        if let Some((id, closed, handshake)) = connection.leave(code) {
            gateway.calls.closed(id, closed, handshake).await;
        }
    }
}

impl Connection {
    /// Serves the connection until it must close, and returns the close code.
    async fn serve(&mut self, credentials: Option<Arc<Credentials>>, guard: &mut ShutdownGuard) -> u16 {
        let mut timer = pin!(tokio::time::sleep(CONNECTION_TIMER_MAX));
        let mut begun = pin!(guard.begun());
        let mut draining = false;
        let mut actions = credentials.map_or_else(Vec::new, |credentials| {
            let input = Input::Verified { verdict: Ok(credentials), unix_ms: timestamp::now_ms() };
            self.session.handle(Instant::now(), input)
        });
        loop {
            for action in actions {
                if let Some(close) = self.perform(action) {
                    // Boxed, because an idle connection must not carry the memory of its end.
                    return Box::pin(self.send_close(close)).await;
                }
            }
            if self.session.stage() != self.stage {
                self.reached(self.session.stage());
            }
            self.set_timer(timer.as_mut());
            let event = poll_fn(|cx| {
                if let Poll::Ready(event) = self.poll(cx) {
                    return Poll::Ready(event);
                }
                if !draining && begun.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Drain);
                }
                timer.as_mut().poll(cx).map(|()| Event::Timer)
            });
            let event = event.await;
            let input = match event {
                Event::Received(received) => {
                    actions = received;
                    continue;
                }
                Event::Gone(code) => return code,
                Event::Done(done) => self.finish(done),
                Event::Answered(Answered { id, answer }) => {
                    self.answer(id.as_ref(), answer);
                    Input::Done
                }
                Event::Ordered => Input::Ordered,
                Event::Blocked => Input::Blocked { full_since: self.full_since() },
                Event::Flowing => Input::Flowing,
                Event::Ended(close) => Input::End(close),
                Event::Timer if self.blocked => Input::Blocked { full_since: self.full_since() },
                Event::Timer => Input::Deadline,
                Event::Drain => {
                    draining = true;
                    Input::Drain { reconnect_after: self.gateway.drain_delay() }
                }
            };
            actions = self.session.handle(Instant::now(), input);
        }
    }

    /// The order matters. First an answer, so that it is written together with pushes. Then writing, so that
    /// a client that reads is not delayed by what it sends. Then reading. When the queue is full, writing is
    /// first: many calls can end at the same time, and their answers are never refused.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(work) = &mut self.work
            && let Poll::Ready(done) = work.as_mut().poll(cx)
        {
            self.work = None;
            return Poll::Ready(Event::Done(done));
        }
        let is_full = self.joined.as_ref().is_some_and(|joined| joined.outlet.is_full());
        let writes_first = is_full && !self.blocked && self.calls.is_some();
        if let Some(calls) = self.calls.as_mut().filter(|_| !writes_first) {
            let progress = calls.poll(cx);
            if calls.is_empty() {
                self.calls = None;
            }
            match progress {
                Poll::Ready(Progress::Answered(answered)) => return Poll::Ready(Event::Answered(answered)),
                Poll::Ready(Progress::Ordered) => return Poll::Ready(Event::Ordered),
                Poll::Pending => {}
            }
        }
        if let Admission::Anonymous(slot) = &self.admission
            && slot.poll_dropped(cx).is_ready()
        {
            return Poll::Ready(Event::Ended(Close::NO_ROOM));
        }
        let outlet = self.joined.as_ref().map(|joined| joined.outlet.as_ref());
        loop {
            match self.socket.poll_write(cx, outlet) {
                Poll::Ready(Ok(None)) if self.blocked => {
                    self.blocked = false;
                    return Poll::Ready(Event::Flowing);
                }
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Ok(Some(close))) => return Poll::Ready(Event::Ended(close)),
                // The socket takes no bytes, so the client cannot get the close frame.
                Poll::Ready(Err(error)) if Stalled::is(&error) => {
                    return Poll::Ready(Event::Gone(Close::TOO_SLOW.code()));
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Event::Gone(Close::LOST)),
                Poll::Pending if self.blocked => match outlet.map(|outlet| outlet.poll_ended(cx)) {
                    Some(Poll::Ready(close)) => return Poll::Ready(Event::Ended(close)),
                    _ => break,
                },
                Poll::Pending => {
                    self.blocked = true;
                    return Poll::Ready(Event::Blocked);
                }
            }
            match outlet.map(|outlet| outlet.poll_ready(cx)) {
                Some(Poll::Ready(())) => {}
                _ => break,
            }
        }
        if writes_first {
            // The calls were not polled.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // A client that does not read is not read from either.
        let is_behind = || self.socket.is_backed_up() || outlet.is_some_and(|outlet| outlet.is_full());
        if !self.session.accepts_frames() || self.blocked && is_behind() {
            return Poll::Pending;
        }
        self.poll_receive(cx)
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let mut actions = Vec::new();
        let mut closed = None;
        let mut pongs = Vec::new();
        let (session, frames) = (&mut self.session, &self.gateway.meters.frames_in);
        let received = self.socket.poll_receive(cx, |message| {
            let input = match message {
                Ok(Message::Text(text)) => Input::Text(text),
                Ok(Message::Binary) => Input::NotText,
                Ok(Message::Ping(payload)) => {
                    pongs.push(encode_pong(payload));
                    Input::Control
                }
                Ok(Message::Pong) => Input::Control,
                Ok(Message::Close(code)) => {
                    closed = Some(code);
                    return Next::Stop;
                }
                Err(violation) => Input::Broken(violation),
            };
            frames.increment(1);
            actions.append(&mut session.handle(Instant::now(), input));
            if session.accepts_frames() { Next::Go } else { Next::Stop }
        });
        for pong in pongs {
            self.socket.queue(pong);
        }
        match received {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(_)) => Poll::Ready(Event::Gone(Close::LOST)),
            Poll::Ready(Ok(())) => {
                if let Some(code) = closed {
                    let echo = code.and_then(|code| Close::requested(code, "")).unwrap_or(Close::DONE);
                    actions.append(&mut self.session.handle(Instant::now(), Input::PeerClosed(echo)));
                }
                Poll::Ready(Event::Received(actions))
            }
        }
    }

    /// Performs an action. A close is the last action; the caller carries it out.
    fn perform(&mut self, action: Action) -> Option<Close> {
        match action {
            Action::Send(text) => self.send(encode_text(&text)),
            Action::Verify { token } => {
                let auth = self.gateway.auth.clone();
                self.work = Some(Box::pin(async move { Done::Verified(auth.verify(&token).await) }));
            }
            Action::Open { who, auth_success } => return self.open(&who, &auth_success),
            Action::Renewed(who) => return self.set_credentials(who),
            Action::Call(frame) => self.call(frame),
            Action::Touch { active } => {
                if let Some(who) = self.session.who() {
                    self.gateway.calls.touch(self.id, &who.user, active);
                }
            }
            Action::Close(close) => return Some(close),
        }
        None
    }

    fn open(&mut self, who: &Arc<Credentials>, auth_success: &str) -> Option<Close> {
        if let Admission::Anonymous(slot) = &self.admission {
            let held = slot.sign_in();
            let is_closed = held.is_none();
            self.admission = Admission::SignedIn { _held: held };
            if is_closed {
                return self.close_with(Close::NO_ROOM);
            }
        }
        let Some(admission) = self.gateway.limits.take_for(&who.user) else {
            return self.close_with(Close::TOO_MANY_CONNECTIONS);
        };
        self.user_permit = Some(admission);
        // Queued here, before any push.
        self.socket.queue(encode_text(auth_success));
        let info = ConnectionInfo {
            connection: self.id,
            user: who.user.clone(),
            session: who.principal.session_id.as_str().into(),
        };
        let (remote, user_agent) =
            self.client.take().map(|client| (client.remote, client.user_agent)).unzip();
        let opened = Opened {
            connection: self.id.to_string(),
            caller: who.principal.clone(),
            node: self.gateway.node.to_string(),
            user_agent: user_agent.flatten(),
            remote: remote.map(|remote: SocketAddr| remote.ip().to_string()).unwrap_or_default(),
        };
        let (calls, hub, connection) = (self.gateway.calls.clone(), self.gateway.hub.clone(), self.id);
        let handshake = HandshakeIn {
            id: self.requests.handshake.clone(),
            roles: who.principal.roles.clone(),
            groups: who.groups.clone(),
            tester: self.requests.tester.clone(),
        };
        self.work = Some(Box::pin(async move {
            let joined = Joined { outlet: hub.open_connection(info).await, hub };
            let pushes = calls.opened(connection, opened, handshake).await;
            Done::Opened { joined, pushes }
        }));
        None
    }

    fn close_with(&mut self, close: Close) -> Option<Close> {
        let actions = self.session.handle(Instant::now(), Input::End(close));
        actions.into_iter().find_map(|action| self.perform(action))
    }

    /// Stores the credentials in the outlet. From here on a revocation of the token finds the connection. A
    /// revocation that came before is found here.
    fn set_credentials(&self, who: Arc<Credentials>) -> Option<Close> {
        let Some(Joined { outlet, .. }) = &self.joined else { return None };
        outlet.set_token(who.clone());
        self.gateway.auth.is_revoked(&who).then_some(Close::TOKEN)
    }

    fn call(&mut self, frame: Frame) {
        let (Some(who), Some(joined)) = (self.session.who(), &self.joined) else { return };
        let (who, outlet, calls) = (who.clone(), joined.outlet.clone(), self.gateway.calls.clone());
        self.requests.calls += 1;
        let request_id = self.requests.current(frame.id.as_ref());
        let tester = self.requests.tester.clone();
        self.calls.get_or_insert_default().begin(|rank| {
            Box::pin(async move {
                let Frame { frame_type, id, payload } = frame;
                let frame = FrameIn {
                    id: &request_id,
                    frame_type: &frame_type,
                    payload,
                    caller: &who.principal,
                    groups: &who.groups,
                    tester: tester.as_deref(),
                    connection: outlet.info().connection,
                    rank,
                };
                let answer = calls.frame(frame).await;
                Answered { id, answer }
            })
        });
    }

    /// Queues the output of finished work, and returns the input for the session.
    fn finish(&mut self, done: Done) -> Input<'static> {
        match done {
            Done::Verified(verdict) => return Input::Verified { verdict, unix_ms: timestamp::now_ms() },
            Done::Opened { joined, pushes } => {
                // Sent before any push that arrived meanwhile.
                for push in pushes {
                    self.socket.queue(encode_text(&push.frame));
                }
                self.joined = Some(joined);
                if let Some(close) = self.session.who().cloned().and_then(|who| self.set_credentials(who)) {
                    return Input::End(close);
                }
            }
        }
        Input::Done
    }

    /// Sends the reply first, then opens its subscriptions.
    fn answer(&self, id: Option<&FrameId>, answer: Result<Option<Reply>, Problem>) {
        let Some(Joined { outlet, hub }) = &self.joined else { return };
        match answer {
            Ok(None) => hub.open_gates(self.id, &[]),
            Ok(Some(Reply { frame_type, payload, subscriptions })) => {
                outlet.push_reply(frames::reply(&frame_type, id, &payload));
                hub.open_gates(self.id, &subscriptions);
            }
            Err(problem) => {
                outlet.push_reply(encode_text(&frames::error(id, &problem)));
                hub.undo_gates(self.id);
            }
        }
    }

    fn send(&mut self, frame: Bytes) {
        match &self.joined {
            Some(joined) => joined.outlet.push_reply(frame),
            None => self.socket.queue(frame),
        }
    }

    /// Sends what is queued and the close frame, as far as the client reads in time.
    async fn send_close(&mut self, close: Close) -> u16 {
        let mut code = close.code();
        let mut is_close_taken = self.joined.is_none();
        match &self.joined {
            Some(joined) => joined.outlet.close(close),
            None => self.socket.queue_close(&close),
        }
        let closing = async {
            loop {
                let outlet =
                    self.joined.as_ref().filter(|_| !is_close_taken).map(|joined| joined.outlet.as_ref());
                match poll_fn(|cx| self.socket.poll_write(cx, outlet)).await {
                    // The first close counts: an operator's code is more precise than that of a timer.
                    Ok(Some(close)) => {
                        code = close.code();
                        is_close_taken = true;
                        self.socket.queue_close(&close);
                    }
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            if poll_fn(|cx| self.socket.poll_shutdown(cx)).await.is_ok() {
                poll_fn(|cx| self.socket.poll_drain(cx)).await;
            }
        };
        let _ = timeout(CLOSE_WAIT, closing).await;
        code
    }

    /// Waits for the work in progress: a call may commit.
    async fn finish_work(&mut self) {
        if let Some(work) = self.work.take()
            && let Done::Opened { joined, .. } = work.await
        {
            self.joined = Some(joined);
        }
        if let Some(calls) = &mut self.calls {
            calls.end().await;
        }
    }

    /// Leaves the hub, closes the socket, and returns the notice for the handlers if the client had joined.
    fn leave(mut self, code: u16) -> Option<(ConnectionId, Closed, HandshakeIn)> {
        self.gateway.meters.closed(code);
        self.reached(self.stage.ended());
        let Joined { outlet, .. } = &self.joined?;
        let user = outlet.info().user.clone();
        // The session has ended already.
        let who = outlet.token();
        let (roles, groups) =
            who.map(|who| (who.principal.roles.clone(), who.groups.clone())).unwrap_or_default();
        debug!(request_id = %self.requests.handshake, connection.id = %self.id, close.code = code, "connection closed");
        let closed = Closed {
            connection: self.id.to_string(),
            user_id: user.as_str().to_owned(),
            node: self.gateway.node.to_string(),
            code,
        };
        let Requests { handshake, tester, .. } = *self.requests;
        Some((self.id, closed, HandshakeIn { id: handshake, roles, groups, tester }))
    }

    fn reached(&mut self, stage: Stage) {
        self.stage = stage;
        self.gateway.meters.reached(stage);
        debug!(request_id = %self.requests.handshake, connection.id = %self.id, stage = stage.as_str(), "connection {}", stage.as_str());
    }

    fn full_since(&self) -> Option<Instant> {
        Some(self.joined.as_ref()?.outlet.stalled_since()?.into_std())
    }

    /// Moved only to an earlier time or after it fired, because a busy connection must not reset a timer for
    /// every frame.
    fn set_timer(&self, mut timer: Pin<&mut Sleep>) {
        let now = tokio::time::Instant::now();
        let wanted =
            self.session.deadline().map_or(now + CONNECTION_TIMER_MAX, tokio::time::Instant::from_std);
        if wanted < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(wanted.max(now + Duration::from_millis(1)));
        }
    }
}
