//! Watches: an operator sees the calls and the log lines of all nodes while they happen (`switchboard tail`).
//!
//! 1. The operator's node opens a watch and announces it on the control channel, again and again while the
//!    operator asks for more.
//! 2. Each node keeps what it does and what passes the filter for the watch, and sends it several times a
//!    second to the node of the operator, on that node's own channel.
//! 3. The operator's node keeps the newest events until the operator takes them.
//!
//! Without a watch a call costs one relaxed load. Every buffer is bounded, and what does not fit is dropped
//! and counted, so neither an operator who does not read nor a busy fleet delays a call. An event is the text
//! of a JSON object; this module does not read it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::bus::Bus;
use super::envelope::Envelope;
use switchboard_core::ids::NodeId;
use switchboard_core::limits;

/// Which events an operator wants to see. `None`: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchFilter {
    pub handler: Option<String>,
    /// Only calls of this user. No log lines: they do not name a user.
    pub user: Option<String>,
    /// Only calls of this trigger. No log lines.
    pub trigger: Option<String>,
    /// Only calls that failed or answered with an error, and log lines from `warn` on.
    pub failed: bool,
}

/// The properties of an event that a filter compares.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub handler: &'a str,
    pub user: Option<&'a str>,
    pub trigger: Option<&'a str>,
    pub is_failure: bool,
}

/// The events that an operator takes at a time, in the order in which they arrived.
#[derive(Debug, Default, PartialEq)]
pub struct Watched {
    pub events: Vec<Bytes>,
    /// The number of events that were dropped before these, on all nodes.
    pub dropped: u64,
}

/// This node has [`limits::WATCHERS_MAX`] watches of operators already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyWatches;

/// The watches of one node. Clones share them.
#[derive(Clone)]
pub struct Watches(Arc<Shared>);

struct Shared {
    node: NodeId,
    /// Whether there is any watch, of this node or of another one.
    is_watched: AtomicBool,
    watches: Mutex<HashMap<Uuid, Watch>>,
    watchers: Mutex<HashMap<Uuid, Watcher>>,
    /// A watch was opened, here or on another node.
    opened: Notify,
}

/// A watch for which this node collects events.
struct Watch {
    /// The node of the operator.
    node: Uuid,
    filter: WatchFilter,
    /// It ends then, unless it is announced again.
    until: Instant,
    waiting: Buffer,
}

/// A watch that an operator opened on this node.
struct Watcher {
    filter: WatchFilter,
    arrived: Buffer,
    /// Notified when there is something to take.
    changed: Arc<Notify>,
    asked_at: Instant,
    announced_at: Option<Instant>,
}

/// Events in order, within a number and a size.
#[derive(Default)]
struct Buffer {
    events: VecDeque<Bytes>,
    bytes: usize,
    dropped: u64,
}

impl WatchFilter {
    fn passes(&self, subject: &Subject<'_>) -> bool {
        let is = |wanted: &Option<String>, given: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| given == Some(wanted))
        };
        is(&self.handler, Some(subject.handler))
            && is(&self.user, subject.user)
            && is(&self.trigger, subject.trigger)
            && (!self.failed || subject.is_failure)
    }
}

impl Buffer {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.dropped == 0
    }

    fn push(&mut self, event: Bytes) {
        self.bytes += event.len();
        self.events.push_back(event);
    }

    /// Drops the oldest events beyond the bounds.
    fn cut(&mut self, events_max: usize, bytes_max: usize) {
        while self.events.len() > events_max || self.bytes > bytes_max {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.len();
            self.dropped += 1;
        }
    }

    fn take(&mut self) -> Watched {
        let Self { events, dropped, .. } = std::mem::take(self);
        Watched { events: events.into(), dropped }
    }
}

impl Watches {
    pub(super) fn new(node: NodeId) -> Self {
        Self(Arc::new(Shared {
            node,
            is_watched: AtomicBool::new(false),
            watches: Mutex::default(),
            watchers: Mutex::default(),
            opened: Notify::new(),
        }))
    }

    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// Returns true while an operator watches, on any node. One relaxed load.
    pub fn is_watched(&self) -> bool {
        self.0.is_watched.load(Relaxed)
    }

    /// Keeps an event for each watch whose filter it passes. `event` is called at most once. An event of more
    /// than [`limits::WATCHED_EVENT_BYTES_MAX`] is dropped and counted.
    pub fn record(&self, subject: &Subject<'_>, event: impl Fn() -> String) {
        if !self.is_watched() {
            return;
        }
        let mut text: Option<Bytes> = None;
        for watch in self.0.watches.lock().values_mut().filter(|watch| watch.filter.passes(subject)) {
            let text = text.get_or_insert_with(|| event().into());
            if text.len() > limits::WATCHED_EVENT_BYTES_MAX {
                watch.waiting.dropped += 1;
                continue;
            }
            watch.waiting.push(text.clone());
            watch.waiting.cut(limits::WATCHED_EVENTS_WAITING_MAX, limits::WATCHED_BYTES_WAITING_MAX);
        }
    }

    /// Opens a watch of all nodes. It ends when the operator does not `take` for
    /// [`limits::WATCHER_IDLE_MAX`].
    ///
    /// # Errors
    /// `TooManyWatches` beyond [`limits::WATCHERS_MAX`].
    pub fn open(&self, filter: WatchFilter) -> Result<Uuid, TooManyWatches> {
        let id = Uuid::now_v7();
        {
            let mut watchers = self.0.watchers.lock();
            if watchers.len() >= limits::WATCHERS_MAX {
                return Err(TooManyWatches);
            }
            let watcher = Watcher {
                filter: filter.clone(),
                arrived: Buffer::default(),
                changed: Arc::default(),
                asked_at: Instant::now(),
                announced_at: None,
            };
            watchers.insert(id, watcher);
        }
        self.announced(self.0.node.uuid(), id, filter);
        Ok(id)
    }

    /// Takes the events of a watch that was opened on this node. Without any, waits for the first. Returns
    /// none when `wait` is over, and `None` when there is no such watch (any more). Cancel safe.
    pub async fn take(&self, watch: Uuid, wait: Duration) -> Option<Watched> {
        let until = Instant::now() + wait;
        loop {
            let changed = {
                let mut watchers = self.0.watchers.lock();
                let watcher = watchers.get_mut(&watch)?;
                let now = Instant::now();
                watcher.asked_at = now;
                if !watcher.arrived.is_empty() || now >= until {
                    return Some(watcher.arrived.take());
                }
                watcher.changed.clone()
            };
            let _ = timeout_at(until, changed.notified()).await;
        }
    }

    /// A node, this one or another, announced a watch. Beyond [`limits::WATCHES_MAX`] a new one is ignored.
    pub(super) fn announced(&self, node: Uuid, watch: Uuid, filter: WatchFilter) {
        let until = Instant::now() + limits::WATCH_KEPT;
        let mut watches = self.0.watches.lock();
        let has_room = watches.len() < limits::WATCHES_MAX;
        match watches.get_mut(&watch) {
            Some(known) => known.until = until,
            None if has_room => {
                watches.insert(watch, Watch { node, filter, until, waiting: Buffer::default() });
            }
            None => {}
        }
        self.0.is_watched.store(!watches.is_empty(), Relaxed);
        self.0.opened.notify_one();
    }

    /// Events for a watch of this node arrived. Those for another one are ignored.
    pub(super) fn arrived(&self, watch: Uuid, dropped: u64, events: Vec<Bytes>) {
        let mut watchers = self.0.watchers.lock();
        let Some(watcher) = watchers.get_mut(&watch) else { return };
        watcher.arrived.dropped += dropped;
        events.into_iter().for_each(|event| watcher.arrived.push(event));
        watcher.arrived.cut(limits::WATCHED_EVENTS_KEPT_MAX, limits::WATCHED_BYTES_KEPT_MAX);
        watcher.changed.notify_one();
    }

    /// Announces the watches of this node, and sends what was collected for all, until the future is dropped.
    pub(super) async fn run(self, bus: Bus) {
        loop {
            if !self.is_watched() && self.0.watchers.lock().is_empty() {
                self.0.opened.notified().await;
            }
            for (watch, filter) in self.due_announcements(Instant::now()) {
                self.announced(self.0.node.uuid(), watch, filter.clone());
                let announcement = Envelope::Watch { node: self.0.node.uuid(), watch, filter };
                if bus.publish_control(&announcement).await.is_err() {
                    // The bus is away, so the others would only wait too. All are announced again later.
                    break;
                }
            }
            for (node, watch, Watched { events, dropped }) in self.collected(Instant::now()) {
                if node == self.0.node.uuid() {
                    self.arrived(watch, dropped, events);
                    continue;
                }
                let lost = dropped + events.len() as u64;
                let sent = bus.publish_to_node(node, &Envelope::Watched { watch, dropped, events }).await;
                if sent.is_err() {
                    self.lost(watch, lost);
                }
            }
            sleep(limits::WATCHED_SENT_EVERY).await;
        }
    }

    /// Events could not be sent.
    fn lost(&self, watch: Uuid, events: u64) {
        if let Some(watch) = self.0.watches.lock().get_mut(&watch) {
            watch.waiting.dropped += events;
        }
    }

    /// Ends the watches of operators who do not ask any more, and returns those that are to be announced now.
    fn due_announcements(&self, now: Instant) -> Vec<(Uuid, WatchFilter)> {
        let mut watchers = self.0.watchers.lock();
        watchers.retain(|_, watcher| now - watcher.asked_at < limits::WATCHER_IDLE_MAX);
        let is_due = |watcher: &Watcher| {
            watcher.announced_at.is_none_or(|announced| now - announced >= limits::WATCH_ANNOUNCED_EVERY)
        };
        let due = watchers.iter_mut().filter(|(_, watcher)| is_due(watcher)).map(|(watch, watcher)| {
            watcher.announced_at = Some(now);
            (*watch, watcher.filter.clone())
        });
        due.collect()
    }

    /// Ends the watches that were not announced in time, and takes what was collected for the others: the
    /// operator's node, the watch, the events.
    fn collected(&self, now: Instant) -> Vec<(Uuid, Uuid, Watched)> {
        let mut watches = self.0.watches.lock();
        watches.retain(|_, watch| watch.until > now);
        self.0.is_watched.store(!watches.is_empty(), Relaxed);
        let with_events = watches.iter_mut().filter(|(_, watch)| !watch.waiting.is_empty());
        with_events.map(|(id, watch)| (watch.node, *id, watch.waiting.take())).collect()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn watches() -> Watches {
        Watches::new(NodeId::random())
    }

    fn of<'a>(handler: &'a str, user: Option<&'a str>, is_failure: bool) -> Subject<'a> {
        Subject { handler, user, trigger: user.map(|_| "frame"), is_failure }
    }

    /// Brings what was collected to the watches of this node, as `run` does.
    fn deliver(watches: &Watches) {
        for (node, watch, Watched { events, dropped }) in watches.collected(Instant::now()) {
            assert_eq!(node, watches.node().uuid());
            watches.arrived(watch, dropped, events);
        }
    }

    fn taken(watches: &Watches, watch: Uuid) -> Watched {
        watches.take(watch, Duration::ZERO).now_or_never().flatten().expect("an open watch")
    }

    #[tokio::test]
    async fn without_a_watch_no_event_is_made() {
        let watches = watches();
        assert!(!watches.is_watched());
        watches.record(&of("send", None, true), || panic!("nobody watches"));
    }

    #[tokio::test]
    async fn a_watch_gets_what_passes_its_filter() {
        let watches = watches();
        let filter = |handler: Option<&str>, user: Option<&str>, failed| WatchFilter {
            handler: handler.map(str::to_owned),
            user: user.map(str::to_owned),
            trigger: None,
            failed,
        };
        let ids = [
            filter(None, None, false),
            filter(Some("send"), None, false),
            filter(None, Some("ana"), false),
            filter(None, None, true),
        ]
        .map(|filter| watches.open(filter).unwrap());
        for (subject, text) in [
            (of("send", Some("ana"), false), "1"),
            (of("send", None, true), "2"),
            (of("lists", Some("bo"), false), "3"),
        ] {
            watches.record(&subject, || text.to_owned());
        }
        deliver(&watches);
        let got = ids.map(|id| taken(&watches, id).events.concat());
        assert_eq!(got.map(|text| String::from_utf8(text).unwrap()), ["123", "12", "1", "2"]);
        assert_eq!(taken(&watches, ids[0]), Watched::default(), "each event is taken once");
        assert_eq!(watches.take(Uuid::nil(), Duration::ZERO).await, None);
    }

    #[tokio::test]
    async fn a_watcher_that_does_not_read_costs_a_bounded_buffer_and_then_nothing() {
        let watches = watches();
        let watch = watches.open(WatchFilter::default()).unwrap();
        let events = 3 * limits::WATCHED_EVENTS_KEPT_MAX;
        for number in 0..events {
            watches.record(&of("send", None, false), || number.to_string());
            if number.is_multiple_of(100) {
                deliver(&watches);
            }
        }
        deliver(&watches);
        let Watched { events: kept, dropped } = taken(&watches, watch);
        assert_eq!(kept.last().map(|event| event.to_vec()), Some((events - 1).to_string().into_bytes()));
        assert_eq!((kept.len(), kept.len() + dropped as usize), (limits::WATCHED_EVENTS_KEPT_MAX, events));

        watches.record(&of("send", None, false), || "x".repeat(limits::WATCHED_EVENT_BYTES_MAX + 1));
        deliver(&watches);
        assert_eq!(taken(&watches, watch), Watched { events: Vec::new(), dropped: 1 });

        let later = Instant::now() + limits::WATCHER_IDLE_MAX;
        assert!(watches.due_announcements(later).is_empty());
        assert_eq!(watches.take(watch, Duration::ZERO).await, None);
        assert!(watches.is_watched(), "other nodes have not forgotten it yet either");
        assert!(watches.collected(later + limits::WATCH_KEPT).is_empty());
        assert!(!watches.is_watched());
    }

    #[tokio::test]
    async fn a_hundred_watchers_are_too_many() {
        let watches = watches();
        let opened = (0..100).filter(|_| watches.open(WatchFilter::default()).is_ok()).count();
        assert_eq!(opened, limits::WATCHERS_MAX);
        for _ in 0..10 * limits::WATCHES_MAX {
            watches.announced(Uuid::now_v7(), Uuid::now_v7(), WatchFilter::default());
        }
        assert_eq!(watches.0.watches.lock().len(), limits::WATCHES_MAX);
    }

    #[tokio::test]
    async fn taking_waits_for_the_first_event() {
        let watches = watches();
        let watch = watches.open(WatchFilter::default()).unwrap();
        let (taking, ()) = tokio::join!(watches.take(watch, Duration::from_secs(60)), async {
            watches.record(&of("send", None, false), || "1".to_owned());
            deliver(&watches);
        });
        assert_eq!(taking, Some(Watched { events: vec![Bytes::from("1")], dropped: 0 }));
    }
}
