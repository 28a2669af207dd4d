//! Connection triggers: they notify handlers that a connection opened, closed or sent something, and ask them
//! for the pushes that subscribers missed.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::admission::admit;
use super::state::Triggers;
use switchboard_contract::connection::{Closed, Opened, Page};
use switchboard_contract::types::Push;
use switchboard_core::ids::{ConnectionId, RequestId};
use switchboard_core::limits;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_fanout::Missing;
use switchboard_runtime::{Call, Export, Failure, Kind, LoadedRelease, export};

impl Triggers {
    /// A handler that fails adds no pushes. This waits for an admission slot up to [`limits::OPENING_WAIT`]:
    /// when many clients connect at once, their handlers must not use all call slots.
    pub(super) async fn call_open_handlers(
        &self,
        connection: ConnectionId,
        opened: Opened,
        request: RequestId,
    ) -> Vec<Push> {
        let mut pushes = Vec::new();
        let opened = Arc::new(opened);
        let Some(_permit) = admit(&self.admission.openings, limits::OPENING_WAIT).await else {
            tracing::warn!(
                request_id = %request,
                connection.id = %opened.connection,
                "connection handlers skipped: no admission slot within {} s",
                limits::OPENING_WAIT.as_secs()
            );
            return pushes;
        };
        for entry in self.registry.current().opened() {
            let release = Arc::clone(entry.pick(&opened.caller.user_id));
            let call = Call { request: Some(request.clone()), ..Call::new(Some(connection)) };
            let call_id = call.id.clone();
            match self.call_with_retries::<export::Opened>(&release, call, opened.clone()).await {
                Some(Ok(more)) => pushes.extend(more),
                Some(Err(problem)) => tracing::warn!(
                    handler.name = %entry.name,
                    call = %call_id,
                    request_id = %request,
                    code = %problem.code,
                    "handler refused `open`; the connection opens without its pushes",
                ),
                None => {}
            }
        }
        pushes
    }

    /// This waits for an admission slot: when many connections close at once, their handlers are not all
    /// called at once.
    pub(super) async fn call_close_handlers(
        &self,
        connection: ConnectionId,
        closed: Closed,
        request: RequestId,
    ) {
        self.touches.forget(connection);
        let closed = Arc::new(closed);
        let Ok(_permit) = self.admission.closings.acquire().await else { return };
        for entry in self.registry.current().closed() {
            let release = Arc::clone(entry.pick(&closed.user_id));
            let call = Call { request: Some(request.clone()), ..Call::new(None) };
            self.call_with_retries::<export::Closed>(&release, call, closed.clone()).await;
        }
    }

    /// Calls an export. A call that found no slot had no effect, and no client repeats it, so this tries
    /// again after each wait of [`limits::SLOT_RETRIES_AFTER`]. Returns `None` for a failure, which the
    /// runtime has logged.
    async fn call_with_retries<E: Export>(
        &self,
        release: &Arc<LoadedRelease>,
        call: Call,
        input: Arc<E::Input>,
    ) -> Option<E::Output> {
        let mut waits = limits::SLOT_RETRIES_AFTER.iter();
        loop {
            let again =
                Call { id: call.id.clone(), request: call.request.clone(), ..Call::new(call.connection) };
            match self.runtime.call::<E>(release, again, input.clone()).await {
                Ok(output) => return Some(output),
                Err(Failure { kind: Kind::Busy, .. }) if waits.len() > 0 => {
                    tokio::time::sleep(waits.next().copied().unwrap_or_default()).await;
                }
                Err(_) => return None,
            }
        }
    }
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
                triggers.touches.add_unreported(&triggers.hub.connections());
            }
        }
        let touches = triggers.touches.take(Instant::now());
        for part in touches.chunks(limits::TOUCHES_MAX) {
            for entry in triggers.registry.current().touched() {
                let call = Call::new(None);
                let release = Arc::clone(entry.pick(&call.id));
                let input = export::Touches { node: triggers.node.to_string(), touches: part.to_vec() };
                triggers.call_with_retries::<export::Touched>(&release, call, input.into()).await;
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
