//! Fetches of handlers. The way of one fetch: parse, grant, circuit breaker, connection, request, answer; all
//! under one deadline. A redirect begins again at the grant. Nothing here waits in a queue: at a bound a
//! fetch is `busy` at once, because a handler can act on that.
//!
//! `address`, `breaker`, `hop` and `redirect` are pure. `pool` keeps connections by handler. `connect` opens
//! them.

mod address;
mod breaker;
mod connect;
mod hop;
mod meter;
mod pool;
mod redirect;
mod resolve;
mod room;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use hyper::header::HeaderMap;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use breaker::Breakers;
pub use breaker::Conceal;
use connect::Dialer;
use hop::{Hop, OF_THE_TRANSPORT};
use meter::{Meter, answer_bytes_max};
use pool::{Ages, Connection, Key, Pool};
use resolve::{Resolve, System};
use room::{Held, NoRoom};
pub use room::{Room, quota};
use switchboard_contract::fetch::{Error, Request, Response};
use switchboard_core::fetch_url::FetchUrl;
use switchboard_core::limits;
use switchboard_core::manifest::FetchRules;
use switchboard_core::shutdown::ShutdownGuard;

/// The fetches of all handlers of one node: their connections and circuit breakers. Clones share them.
#[derive(Clone)]
pub struct Outbound(Arc<Inner>);

struct Inner {
    pool: Pool,
    breakers: Arc<Breakers>,
    dialer: Dialer,
    in_flight: InFlight,
}

/// The fetches that one call may make.
pub struct Allowance<'a> {
    pub handler: &'a str,
    pub rules: &'a FetchRules,
    /// Maximum fetches of the handler in flight on this node.
    pub concurrency: u32,
    /// Maximum bytes of a body, in each direction.
    pub bytes_max: u64,
    /// The room for the bodies of all fetches of the host call.
    pub room: &'a Room,
    /// Removes the handler's secrets from what is logged about a host.
    pub conceal: &'a Conceal,
    /// The end of the call.
    pub deadline: Instant,
}

/// The bounds of one fetch, with all its redirects.
struct Bounds<'a> {
    handler: Arc<str>,
    bytes_max: u64,
    room: &'a Room,
    conceal: &'a Conceal,
    deadline: Instant,
}

impl Default for Outbound {
    fn default() -> Self {
        Self::new(Arc::new(System), Ages::default())
    }
}

impl Outbound {
    fn new(resolver: Arc<dyn Resolve>, ages: Ages) -> Self {
        Self(Arc::new(Inner {
            pool: Pool::with(ages),
            breakers: Arc::default(),
            dialer: Dialer::new(resolver),
            in_flight: InFlight::default(),
        }))
    }

    /// Sends one request, and returns its answer, or that of its last redirect.
    ///
    /// # Errors
    /// As the contract states them.
    pub async fn send(&self, allowed: &Allowance<'_>, request: Request) -> Result<Response, Error> {
        let deadline = match request.timeout_ms {
            Some(ms) => allowed.deadline.min(Instant::now() + Duration::from_millis(ms.into())),
            None => allowed.deadline,
        };
        let mut redirects = request.redirects;
        let mut hop = Hop::of(request, allowed.bytes_max)?;
        let mut networks = hop.granted(allowed.rules)?;
        let handler: Arc<str> = allowed.handler.into();
        let _in_flight = self.0.in_flight.begin(&handler, allowed.concurrency).ok_or(Error::Busy)?;
        let _request = allowed.room.request(hop.body.len()).ok_or(Error::Busy)?;
        let &Allowance { bytes_max, room, conceal, .. } = allowed;
        let by = Bounds { handler, bytes_max, room, conceal, deadline };
        loop {
            let answer = self.hop(&by, &hop, &networks).await?;
            if redirects == 0 {
                return Ok(answer.into_response(hop.url));
            }
            let target = redirect::target(&hop.method, &hop.url, answer.status, &answer.headers);
            let Some(target) = target.map_err(Error::Refused)? else {
                return Ok(answer.into_response(hop.url));
            };
            redirects -= 1;
            hop = hop.to(target)?;
            networks = hop.granted(allowed.rules).map_err(|_| {
                Error::Refused(format!("the redirect to {} is not granted (grants.fetch)", hop.url))
            })?;
        }
    }

    /// One request and its answer, through the circuit breaker.
    async fn hop<'a>(&self, by: &Bounds<'a>, hop: &Hop, networks: &[IpNet]) -> Result<Answer<'a>, Error> {
        let (host, port) = (hop.url.host_text(), hop.url.port());
        let passed = self.0.breakers.pass(&by.handler, host, port, by.deadline, by.conceal);
        let passed = passed.map_err(Error::Unavailable)?;
        let answer = self.exchange(by, hop, networks).await;
        match &answer {
            Ok((head, _)) if matches!(head.status.as_u16(), 502..=504) => {
                passed.failed(&format!("status {}", head.status.as_u16()));
            }
            // A service that answers too much is not dead, and neither is one whose answer has no room here.
            Ok(_) | Err(Error::TooLarge(_)) => passed.succeeded(),
            Err(Error::Unavailable(why) | Error::UnknownOutcome(why)) => passed.failed(why),
            // These say nothing about the service.
            Err(Error::Refused(_) | Error::Busy) => drop(passed),
        }
        let (Head { status, headers }, body) = answer?;
        let (body, held) = body.map_err(NoRoom::into_error)?;
        Ok(Answer { status, headers, body, held })
    }

    async fn exchange<'a>(
        &self,
        by: &Bounds<'a>,
        hop: &Hop,
        networks: &[IpNet],
    ) -> Result<(Head, Received<'a>), Error> {
        let deadline = by.deadline;
        let key = Key {
            handler: by.handler.clone(),
            is_tls: hop.url.is_tls(),
            host: hop.url.host_text().to_owned(),
            port: hop.url.port(),
        };
        let is_permitted = |address| address::is_permitted(address, networks);
        let mut sent_twice = false;
        // A server may close an idle connection at any time. Each round takes one of the pool, or is the
        // last.
        loop {
            let pooled = if sent_twice { None } else { self.0.pool.take(&key, is_permitted) };
            let is_pooled = pooled.is_some();
            let mut connection = match pooled {
                Some(connection) => connection,
                None => self.open(&key, &hop.url, networks, deadline).await?,
            };
            let until = match is_pooled {
                true => deadline.min(Instant::now() + limits::FETCH_IDLE_READY_WAIT),
                false => deadline,
            };
            match timeout_at(until, connection.sender.ready()).await {
                Ok(Ok(())) => {}
                // The server has closed it, or it has answered the last request and does not read its end.
                Ok(Err(_)) | Err(_) if is_pooled => continue,
                Ok(Err(error)) => {
                    return Err(Error::Unavailable(format!("{} closed: {error}", hop.url.authority())));
                }
                Err(_) => return Err(Error::Unavailable(no_answer(&hop.url))),
            }
            connection.meter.begin(by.bytes_max);
            let sent = timeout_at(deadline, connection.sender.try_send_request(hop.request())).await;
            let (head, body) = match sent {
                Err(_) => return Err(Error::UnknownOutcome(no_answer(&hop.url))),
                Ok(Ok(answer)) => answer.into_parts(),
                Ok(Err(_)) if connection.meter.is_over() => {
                    return Err(Error::TooLarge(answer_bytes_max(by.bytes_max)));
                }
                // Nothing was written.
                Ok(Err(error)) if is_pooled && error.message().is_some() => continue,
                Ok(Err(error)) if error.error().is_parse_too_large() => {
                    return Err(Error::TooLarge(limits::FETCH_HEADERS_BYTES_MAX as u64));
                }
                // The server closed a connection that was idle. A GET has no effect, so it may be sent again.
                Ok(Err(error)) if is_pooled && hop.is_safe() && !error.error().is_parse() => {
                    sent_twice = true;
                    continue;
                }
                Ok(Err(error)) => return Err(broken(&hop.url, &error.into_error())),
            };
            if !(200..600).contains(&head.status.as_u16()) {
                return Err(broken(
                    &hop.url,
                    &format_args!("it answered with the status {}", head.status.as_u16()),
                ));
            }
            let body = receive(&hop.url, body, by, &connection.meter).await?;
            if body.is_ok() {
                self.0.pool.give(key, connection);
            }
            return Ok((Head { status: head.status, headers: head.headers }, body));
        }
    }

    async fn open(
        &self,
        key: &Key,
        url: &FetchUrl,
        networks: &[IpNet],
        deadline: Instant,
    ) -> Result<Connection, Error> {
        let slot = self.0.pool.slot(key).ok_or(Error::Busy)?;
        let dialed = self.0.dialer.dial(&key.handler, url, networks, deadline).await?;
        Ok(Connection::new(dialed, slot))
    }

    /// Closes idle connections in time, and reports the open circuit breakers, until the shutdown begins.
    pub async fn upkeep(self, mut guard: ShutdownGuard) {
        let mut tick = interval(limits::FETCH_UPKEEP_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = guard.begun() => break,
            }
            self.0.pool.close_idle();
            metrics::gauge!("switchboard_fetch_breakers_open").set(self.0.breakers.open() as f64);
        }
        self.0.pool.close_all();
    }
}

/// Checks a request without sending it, for a sandbox that has no network.
///
/// # Errors
/// `Refused` or `TooLarge`, as [`Outbound::send`] would.
pub fn check(rules: &FetchRules, bytes_max: u64, request: Request) -> Result<(), Error> {
    Hop::of(request, bytes_max)?.granted(rules).map(drop)
}

struct Head {
    status: StatusCode,
    headers: HeaderMap,
}

/// A whole body and its room, or the bound that it met.
type Received<'a> = Result<(Vec<u8>, Held<'a>), NoRoom>;

/// Reads the body of an answer, within all bounds.
async fn receive<'a>(
    url: &FetchUrl,
    mut body: Incoming,
    &Bounds { bytes_max, room, deadline, .. }: &Bounds<'a>,
    meter: &Meter,
) -> Result<Received<'a>, Error> {
    if body.size_hint().lower() > bytes_max {
        return Err(Error::TooLarge(bytes_max));
    }
    let mut held = room.answer();
    let mut bytes = Vec::new();
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(Error::UnknownOutcome(no_answer(url))),
            Ok(None) => return Ok(Ok((bytes, held))),
            Ok(Some(Err(_))) if meter.is_over() => return Err(Error::TooLarge(answer_bytes_max(bytes_max))),
            Ok(Some(Err(error))) => return Err(broken(url, &error)),
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers are left out.
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() as u64 + data.len() as u64 > bytes_max {
            return Err(Error::TooLarge(bytes_max));
        }
        if let Err(no_room) = held.grow(data.len()) {
            return Ok(Err(no_room));
        }
        bytes.extend_from_slice(&data);
    }
}

struct Answer<'a> {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    held: Held<'a>,
}

impl Answer<'_> {
    fn into_response(self, url: FetchUrl) -> Response {
        self.held.keep();
        let headers = self.headers.iter().filter(|(name, _)| {
            // The length of the answer to a HEAD is what such a request asks for.
            !OF_THE_TRANSPORT.contains(&name.as_str()) || name.as_str() == "content-length"
        });
        let headers = headers.map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        Response {
            status: self.status.as_u16(),
            headers: headers.collect(),
            body: self.body,
            url: url.as_str().to_owned(),
        }
    }
}

/// The number of fetches of each handler in flight.
#[derive(Default)]
struct InFlight(Arc<Mutex<HashMap<Arc<str>, u32>>>);

/// One fetch in flight, until it is dropped.
struct Sending {
    all: Arc<Mutex<HashMap<Arc<str>, u32>>>,
    handler: Arc<str>,
}

impl InFlight {
    fn begin(&self, handler: &Arc<str>, most: u32) -> Option<Sending> {
        let mut all = self.0.lock();
        match all.get_mut(handler) {
            Some(count) if *count >= most => return None,
            Some(count) => *count += 1,
            None => {
                all.insert(handler.clone(), 1);
            }
        }
        Some(Sending { all: self.0.clone(), handler: handler.clone() })
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(count) = all.get_mut(&self.handler) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.handler);
            }
        }
    }
}

fn no_answer(url: &FetchUrl) -> String {
    format!("no whole answer from {} in time", url.authority())
}

fn broken(url: &FetchUrl, error: &dyn std::fmt::Display) -> Error {
    Error::UnknownOutcome(format!("the exchange with {} broke: {error}", url.authority()))
}
