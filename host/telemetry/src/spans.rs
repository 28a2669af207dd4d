//! OpenTelemetry traces: of a request or frame through its handler and each host call to the fan-out. They
//! are off unless a collector is configured. Then a share of the calls is sampled when they begin, and only
//! those cost anything. No argument, no answer and no message text is in a span.
//!
//! Spans are made when their work is over, in three places. The host needs nothing else of the API, so
//! [`super::otlp`] writes them as OTLP/HTTP in JSON.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::OnceLock;
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

pub(super) struct Exporter {
    /// The share of the sampled calls.
    pub sample: f64,
    pub spans: mpsc::Sender<Span>,
}

pub(super) static EXPORTER: OnceLock<Exporter> = OnceLock::new();

tokio::task_local! {
    static PARENT: Cell<Option<Context>>;
}

/// The span of a call that begins: always if its cause is traced, otherwise by the sample. None costs
/// nothing.
pub fn begin(cause: Option<Context>) -> Option<Context> {
    let exporter = EXPORTER.get()?;
    let cause = cause.or_else(|| PARENT.try_with(Cell::get).ok().flatten());
    match cause {
        Some(cause) => Some(Context { span: an_id(), ..cause }),
        None if rand::random::<f64>() < exporter.sample => {
            Some(Context { trace: rand::random::<u128>().max(1), span: an_id() })
        }
        None => None,
    }
}

/// The cause that `begin` found, for the record of the span.
pub fn cause(given: Option<Context>) -> Option<u64> {
    given.or_else(|| PARENT.try_with(Cell::get).ok().flatten()).map(|cause| cause.span)
}

/// Makes this span the cause of the calls inside.
pub async fn under<T>(cause: Option<Context>, work: impl Future<Output = T>) -> T {
    match cause {
        Some(_) => PARENT.scope(Cell::new(cause), work).await,
        None => work.await,
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

/// Whether tracing is on.
pub fn is_on() -> bool {
    EXPORTER.get().is_some()
}

impl Context {
    /// Records a child span that is over now.
    pub fn child(
        self,
        name: impl Into<String>,
        kind: Kind,
        began: Instant,
        attributes: Vec<(&'static str, String)>,
    ) {
        let context = Self { span: an_id(), ..self };
        context.record(Some(self.span), name, kind, began, attributes, false);
    }

    /// Records the span, which is over now.
    pub fn record(
        self,
        parent: Option<u64>,
        name: impl Into<String>,
        kind: Kind,
        began: Instant,
        attributes: Vec<(&'static str, String)>,
        failed: bool,
    ) {
        let Some(exporter) = EXPORTER.get() else { return };
        let took = began.elapsed();
        let began = SystemTime::now() - took;
        let span = Span { context: self, parent, name: name.into(), kind, began, took, attributes, failed };
        if exporter.spans.try_send(span).is_err() {
            metrics::counter!("switchboard_spans_dropped_total").increment(1);
        }
    }
}

fn an_id() -> u64 {
    rand::random::<u64>().max(1)
}

// ---- effects of a call on other nodes -------------------------------------------------------------------

/// Calls that woke a shard of the outbox. The last of them counts as the cause of the consumers' next calls
/// for that shard.
static WOKE: Mutex<Vec<(u32, Context, Instant)>> = Mutex::new(Vec::new());
/// Addresses of publications of traced calls that have not arrived here yet.
static PUBLISHED: Mutex<VecDeque<Published>> = Mutex::new(VecDeque::new());
static UNDELIVERED: AtomicUsize = AtomicUsize::new(0);

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

/// A traced call woke shards of the outbox.
pub fn record_wake(shards: &[u32], by: Context) {
    let mut woke = WOKE.lock();
    for shard in shards {
        woke.retain(|(known, ..)| known != shard);
        if woke.len() < limits::TRACES_PENDING_MAX {
            woke.push((*shard, by, Instant::now()));
        }
    }
}

/// The call that woke one of these shards last; several consumers may ask.
pub fn waker(shards: impl Iterator<Item = u32>) -> Option<Context> {
    if !is_on() {
        return None;
    }
    let woke = WOKE.lock();
    let of_shard = |shard| woke.iter().rev().find(|(known, ..)| *known == shard);
    let (_, by, since) = shards.filter_map(of_shard).max_by_key(|(.., since)| *since)?;
    (since.elapsed() < limits::TRACED_WAKE_VALID_FOR).then_some(*by)
}

/// A traced call of this node publishes.
pub fn published(addresses: impl Iterator<Item = Address>, by: Context) {
    keep(addresses, by, false);
}

/// A traced call of another node publishes.
pub fn published_remotely(addresses: Vec<Address>, by: Context) {
    keep(addresses.into_iter(), by, true);
}

fn keep(addresses: impl Iterator<Item = Address>, by: Context, is_announced: bool) {
    let mut published = PUBLISHED.lock();
    for address in addresses {
        if published.len() == limits::TRACES_PENDING_MAX {
            published.pop_front();
        }
        published.push_back(Published { address, by, since: Instant::now(), is_announced });
    }
    UNDELIVERED.store(published.len(), Relaxed);
}

/// The traced calls that publish to these addresses, which the other nodes must know before.
pub fn take_unannounced<'a>(addresses: impl Iterator<Item = &'a Address>) -> Vec<(Context, Vec<Address>)> {
    let mut unannounced: Vec<(Context, Vec<Address>)> = Vec::new();
    if UNDELIVERED.load(Relaxed) == 0 {
        return unannounced;
    }
    let mut published = PUBLISHED.lock();
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

/// A batch for this address has reached the queues of its readers here. If there were several publications,
/// this is the newest: the batch contains the others, or this node had no reader.
pub fn delivered(address: &Address, pushes: usize) {
    if UNDELIVERED.load(Relaxed) == 0 {
        return;
    }
    let mut published = PUBLISHED.lock();
    let newest = published.iter().rfind(|known| known.address == *address && known.may_be_delivered());
    let newest = newest.map(|known| (known.by, known.since));
    published.retain(|known| known.address != *address && known.may_be_delivered());
    UNDELIVERED.store(published.len(), Relaxed);
    drop(published);
    let Some((by, since)) = newest else { return };
    let attributes = vec![("address", address.as_str().to_owned()), ("pushes", pushes.to_string())];
    by.child("fan-out", Kind::Consumer, since, attributes);
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
        // An address of this test alone, because the list belongs to the process.
        let (lobby, attic) = (address("conv:unannounced-lobby"), address("conv:unannounced-attic"));
        let (one, two) = (Context { trace: 1, span: 1 }, Context { trace: 2, span: 2 });
        published([lobby.clone(), attic.clone()].into_iter(), one);
        assert_eq!(
            take_unannounced([&lobby, &attic].into_iter()),
            [(one, vec![lobby.clone(), attic.clone()])]
        );
        // It did not arrive here; the next publication is of another call, which is not traced.
        assert_eq!(take_unannounced([&lobby].into_iter()), []);
        published_remotely(vec![attic.clone()], two);
        assert_eq!(take_unannounced([&attic].into_iter()), []);
        published([attic.clone()].into_iter(), two);
        delivered(&attic, 1);
        assert_eq!(take_unannounced([&attic].into_iter()), [], "it is heard and over");
    }
}
