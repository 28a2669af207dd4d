//! OpenTelemetry traces: of a request or frame through its handler and each host call to the fan-out. They
//! are off unless a collector is configured. Then a share of the calls is sampled when they begin, and only
//! those cost anything. No argument, no answer and no message text is in a span.
//!
//! The [`Tracer`] is a value, which the start of a node passes to the runtime, the hub and the triggers:
//! several nodes in one process have one each. Spans are made when their work is over, in three places. The
//! host needs nothing else of the API, so [`super::otlp`] writes them as OTLP/HTTP in JSON.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use switchboard_core::ids::Address;
use switchboard_core::limits;

/// The identity of a span, by which its effects name it as their cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    pub trace: u128,
    pub span: u64,
}

/// A span whose work is over.
#[derive(Debug)]
pub struct Span {
    pub context: Context,
    pub parent: Option<u64>,
    pub name: String,
    pub kind: Kind,
    pub began: SystemTime,
    pub took: Duration,
    pub attributes: Vec<(&'static str, String)>,
    pub failed: bool,
}

/// Kinds of spans, with the numbers of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

/// Begins the spans of one node and knows their effects. Clones share its state. The default records nothing.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Shared>>);

struct Shared {
    /// The share of the sampled calls.
    sample: f64,
    /// To the exporter. Spans that find no place are dropped and counted.
    spans: mpsc::Sender<Span>,
    effects: Effects,
}

/// A span that has begun. A call holds it until its end.
#[derive(Clone)]
pub struct ActiveSpan {
    tracer: Arc<Shared>,
    context: Context,
    parent: Option<u64>,
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Tracer(on)" } else { "Tracer(off)" })
    }
}

impl Tracer {
    /// A tracer that sends its spans to this queue, at most [`limits::SPANS_WAITING_MAX`] at a time.
    pub(super) fn new(sample: f64) -> (Self, mpsc::Receiver<Span>) {
        let (spans, queue) = mpsc::channel(limits::SPANS_WAITING_MAX);
        (Self(Some(Arc::new(Shared { sample, spans, effects: Effects::default() }))), queue)
    }

    /// Whether tracing is on.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The span of a call that begins: always if its cause is traced, otherwise by the sample. `None` costs
    /// nothing.
    pub fn begin(&self, cause: Option<Context>) -> Option<ActiveSpan> {
        let shared = self.0.as_ref()?;
        let context = match cause {
            Some(cause) => Context { span: an_id(), ..cause },
            None if rand::random::<f64>() < shared.sample => {
                Context { trace: rand::random::<u128>().max(1), span: an_id() }
            }
            None => return None,
        };
        Some(ActiveSpan { tracer: shared.clone(), context, parent: cause.map(|cause| cause.span) })
    }
}

impl ActiveSpan {
    /// Its identity, for spans that it causes.
    pub fn context(&self) -> Context {
        self.context
    }

    /// Records a child span that is over now.
    pub fn child(
        &self,
        name: impl Into<String>,
        kind: Kind,
        began: Instant,
        attributes: Vec<(&'static str, String)>,
    ) {
        self.tracer.record(Span::child_ending_now(self.context, name, kind, began, attributes));
    }

    /// Records the span, which is over now.
    pub fn end(
        &self,
        name: impl Into<String>,
        kind: Kind,
        began: Instant,
        attributes: Vec<(&'static str, String)>,
        failed: bool,
    ) {
        let span = Span::ending_now(self.context, self.parent, name, kind, began, attributes);
        self.tracer.record(Span { failed, ..span });
    }

    /// The call woke shards of the outbox.
    pub fn woke(&self, shards: &[u32]) {
        self.tracer.effects.record_wake(shards, self.context);
    }

    /// The call publishes to these addresses.
    pub fn publishes(&self, addresses: impl Iterator<Item = Address>) {
        self.tracer.effects.keep(addresses, self.context, false);
    }
}

impl Span {
    /// A span whose work began at `began` and ends now, without failure.
    fn ending_now(
        context: Context,
        parent: Option<u64>,
        name: impl Into<String>,
        kind: Kind,
        began: Instant,
        attributes: Vec<(&'static str, String)>,
    ) -> Self {
        let took = began.elapsed();
        let began = SystemTime::now() - took;
        Self { context, parent, name: name.into(), kind, began, took, attributes, failed: false }
    }

    fn child_ending_now(
        cause: Context,
        name: impl Into<String>,
        kind: Kind,
        began: Instant,
        attributes: Vec<(&'static str, String)>,
    ) -> Self {
        let context = Context { span: an_id(), ..cause };
        Self::ending_now(context, Some(cause.span), name, kind, began, attributes)
    }
}

impl Shared {
    fn record(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            metrics::counter!("switchboard_spans_dropped_total").increment(1);
        }
    }
}

/// Reads the W3C header `00-{trace}-{span}-01`. A header that is not sampled gives no cause.
pub fn of_header(text: &str) -> Option<Context> {
    let mut parts = text.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let plausible = version.len() == 2 && version != "ff" && trace.len() == 32 && span.len() == 16;
    let sampled = u8::from_str_radix(flags.get(..2)?, 16).ok()? & 1 == 1;
    let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
    let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
    (plausible && sampled).then_some(Context { trace, span })
}

fn an_id() -> u64 {
    rand::random::<u64>().max(1)
}

// ---- effects of a call, here and on other nodes ---------------------------------------------------------

/// The effects of traced calls that are not over yet. Both lists have at most [`limits::TRACES_PENDING_MAX`]
/// entries. Beyond that, a wake has no cause, and the oldest publication is forgotten.
#[derive(Default)]
struct Effects {
    /// Calls that woke a shard of the outbox. The last of them counts as the cause of the consumers' next
    /// calls for that shard.
    woke: Mutex<Vec<(u32, Context, Instant)>>,
    /// Addresses of publications of traced calls that have not arrived here yet.
    published: Mutex<VecDeque<Published>>,
    /// The length of `published`, to be read without its lock.
    undelivered: AtomicUsize,
}

struct Published {
    address: Address,
    by: Context,
    since: Instant,
    /// Whether the other nodes know it.
    is_announced: bool,
}

impl Published {
    fn may_be_delivered(&self) -> bool {
        self.since.elapsed() < limits::TRACED_DELIVERY_WAIT
    }
}

impl Tracer {
    /// A traced call of another node woke these shards and publishes to these addresses.
    pub fn announced(&self, shards: &[u32], addresses: Vec<Address>, by: Context) {
        if let Some(shared) = &self.0 {
            shared.effects.record_wake(shards, by);
            shared.effects.keep(addresses.into_iter(), by, true);
        }
    }

    /// The call that woke one of these shards last; several consumers may ask.
    pub fn waker(&self, shards: impl Iterator<Item = u32>) -> Option<Context> {
        self.0.as_ref()?.effects.waker(shards)
    }

    /// The traced calls that publish to these addresses, which the other nodes must know before.
    pub fn take_unannounced<'a>(
        &self,
        addresses: impl Iterator<Item = &'a Address>,
    ) -> Vec<(Context, Vec<Address>)> {
        self.0.as_ref().map_or_else(Vec::new, |shared| shared.effects.take_unannounced(addresses))
    }

    /// A batch for this address has reached the queues of its readers here. If there were several
    /// publications, this is the newest: the batch contains the others, or this node had no reader.
    pub fn delivered(&self, address: &Address, pushes: usize) {
        let Some(shared) = &self.0 else { return };
        let Some((by, since)) = shared.effects.take_delivered(address) else { return };
        let attributes = vec![("address", address.as_str().to_owned()), ("pushes", pushes.to_string())];
        shared.record(Span::child_ending_now(by, "fan-out", Kind::Consumer, since, attributes));
    }
}

impl Effects {
    fn record_wake(&self, shards: &[u32], by: Context) {
        let mut woke = self.woke.lock();
        for shard in shards {
            woke.retain(|(known, ..)| known != shard);
            if woke.len() < limits::TRACES_PENDING_MAX {
                woke.push((*shard, by, Instant::now()));
            }
        }
    }

    fn waker(&self, shards: impl Iterator<Item = u32>) -> Option<Context> {
        let woke = self.woke.lock();
        let of_shard = |shard| woke.iter().rev().find(|(known, ..)| *known == shard);
        let (_, by, since) = shards.filter_map(of_shard).max_by_key(|(.., since)| *since)?;
        (since.elapsed() < limits::TRACED_WAKE_VALID_FOR).then_some(*by)
    }

    fn keep(&self, addresses: impl Iterator<Item = Address>, by: Context, is_announced: bool) {
        let mut published = self.published.lock();
        for address in addresses {
            if published.len() == limits::TRACES_PENDING_MAX {
                published.pop_front();
            }
            published.push_back(Published { address, by, since: Instant::now(), is_announced });
        }
        self.undelivered.store(published.len(), Relaxed);
    }

    fn take_unannounced<'a>(
        &self,
        addresses: impl Iterator<Item = &'a Address>,
    ) -> Vec<(Context, Vec<Address>)> {
        let mut unannounced: Vec<(Context, Vec<Address>)> = Vec::new();
        if self.undelivered.load(Relaxed) == 0 {
            return unannounced;
        }
        let mut published = self.published.lock();
        for address in addresses {
            let is_it = |known: &&mut Published| !known.is_announced && known.address == *address;
            let Some(newest) = published.iter_mut().rev().find(is_it) else { continue };
            newest.is_announced = true;
            match unannounced.iter_mut().find(|(by, _)| *by == newest.by) {
                Some((_, of)) => of.push(address.clone()),
                None => unannounced.push((newest.by, vec![address.clone()])),
            }
        }
        unannounced
    }

    /// Returns the newest publication to this address and its time, and forgets all of this address.
    fn take_delivered(&self, address: &Address) -> Option<(Context, Instant)> {
        if self.undelivered.load(Relaxed) == 0 {
            return None;
        }
        let mut published = self.published.lock();
        let newest = published.iter().rfind(|known| known.address == *address && known.may_be_delivered());
        let newest = newest.map(|known| (known.by, known.since));
        published.retain(|known| known.address != *address && known.may_be_delivered());
        self.undelivered.store(published.len(), Relaxed);
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_its_trace() {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = of_header(header).unwrap();
        assert_eq!(context.span, 0xb7ad_6b71_6920_3331);
        assert_eq!(format!("{:032x}", context.trace), "0af7651916cd43dd8448eb211c80319c");
        for none in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-é1",
        ] {
            assert_eq!(of_header(none), None, "{none}");
        }
    }

    #[test]
    fn what_a_traced_call_publishes_is_announced_once() {
        let address = |name: &str| Address::parse(name).unwrap();
        let (lobby, attic) = (address("conv:lobby"), address("conv:attic"));
        let (tracer, mut spans) = Tracer::new(0.0);
        let (one, two) = (Context { trace: 1, span: 1 }, Context { trace: 2, span: 2 });
        let begin = |cause| tracer.begin(Some(cause)).expect("its cause is traced");
        let (first, second) = (begin(one), begin(two));
        first.publishes([lobby.clone(), attic.clone()].into_iter());
        assert_eq!(
            tracer.take_unannounced([&lobby, &attic].into_iter()),
            [(first.context, vec![lobby.clone(), attic.clone()])]
        );
        // It did not arrive here; the next publication is of another call, which is not traced.
        assert_eq!(tracer.take_unannounced([&lobby].into_iter()), []);
        tracer.announced(&[], vec![attic.clone()], two);
        assert_eq!(tracer.take_unannounced([&attic].into_iter()), []);
        second.publishes([attic.clone()].into_iter());
        tracer.delivered(&attic, 1);
        assert_eq!(tracer.take_unannounced([&attic].into_iter()), [], "it has arrived and is over");
        let fan_out = spans.try_recv().expect("a span of the fan-out");
        assert_eq!((fan_out.context.trace, fan_out.parent), (2, Some(second.context.span)));
    }

    #[test]
    fn a_call_is_traced_by_its_cause_or_by_the_sample() {
        let cause = Context { trace: 1, span: 7 };
        assert!(Tracer::default().begin(Some(cause)).is_none(), "off");
        let (never, _spans) = Tracer::new(0.0);
        assert!(never.begin(None).is_none());
        let (always, mut spans) = Tracer::new(1.0);
        assert!(always.begin(None).is_some_and(|span| span.parent.is_none()));
        always.begin(Some(cause)).unwrap().end("call", Kind::Server, Instant::now(), Vec::new(), true);
        let span = spans.try_recv().unwrap();
        assert_eq!((span.context.trace, span.parent, span.failed), (1, Some(7), true));
        assert_ne!(span.context.span, 7);
    }

    #[test]
    fn tracers_of_one_process_share_nothing() {
        let ((one, _one), (other, _other)) = (Tracer::new(1.0), Tracer::new(1.0));
        one.begin(None).unwrap().woke(&[3]);
        assert!(one.waker([3].into_iter()).is_some());
        assert!(other.waker([3].into_iter()).is_none());
    }
}
