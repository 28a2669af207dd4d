//! A client of the protocol for tests. It reads only on request, so a test that does not read is a slow
//! reader. It never reconnects by itself; the clients of `crowd` do.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::description;
use crate::patience::PATIENCE;
use crate::socket::{Handshake, Head, Incoming, NotOpened, Socket};
use crate::token::Token;

/// The time without a frame that counts as silence. Absence has no event to wait for; a push takes
/// milliseconds.
const SILENCE: Duration = Duration::from_millis(150);
/// Maximum number of buffered frames. More are a mistake of the test.
const BUFFERED_MAX: usize = 100_000;

pub struct Client {
    pub user: String,
    /// The payload of `auth.success`.
    pub session: Value,
    socket: Socket,
    room: Option<String>,
    /// Frames that came while the test waited for another one, oldest first.
    buffered: VecDeque<Value>,
    requests: u64,
}

/// The answer to one frame.
#[derive(Debug)]
pub struct Reply(pub Value);

impl Client {
    /// Connects and signs in by the token in the handshake.
    pub async fn sign_in(host: SocketAddr, user: &str) -> Self {
        Self::open(host, user, &Handshake::bearer(&Token::of(user).sign())).await
    }

    /// Connects and signs in by a handshake that carries a token.
    pub async fn open(host: SocketAddr, user: &str, handshake: &Handshake) -> Self {
        let (socket, _) = Socket::open(host, handshake).await.unwrap_or_else(|why| panic!("{user}: {why}"));
        let mut client = Self::over(socket, user);
        client.session = client.expect("auth.success").await;
        assert_eq!(client.session["user_id"], user);
        client
    }

    /// Connects without waiting for a sign-in. Returns also the head of the answer.
    pub async fn connect(host: SocketAddr, handshake: &Handshake) -> Result<(Self, Head), NotOpened> {
        let (socket, head) = Socket::open(host, handshake).await?;
        Ok((Self::over(socket, "somebody"), head))
    }

    fn over(socket: Socket, user: &str) -> Self {
        Self {
            user: user.to_owned(),
            session: Value::Null,
            socket,
            room: None,
            buffered: VecDeque::new(),
            requests: 0,
        }
    }

    /// Subscribes to a conversation, which `send` then uses. Returns its head.
    pub async fn enter(&mut self, conversation: &str) -> u64 {
        let reply = self.request("subscribe", json!({"conversation_ids": [conversation]})).await;
        let subscribed = reply.expect("subscribed");
        self.clear_buffered();
        assert_eq!(subscribed["conversation_ids"], json!([conversation]), "{subscribed}");
        self.room = Some(conversation.to_owned());
        subscribed["heads"][conversation].as_u64().expect("a head for the conversation")
    }

    /// Drops the buffered frames: they came before the awaited reply (offline delivery, for example).
    pub fn clear_buffered(&mut self) {
        self.buffered.clear();
    }

    /// The payloads of the buffered frames of this type. It reads nothing more, and leaves them buffered.
    pub fn buffered(&self, frame_type: &str) -> Vec<Value> {
        let fitting = self.buffered.iter().filter(|frame| frame["type"] == frame_type);
        fitting.map(|frame| frame["payload"].clone()).collect()
    }

    pub fn room(&self) -> &str {
        self.room.as_deref().expect("entered a conversation first")
    }

    /// Sends `message.send` to the entered conversation.
    pub async fn send(&mut self, text: &str) -> Reply {
        let payload = json!({"conversation_id": self.room(), "content": text});
        self.request("message.send", payload).await
    }

    /// Sends any frame that has an answer.
    pub async fn request(&mut self, frame_type: &str, payload: Value) -> Reply {
        self.requests += 1;
        let id = format!("r{}", self.requests);
        self.write(json!({"type": frame_type, "id": id, "payload": payload})).await;
        self.reply_to(&json!(id)).await
    }

    /// Waits for the reply with this id; earlier frames are buffered.
    pub async fn reply_to(&mut self, id: &Value) -> Reply {
        loop {
            let frame = self.read(&format!("the reply to {id}")).await;
            if frame.get("id") == Some(id) {
                return Reply(frame);
            }
            self.buffer(frame);
        }
    }

    /// Sends any frame without waiting.
    pub async fn write(&mut self, frame: Value) {
        self.write_text(&frame.to_string()).await;
    }

    pub async fn write_text(&mut self, text: &str) {
        let written = self.socket.write_text(text).await;
        written.unwrap_or_else(|error| panic!("{}: writing: {error}", self.user));
    }

    /// Sends bytes that need not be a frame. An error is the server's answer to earlier bytes.
    pub async fn write_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_raw(bytes).await
    }

    /// Waits for the next frame that matches, whole. The others are buffered.
    pub async fn expect_frame(&mut self, what: &str, meant: impl Fn(&Value) -> bool) -> Value {
        if let Some(place) = self.buffered.iter().position(&meant) {
            return self.buffered.remove(place).unwrap_or_default();
        }
        loop {
            let frame = self.read(what).await;
            if meant(&frame) {
                return frame;
            }
            self.buffer(frame);
        }
    }

    /// Waits for the next push of this type and returns its payload. Pushes of other types are buffered.
    pub async fn expect(&mut self, frame_type: &str) -> Value {
        self.expect_where(frame_type, |_| true).await
    }

    /// Waits for the next push of this type whose payload matches.
    pub async fn expect_where(&mut self, frame_type: &str, meant: impl Fn(&Value) -> bool) -> Value {
        let fits = |frame: &Value| frame["type"] == frame_type && meant(&frame["payload"]);
        if let Some(place) = self.buffered.iter().position(fits) {
            return self.buffered.remove(place).map(|mut frame| frame["payload"].take()).unwrap_or_default();
        }
        loop {
            let mut frame = self.read(frame_type).await;
            if fits(&frame) {
                return frame["payload"].take();
            }
            self.buffer(frame);
        }
    }

    /// Takes the oldest buffered push of this type and returns its payload. It reads nothing more.
    pub fn take_buffered(&mut self, frame_type: &str) -> Option<Value> {
        let place = self.buffered.iter().position(|frame| frame["type"] == frame_type)?;
        self.buffered.remove(place).map(|mut frame| frame["payload"].take())
    }

    /// The next message of the entered conversation, which must be this one.
    pub async fn expect_message(&mut self, text: &str) -> Value {
        let room = self.room().to_owned();
        let push = self.expect_where("message.new", |payload| payload["conversation_id"] == *room).await;
        assert_eq!(push["message"]["content"], text, "{}: another message came first: {push}", self.user);
        push["message"].clone()
    }

    /// The next message of the entered conversation that matches.
    pub async fn expect_message_where(&mut self, meant: impl Fn(&Value) -> bool) -> Value {
        self.expect_where("message.new", |payload| meant(&payload["message"])).await["message"].clone()
    }

    /// The next frame without an `id`.
    pub async fn next_push(&mut self) -> Value {
        match self.buffered.pop_front() {
            Some(frame) => frame,
            None => self.read("any push").await,
        }
    }

    /// The next push about messages. Other pushes, such as notifications, come at any time and are buffered.
    pub async fn next_message_push(&mut self) -> Value {
        loop {
            if let Some(place) = self.buffered.iter().position(is_about_messages) {
                return self.buffered.remove(place).expect("it was found");
            }
            let frame = self.read("a push about messages").await;
            self.buffer(frame);
        }
    }

    /// The next frame, or the code of the close that ended the connection.
    pub async fn next_or_close(&mut self) -> Result<Value, u16> {
        if let Some(frame) = self.buffered.pop_front() {
            return Ok(frame);
        }
        match self.incoming("a frame or the end").await {
            Incoming::Json(frame) => Ok(frame),
            Incoming::Closed(code, _) => Err(code),
            Incoming::Lost(why) => panic!("{}: lost without a close frame: {why}", self.user),
        }
    }

    /// The next `error` frame without an id, which must have this code: the answer to a frame that could not
    /// be read.
    pub async fn expect_error(&mut self, code: &str) -> Value {
        let payload = self.expect("error").await;
        assert_eq!(payload["code"], code, "{payload}");
        payload
    }

    /// Checks that no message, edit or deletion arrives, and that none is buffered.
    pub async fn expect_silence(&mut self) {
        if let Some(frame) = self.buffered.iter().find(|frame| is_about_messages(frame)) {
            panic!("{}: silence expected, came {frame}", self.user);
        }
        let silence = tokio::time::sleep(SILENCE);
        tokio::pin!(silence);
        loop {
            let incoming = tokio::select! {
                () = &mut silence => return,
                incoming = self.socket.next() => incoming,
            };
            match incoming {
                Incoming::Json(frame) if is_about_messages(&frame) => {
                    panic!("{}: silence expected, came {frame}", self.user)
                }
                Incoming::Json(frame) => self.buffer(frame),
                end => panic!("{}: silence expected, came {end:?}", self.user),
            }
        }
    }

    /// Waits for the close of the connection and returns its code. Earlier frames are buffered.
    pub async fn expect_close(&mut self) -> u16 {
        loop {
            match self.incoming("a close frame").await {
                Incoming::Json(frame) => self.buffer(frame),
                Incoming::Closed(code, _) => return code,
                Incoming::Lost(why) => panic!("{}: lost without a close frame: {why}", self.user),
            }
        }
    }

    /// Checks that the connection is open, and that everything sent before was handled. Pushes that the host
    /// sent before its answer are then buffered.
    pub async fn expect_alive(&mut self) {
        self.request("ping", json!({})).await.expect("pong");
    }

    async fn read(&mut self, what: &str) -> Value {
        match self.incoming(what).await {
            Incoming::Json(frame) => frame,
            end => panic!("{}: waited for {what}, came {end:?}", self.user),
        }
    }

    async fn incoming(&mut self, what: &str) -> Incoming {
        let Ok(incoming) = tokio::time::timeout(PATIENCE, self.socket.next()).await else {
            let types: Vec<_> = self.buffered.iter().map(|frame| &frame["type"]).collect();
            panic!("{}: waited {PATIENCE:?} in vain for {what}; buffered: {types:?}", self.user)
        };
        if let Incoming::Json(frame) = &incoming
            && let Some(complaint) = description::complaint(frame)
        {
            panic!("{}: {complaint}", self.user);
        }
        incoming
    }

    fn buffer(&mut self, frame: Value) {
        assert!(self.buffered.len() < BUFFERED_MAX, "{}: nobody reads these pushes", self.user);
        self.buffered.push_back(frame);
    }
}

impl Reply {
    /// The payload of a reply of this type.
    #[track_caller]
    pub fn expect(self, frame_type: &str) -> Value {
        assert_eq!(self.0["type"], frame_type, "{}", self.0);
        self.0["payload"].clone()
    }

    /// The stored message.
    #[track_caller]
    pub fn expect_sent(self) -> Value {
        let payload = self.expect("message.sent");
        assert_eq!(payload["duplicate"], false, "{payload}");
        payload["message"].clone()
    }

    /// Checks that the reply is a complete `error` frame with this code, and returns its payload.
    #[track_caller]
    pub fn expect_error(self, code: &str) -> Value {
        let payload = self.expect("error");
        assert_eq!(payload["code"], code, "{payload}");
        assert!(payload["message"].is_string() && payload["retryable"].is_boolean(), "{payload}");
        payload
    }

    /// Checks for `invalid` with this field.
    #[track_caller]
    pub fn expect_invalid(self, field: &str) {
        let payload = self.expect_error("invalid");
        assert_eq!(payload["field"], field, "{payload}");
    }
}

fn is_about_messages(frame: &Value) -> bool {
    frame["type"].as_str().is_some_and(|frame_type| frame_type.starts_with("message."))
}
