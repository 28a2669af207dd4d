//! One WebSocket connection from its upgrade to its end: a task that is parked unless there is something to read, to write,
//! to answer or to end. The rules are `session`'s, the bytes are `socket`'s; here they meet the house.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::time::{Sleep, timeout};
use tracing::{debug, warn};

use super::Gateway;
use super::house::House;
use super::places::UserPlace;
use super::socket::{Next, Socket};
use crate::contract::connection::{Closed, Opened};
use crate::contract::frame::Reply;
use crate::contract::types::{Problem, Push};
use crate::fanout::{ConnectionInfo, Outlet};
use crate::http_server::slots::Held;
use crate::http_server::{Slot, Stalled};
use crate::ids::ConnectionId;
use crate::limits::GOODBYE_WAIT;
use crate::session::{Action, Credentials, Input, Session, Stage};
use crate::shutdown::ShutdownGuard;
use crate::wire::close::Close;
use crate::wire::frames::{self, Frame, FrameId};
use crate::wire::problem::Code;
use crate::wire::timestamp;
use crate::wire::websocket::{Message, encode_pong, encode_text};

/// What the handshake learned.
pub struct Arrival {
    pub remote: SocketAddr,
    pub user_agent: Option<String>,
    pub standing: Standing,
}

/// Whether somebody has signed in, and what the connection holds for its place among those of the node.
pub enum Standing {
    /// Closed for another connection when the node is full; the slot holds the place.
    Anonymous(Slot),
    /// The handshake carried a token.
    SignedIn(Arc<Credentials>, Held),
}

/// The place of a connection among those of the node.
enum Place {
    Anonymous(Slot),
    /// Somebody has signed in. `None`: the place was given to another connection at that moment.
    SignedIn {
        _held: Option<Held>,
    },
}

/// While nothing is due, the timer of a connection looks again after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(90);

struct Connection {
    gateway: Arc<Gateway>,
    id: ConnectionId,
    socket: Socket,
    session: Session,
    work: Option<BoxFuture<'static, Done>>,
    /// Once somebody has signed in and the handlers have said what comes first; until then pushes wait.
    joined: Option<Joined>,
    user_place: Option<UserPlace>,
    place: Place,
    /// The socket took no more bytes when it was last asked.
    blocked: bool,
    /// The last stage of its life that was counted.
    stage: Stage,
    /// Told to the handlers once, when somebody has signed in.
    arrival: Option<Box<(SocketAddr, Option<String>)>>,
}

/// A connection that is open in the hub. It is closed there also when the task of the connection panics.
struct Joined {
    outlet: Arc<Outlet>,
    house: Arc<dyn House>,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.house.leave(self.outlet.info().connection);
    }
}

/// Work that is done.
enum Done {
    Verified(Result<Arc<Credentials>, Problem>),
    Welcomed { joined: Joined, pushes: Vec<Push> },
    Answered { id: Option<FrameId>, answer: Result<Option<Reply>, Problem> },
}

/// Why the task woke up.
enum Event {
    Heard(Vec<Action>),
    Done(Done),
    Blocked,
    Flowing,
    /// The outlet ended: somebody wants the connection closed.
    Ended(Close),
    /// The peer is gone, or has closed.
    Gone(u16),
    Timer,
    Drain,
}

/// The code with which it ended is told to the handlers and counted.
pub async fn run(gateway: Arc<Gateway>, socket: Socket, arrival: Arrival, mut guard: ShutdownGuard) {
    let Arrival { remote, user_agent, standing } = arrival;
    let (credentials, place) = match standing {
        Standing::Anonymous(slot) => (None, Place::Anonymous(slot)),
        Standing::SignedIn(who, held) => (Some(who), Place::SignedIn { _held: Some(held) }),
    };
    let mut connection = Connection {
        id: ConnectionId::random(),
        session: Session::new(Instant::now(), gateway.session.clone()),
        gateway,
        socket,
        work: None,
        joined: None,
        user_place: None,
        place,
        blocked: false,
        stage: Stage::Connecting,
        arrival: Some(Box::new((remote, user_agent))),
    };
    connection.reached(Stage::Connecting);
    let code = connection.live(credentials, &mut guard).await;
    connection.end(code).await;
}

impl Connection {
    /// Until there is nothing more to hear; gives the close code.
    async fn live(&mut self, credentials: Option<Arc<Credentials>>, guard: &mut ShutdownGuard) -> u16 {
        let mut timer = pin!(tokio::time::sleep(LOOK_AGAIN));
        let mut begun = pin!(guard.begun());
        let mut draining = false;
        let mut actions = credentials.map_or_else(Vec::new, |credentials| {
            let input = Input::Verified { verdict: Ok(credentials), unix_ms: timestamp::now_ms() };
            self.session.handle(Instant::now(), input)
        });
        loop {
            for action in actions {
                if let Some(close) = self.perform(action) {
                    return self.goodbye(close).await;
                }
            }
            if self.session.stage() != self.stage {
                self.reached(self.session.stage());
            }
            self.set(timer.as_mut());
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
                Event::Heard(heard) => {
                    actions = heard;
                    continue;
                }
                Event::Gone(code) => return code,
                Event::Done(done) => self.finish(done),
                Event::Blocked => Input::Blocked { full_since: self.full_since() },
                Event::Flowing => Input::Flowing,
                Event::Ended(close) => Input::End(close),
                Event::Timer if self.blocked => Input::Blocked { full_since: self.full_since() },
                Event::Timer => Input::Deadline,
                Event::Drain => {
                    draining = true;
                    Input::Drain { patience: self.gateway.patience() }
                }
            };
            actions = self.session.handle(Instant::now(), input);
        }
    }

    /// The order matters: an answer first, so that it is written with what is pushed; then writing, so that a reader who
    /// reads is not kept waiting by what it sends; then reading.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(work) = &mut self.work
            && let Poll::Ready(done) = work.as_mut().poll(cx)
        {
            self.work = None;
            return Poll::Ready(Event::Done(done));
        }
        if let Place::Anonymous(slot) = &self.place
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
                // Nothing can be written to it any more, so it never sees the close frame.
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
        // Who does not read what is said to it is not asked for more.
        let is_behind = || self.socket.is_backed_up() || outlet.is_some_and(|outlet| outlet.is_full());
        if !self.session.listens() || self.blocked && is_behind() {
            return Poll::Pending;
        }
        self.poll_hear(cx)
    }

    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let mut actions = Vec::new();
        let mut closed = None;
        let mut pongs = Vec::new();
        let (session, frames) = (&mut self.session, &self.gateway.meters.frames_in);
        let heard = self.socket.poll_hear(cx, |message| {
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
            if session.listens() { Next::Go } else { Next::Stop }
        });
        for pong in pongs {
            self.socket.say(pong);
        }
        match heard {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(_)) => Poll::Ready(Event::Gone(Close::LOST)),
            Poll::Ready(Ok(())) => {
                if let Some(code) = closed {
                    let echo = code.and_then(|code| Close::requested(code, "")).unwrap_or(Close::DONE);
                    actions.append(&mut self.session.handle(Instant::now(), Input::End(echo)));
                }
                Poll::Ready(Event::Heard(actions))
            }
        }
    }

    /// A close is the last action, and the caller's to carry out.
    fn perform(&mut self, action: Action) -> Option<Close> {
        match action {
            Action::Send(text) => self.say(&text),
            Action::Verify { token } => {
                let auth = self.gateway.auth.clone();
                self.work = Some(Box::pin(async move { Done::Verified(auth.verify(&token).await) }));
            }
            Action::Welcome { who, greeting } => return self.welcome(&who, &greeting),
            Action::Renewed(who) => return self.hold(who),
            Action::Call(frame) => self.call(frame),
            Action::Touch { active } => {
                if let Some(who) = self.session.who() {
                    self.gateway.house.touch(self.id, &who.user, active);
                }
            }
            Action::Close(close) => return Some(close),
        }
        None
    }

    fn welcome(&mut self, who: &Arc<Credentials>, greeting: &str) -> Option<Close> {
        if let Place::Anonymous(slot) = &self.place {
            let held = slot.sign_in();
            let is_closed = held.is_none();
            self.place = Place::SignedIn { _held: held };
            if is_closed {
                return self.close_with(Close::NO_ROOM);
            }
        }
        let Some(place) = self.gateway.places.take_for(&who.user) else {
            return self.close_with(Close::TOO_MANY_CONNECTIONS);
        };
        self.user_place = Some(place);
        // Queued here, before the first push can be.
        self.socket.say(encode_text(greeting));
        let info = ConnectionInfo {
            connection: self.id,
            user: who.user.clone(),
            session: who.principal.session_id.as_str().into(),
        };
        let (remote, user_agent) = self.arrival.take().map(|arrival| *arrival).unzip();
        let opened = Opened {
            connection: self.id.to_string(),
            caller: who.principal.clone(),
            node: self.gateway.node.to_string(),
            user_agent: user_agent.flatten(),
            remote: remote.map(|remote: SocketAddr| remote.ip().to_string()).unwrap_or_default(),
        };
        let house = self.gateway.house.clone();
        self.work = Some(Box::pin(async move {
            let joined = Joined { outlet: house.join(info).await, house: house.clone() };
            let pushes = house.opened(opened).await;
            Done::Welcomed { joined, pushes }
        }));
        None
    }

    fn close_with(&mut self, close: Close) -> Option<Close> {
        let actions = self.session.handle(Instant::now(), Input::End(close));
        actions.into_iter().find_map(|action| self.perform(action))
    }

    /// From here on a revocation of this token finds the connection; one that came before is found here.
    fn hold(&self, who: Arc<Credentials>) -> Option<Close> {
        let Some(Joined { outlet, .. }) = &self.joined else { return None };
        outlet.set_token(who.clone());
        self.gateway.auth.is_revoked(&who).then_some(Close::TOKEN)
    }

    fn call(&mut self, frame: Frame) {
        let (Some(who), Some(joined)) = (self.session.who(), &self.joined) else { return };
        let (who, outlet, house) = (who.clone(), joined.outlet.clone(), self.gateway.house.clone());
        self.work = Some(Box::pin(async move {
            let Frame { frame_type, id, payload } = frame;
            let answer = house.frame(outlet.info(), &who.principal, &frame_type, &payload).await;
            Done::Answered { id, answer }
        }));
    }

    /// Queues what the work has to say, and says so to the session.
    fn finish(&mut self, done: Done) -> Input<'static> {
        match done {
            Done::Verified(verdict) => return Input::Verified { verdict, unix_ms: timestamp::now_ms() },
            Done::Welcomed { joined, pushes } => {
                // Before anything that was pushed meanwhile.
                for push in pushes {
                    self.socket.say(encode_text(&push.frame));
                }
                self.joined = Some(joined);
                if let Some(close) = self.session.who().cloned().and_then(|who| self.hold(who)) {
                    return Input::End(close);
                }
            }
            Done::Answered { id, answer } => self.answer(id.as_ref(), answer),
        }
        Input::Done
    }

    /// The reply first, then what it opens.
    fn answer(&self, id: Option<&FrameId>, answer: Result<Option<Reply>, Problem>) {
        let Some(Joined { outlet, house }) = &self.joined else { return };
        let text = match &answer {
            Ok(None) => return house.open(self.id, &[]),
            Ok(Some(reply)) => frames::reply(&reply.frame_type, id, &reply.payload).ok_or_else(|| {
                warn!(frame.reply = reply.frame_type, "a handler's reply is not JSON");
                Code::Internal.problem("the answer could not be written")
            }),
            Err(problem) => Err(problem.clone()),
        };
        match (text, answer) {
            (Ok(text), Ok(Some(reply))) => {
                outlet.push_reply(&text);
                house.open(self.id, &reply.subscriptions);
            }
            (Err(problem), _) => {
                outlet.push_reply(&frames::error(id, &problem));
                house.take_back(self.id);
            }
            (Ok(_), _) => {}
        }
    }

    fn say(&mut self, text: &str) {
        match &self.joined {
            Some(joined) => joined.outlet.push_reply(text),
            None => self.socket.say(encode_text(text)),
        }
    }

    /// Says what is queued and the close, as far as the peer reads it in time.
    async fn goodbye(&mut self, close: Close) -> u16 {
        let mut code = close.code();
        let mut said = self.joined.is_none();
        match &self.joined {
            Some(joined) => joined.outlet.close(close),
            None => self.socket.say_goodbye(&close),
        }
        let parting = async {
            loop {
                let outlet = self.joined.as_ref().filter(|_| !said).map(|joined| joined.outlet.as_ref());
                match poll_fn(|cx| self.socket.poll_write(cx, outlet)).await {
                    // Whoever closed first is obeyed: an operator's word counts more than a timer's.
                    Ok(Some(close)) => {
                        code = close.code();
                        said = true;
                        self.socket.say_goodbye(&close);
                    }
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            if poll_fn(|cx| self.socket.poll_shutdown(cx)).await.is_ok() {
                poll_fn(|cx| self.socket.poll_drain(cx)).await;
            }
        };
        let _ = timeout(GOODBYE_WAIT, parting).await;
        code
    }

    /// A call in progress may have committed or may still do so: its connection has not ended before it has.
    async fn end(mut self, code: u16) {
        if let Some(work) = self.work.take()
            && let Done::Welcomed { joined, .. } = work.await
        {
            self.joined = Some(joined);
        }
        self.gateway.meters.closed(code);
        self.reached(self.stage.ended());
        let Some(joined) = self.joined else { return };
        let user = joined.outlet.info().user.clone();
        drop((joined, self.socket, self.user_place));
        debug!(connection.id = %self.id, close.code = code, "connection closed");
        let closed = Closed {
            connection: self.id.to_string(),
            user_id: user.as_str().to_owned(),
            node: self.gateway.node.to_string(),
            code,
        };
        self.gateway.house.closed(closed).await;
    }

    fn reached(&mut self, stage: Stage) {
        self.stage = stage;
        self.gateway.meters.reached(stage);
        debug!(connection.id = %self.id, stage = stage.as_str(), "connection {}", stage.as_str());
    }

    fn full_since(&self) -> Option<Instant> {
        Some(self.joined.as_ref()?.outlet.stalled_since()?.into_std())
    }

    /// Moved only to come earlier, or when it has come: an idle connection must not pay for every frame.
    fn set(&self, mut timer: Pin<&mut Sleep>) {
        let now = tokio::time::Instant::now();
        let wanted = self.session.deadline().map_or(now + LOOK_AGAIN, tokio::time::Instant::from_std);
        if wanted < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(wanted.max(now + Duration::from_millis(1)));
        }
    }
}
