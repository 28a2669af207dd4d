//! Connection triggers: they notify handlers that a connection opened, closed or sent something, and ask them
//! for the pushes that subscribers missed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::admission::admit;
use super::batches::{Batches, Outcome};
use super::state::Triggers;
use crate::calls::HandshakeIn;
use switchboard_contract::connection::{Closed, Opened, Page};
use switchboard_contract::connection_batch::{self, Opening};
use switchboard_contract::types::Push;
use switchboard_core::ids::{ConnectionId, RequestId};
use switchboard_core::limits;
use switchboard_core::manifest::Lifecycle;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_fanout::Missing;
use switchboard_releases::CallOrigin;
use switchboard_runtime::{Call, Export, Failure, Kind, LoadedRelease, export};

/// The connections of one batch are pinned to the same release, and this is its key. Two loads of the same
/// release with different settings are two releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ReleaseKey(usize);

impl ReleaseKey {
    /// The key is valid while somebody holds the release, as every connection of a queue does.
    fn of(release: &Arc<LoadedRelease>) -> Self {
        Self(Arc::as_ptr(release).addr())
    }
}

/// The batches of opened connections. The result is `None` if the handler was not called, or failed, for this
/// connection alone.
pub(super) type OpenedBatches = Batches<ReleaseKey, connection_batch::Opened, Option<Opening>>;
/// The batches of closed connections.
pub(super) type ClosedBatches = Batches<ReleaseKey, connection_batch::Closed, ()>;

/// A connection with the release that one handler answers it with.
struct Pinned<'a> {
    release: &'a Arc<LoadedRelease>,
    connection: ConnectionId,
    request: &'a RequestId,
}

impl HandshakeIn {
    /// The origin of a call about the connection.
    fn origin<'a>(&'a self, user: &'a str) -> CallOrigin<'a> {
        let Self { roles, groups, tester, .. } = self;
        CallOrigin { subject: user, roles, groups, tester: tester.as_deref() }
    }
}

impl Pinned<'_> {
    fn call(&self) -> Call {
        Call { request: Some(self.request.clone()), ..Call::new(Some(self.connection)) }
    }

    /// The call of a batch. It belongs to no single request.
    fn batch_call(&self, count: usize) -> Call {
        if count == 1 { self.call() } else { Call::new(None) }
    }
}

impl Triggers {
    /// A handler that fails adds no pushes. Each wait of a connection for its turn is bounded by
    /// [`limits::OPENING_WAIT`]: when many clients connect at once, their handlers must not use all call
    /// slots.
    pub(super) async fn call_open_handlers(
        &self,
        connection: ConnectionId,
        opened: Opened,
        handshake: HandshakeIn,
    ) -> Vec<Push> {
        let mut pushes = Vec::new();
        let opened = Arc::new(opened);
        let request = &handshake.id;
        for entry in self.registry.current().opened() {
            let release = &Arc::clone(entry.pick_for(&handshake.origin(&opened.caller.user_id)));
            let pinned = Pinned { release, connection, request };
            let opening = match release.manifest.on.connection.opened {
                Lifecycle::Unbound => continue,
                Lifecycle::Single => self.open_single(&pinned, &opened).await,
                Lifecycle::Batch => self.open_in_batch(&pinned, &opened).await,
            };
            match opening {
                Some(Opening::Pushes(more)) => pushes.extend(more),
                Some(Opening::Failed(problem)) => tracing::warn!(
                    handler.name = %entry.name,
                    request_id = %request,
                    connection.id = %connection,
                    code = %problem.code,
                    "handler refused `open`; the connection opens without its pushes",
                ),
                Some(Opening::Alone) => tracing::warn!(
                    handler.name = %entry.name,
                    request_id = %request,
                    connection.id = %connection,
                    "handler returned `alone` for a connection that was alone; it opens without its pushes",
                ),
                None => {}
            }
        }
        pushes
    }

    async fn open_single(&self, pinned: &Pinned<'_>, opened: &Arc<Opened>) -> Option<Opening> {
        let _permit = self.admit_opening(pinned).await?;
        let opened = opened.clone();
        let result = self.call_with_retries::<export::Opened>(pinned.release, pinned.call(), opened).await;
        Some(result.ok()?.map_or_else(Opening::Failed, Opening::Pushes))
    }

    /// A connection whose batch failed, or which the handler wants alone, gets a call of its own.
    async fn open_in_batch(&self, pinned: &Pinned<'_>, opened: &Opened) -> Option<Opening> {
        let input = connection_batch::Opened {
            connection: opened.connection.clone(),
            caller: opened.caller.clone(),
            user_agent: opened.user_agent.clone(),
            remote: opened.remote.clone(),
        };
        let key = ReleaseKey::of(pinned.release);
        let batch = |opened: Vec<_>| self.call_opened(pinned, pinned.batch_call(opened.len()), opened);
        let until = Some(Instant::now() + limits::OPENING_WAIT);
        match self.opened_batches.join(key, input.clone(), until, batch).await {
            Outcome::Result(Some(Opening::Alone)) | Outcome::Failed => {}
            Outcome::Result(opening) => return opening,
            Outcome::NoTurn => {
                log_no_turn(pinned);
                return None;
            }
        }
        let _permit = self.admit_opening(pinned).await?;
        self.call_opened(pinned, pinned.call(), vec![input]).await?.pop()?
    }

    /// Returns one result for each connection. `None`: the call failed, and the connections need calls of
    /// their own.
    async fn call_opened(
        &self,
        pinned: &Pinned<'_>,
        call: Call,
        opened: Vec<connection_batch::Opened>,
    ) -> Option<Vec<Option<Opening>>> {
        let (count, node) = (opened.len(), self.node.to_string());
        let input = Arc::new(export::Openings { node, opened });
        match self.call_batch::<export::OpenedBatch>(pinned.release, call, input).await {
            Ok(openings) if openings.len() == count => {
                let own_call = |opening| match opening {
                    // Whether it is a fault of the release shows in a call that has the user as its caller.
                    Opening::Failed(_) if count > 1 => Opening::Alone,
                    other => other,
                };
                Some(openings.into_iter().map(own_call).map(Some).collect())
            }
            Ok(openings) => {
                tracing::warn!(
                    handler.name = pinned.release.name(),
                    "handler returned {} results for {count} opened connections; none of them is used",
                    openings.len(),
                );
                nothing_more(Kind::Answer, count, None, pinned)
            }
            Err(kind) => nothing_more(kind, count, None, pinned),
        }
    }

    /// Waits for an admission slot of a call for one connection. `None` after [`limits::OPENING_WAIT`]: the
    /// time that a failed batch took does not count.
    async fn admit_opening(&self, pinned: &Pinned<'_>) -> Option<SemaphorePermit<'_>> {
        let permit = admit(&self.admission.openings, Instant::now() + limits::OPENING_WAIT).await;
        if permit.is_none() {
            log_no_turn(pinned);
        }
        permit
    }

    /// Closings wait for their turn, in batches or one by one: when many connections close at once, their
    /// handlers are not all called at once.
    pub(super) async fn call_close_handlers(
        &self,
        connection: ConnectionId,
        closed: Closed,
        handshake: HandshakeIn,
    ) {
        self.touches.forget(connection);
        let closed = Arc::new(closed);
        for entry in self.registry.current().closed() {
            let release = &Arc::clone(entry.pick_for(&handshake.origin(&closed.user_id)));
            let pinned = Pinned { release, connection, request: &handshake.id };
            match release.manifest.on.connection.closed {
                Lifecycle::Unbound => {}
                Lifecycle::Single => {
                    let Ok(_permit) = self.admission.closings.acquire().await else { return };
                    let call = Call { connection: None, ..pinned.call() };
                    let _ = self.call_with_retries::<export::Closed>(release, call, closed.clone()).await;
                }
                Lifecycle::Batch => self.close_in_batch(&pinned, &closed).await,
            }
        }
    }

    async fn close_in_batch(&self, pinned: &Pinned<'_>, closed: &Closed) {
        let input = connection_batch::Closed {
            connection: closed.connection.clone(),
            user_id: closed.user_id.clone(),
            code: closed.code,
        };
        let key = ReleaseKey::of(pinned.release);
        let batch = |closed: Vec<_>| self.call_closed(pinned, pinned.batch_call(closed.len()), closed);
        if self.closed_batches.join(key, input.clone(), None, batch).await == Outcome::Failed
            && let Ok(_permit) = self.admission.closings.acquire().await
        {
            self.call_closed(pinned, pinned.call(), vec![input]).await;
        }
    }

    /// `None`: the call failed, and the connections need calls of their own.
    async fn call_closed(
        &self,
        pinned: &Pinned<'_>,
        call: Call,
        closed: Vec<connection_batch::Closed>,
    ) -> Option<Vec<()>> {
        let (count, node) = (closed.len(), self.node.to_string());
        let (call, input) = (Call { connection: None, ..call }, export::Closings { node, closed });
        match self.call_batch::<export::ClosedBatch>(pinned.release, call, Arc::new(input)).await {
            Ok(()) => Some(vec![(); count]),
            Err(kind) => nothing_more(kind, count, (), pinned),
        }
    }

    /// Calls an export, and again after each wait of [`limits::SLOT_RETRIES_AFTER`] if it found no slot.
    async fn call_with_retries<E: Export>(
        &self,
        release: &Arc<LoadedRelease>,
        call: Call,
        input: Arc<E::Input>,
    ) -> Result<E::Output, Kind> {
        self.call_after_waits::<E>(release, call, input, limits::SLOT_RETRIES_AFTER.into_iter()).await
    }

    /// Calls an export for many connections.
    async fn call_batch<E: Export>(
        &self,
        release: &Arc<LoadedRelease>,
        call: Call,
        input: Arc<E::Input>,
    ) -> Result<E::Output, Kind> {
        let waits = std::iter::repeat_n(limits::BATCH_SLOT_RETRY_AFTER, limits::BATCH_SLOT_RETRIES_MAX);
        self.call_after_waits::<E>(release, call, input, waits).await
    }

    /// Calls an export. A call that found no slot had no effect, and no client repeats it, so this tries
    /// again after each of the waits. An error is the kind of the failure, which the runtime has logged.
    async fn call_after_waits<E: Export>(
        &self,
        release: &Arc<LoadedRelease>,
        call: Call,
        input: Arc<E::Input>,
        mut waits: impl Iterator<Item = Duration>,
    ) -> Result<E::Output, Kind> {
        loop {
            let again =
                Call { id: call.id.clone(), request: call.request.clone(), ..Call::new(call.connection) };
            match self.runtime.call::<E>(release, again, input.clone()).await {
                Ok(output) => return Ok(output),
                Err(Failure { kind: Kind::Busy, .. }) => match waits.next() {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return Err(Kind::Busy),
                },
                Err(failure) => return Err(failure.kind),
            }
        }
    }
}

/// The results of a failed call if calls for its connections alone would not help: it was for one connection,
/// or the node has no slot or memory for calls.
fn nothing_more<T: Clone>(kind: Kind, count: usize, result: T, pinned: &Pinned<'_>) -> Option<Vec<T>> {
    if count == 1 || matches!(kind, Kind::Busy | Kind::NodeMemory | Kind::Host) {
        return Some(vec![result; count]);
    }
    tracing::warn!(
        handler.name = pinned.release.name(),
        "a call for {count} connections failed; the handler is called for each of them alone",
    );
    None
}

fn log_no_turn(pinned: &Pinned<'_>) {
    tracing::warn!(
        handler.name = pinned.release.name(),
        request_id = %pinned.request,
        connection.id = %pinned.connection,
        "connection handler skipped: no admission slot within {} s",
        limits::OPENING_WAIT.as_secs()
    );
}

/// Reports the touched connections to their handlers, until the process ends.
pub(super) async fn report_touches(triggers: Arc<Triggers>, mut guard: ShutdownGuard) {
    let mut clock = tokio::time::interval(limits::TOUCH_REPORT_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut losses = triggers.hub.losses();
    loop {
        tokio::select! {
            () = guard.begun() => return,
            _ = clock.tick() => {}
            // Redis may have lost every presence lease, so every connection of this node is reported.
            Ok(()) = losses.changed() => {
                triggers.hub.connections().iter().for_each(|(id, user)| triggers.touches.add_again(*id, user));
            }
        }
        let touches = triggers.touches.take(Instant::now().into_std());
        for part in touches.chunks(limits::TOUCHES_MAX) {
            for entry in triggers.registry.current().touched() {
                let call = Call::new(None);
                let release = Arc::clone(entry.pick(&call.id));
                let input = export::Touches { node: triggers.node.to_string(), touches: part.to_vec() };
                let _ = triggers.call_with_retries::<export::Touched>(&release, call, input.into()).await;
            }
        }
    }
}

/// Drains the hub's mailbox of gaps, until the process ends. Each gap gets one page; the hub asks again if
/// there is more.
pub(super) async fn fill_gaps(triggers: Arc<Triggers>, mut guard: ShutdownGuard) {
    let Some(mut gaps) = triggers.hub.gaps() else {
        tracing::error!("another task drains the mailbox of gaps; this task ends");
        return;
    };
    let mut filling = JoinSet::new();
    loop {
        tokio::select! {
            () = guard.begun() => return,
            Some(_) = filling.join_next() => {}
            missing = gaps.recv(), if filling.len() < limits::GAPS_AT_ONCE_MAX => match missing {
                Some(missing) => {
                    filling.spawn(fill(triggers.clone(), missing));
                }
                None => return,
            },
        }
    }
}

async fn fill(triggers: Arc<Triggers>, missing: Missing) {
    match page(&triggers, &missing).await {
        Some(page) => triggers.hub.fill(&missing, page),
        None => triggers.hub.give_up(&missing),
    }
}

async fn page(triggers: &Triggers, missing: &Missing) -> Option<Page> {
    let entry = triggers.registry.current().missed(missing.address()).cloned()?;
    let call = Call::new(None);
    let call_id = call.id.clone();
    let release = Arc::clone(entry.pick(&call_id));
    match triggers.runtime.call::<export::Missed>(&release, call, missing.gap()).await {
        Ok(Ok(page)) => Some(page),
        Ok(Err(problem)) => {
            tracing::warn!(
                handler.name = %entry.name,
                call = %call_id,
                code = %problem.code,
                "handler refused `missed`; the gap stays open until the next attempt",
            );
            None
        }
        Err(_) => None,
    }
}
