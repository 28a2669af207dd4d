//! The host side of every WIT import, with one file for each interface. A host function is a grant check, one
//! line of work and an error mapping, inside the one wrapper of [`call`]. A handler can use nothing that is
//! not here.

pub(crate) mod call;
mod calls;
mod channels;
mod clock;
mod config;
mod fetch;
pub(crate) mod guest_clock;
mod log;
mod log_line;
pub(crate) mod postgres;
mod random;
mod redis;
mod secrets;
pub(crate) mod stop;
mod timers;
pub(crate) mod turns;
mod wake;
mod wasi;
mod weight;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::component::{HasSelf, Linker};

use crate::Call;
use crate::nested::Others;
use crate::ticker::Ticking;
use call::{HostCallStats, Middleware};
use switchboard_contract as contract;
use switchboard_contract::types::Principal;
use switchboard_core::ids::{ConnectionId, Digest, RequestId};
use switchboard_core::limits;
use switchboard_core::manifest::{FetchRules, Grants, Limits};
use switchboard_core::quota::{Claim, Grant};
use switchboard_fanout::{Hub, Wakes, Watches};
use switchboard_http::outbound::Outbound;
use switchboard_postgres::{Postgres, Session};
use switchboard_recording::Secrets;
use switchboard_redis::{Redis, Script};
use turns::TurnQueue;

/// Grants, limits and settings of a loaded release. All calls that begin under them share them. New inputs
/// make new terms, in which everything else is shared with the old ones.
#[derive(Clone)]
pub(crate) struct Terms {
    pub handler: String,
    pub release: Digest,
    /// The first digits of the digest, for log lines.
    pub release_short: String,
    pub grants: Grants,
    pub limits: Limits,
    /// The settings that the guest reads: the manifest's `[config]`, overridden by live settings and by the
    /// settings of this node.
    pub settings: BTreeMap<String, String>,
    /// The values of the granted secrets that are set.
    pub secret_values: BTreeMap<String, Vec<u8>>,
    /// Finds the values of secrets and of settings that are not public. No recording and no log line may
    /// contain them.
    pub secrets: Secrets,
    pub scripts: Arc<BTreeMap<String, Script>>,
    /// The grants to fetch, with the present settings.
    pub fetch: FetchRules,
    pub host_call_stats: HostCallStats,
    /// The quota for the memory of its calls, beyond [`limits::MEMORY_FREE_BYTES`] for each.
    pub(crate) memory: Claim,
    /// The quota for its fetches in flight.
    pub(crate) fetches: Claim,
    /// The quota for the bodies of its fetches.
    pub(crate) fetch_bodies: Claim,
    /// Where its long calls wait for a turn.
    pub(crate) turns: TurnQueue,
}

/// The backends of host calls. A runtime without a backend (in the harness, or while a release is warmed)
/// answers as if the backend were down.
#[derive(Clone, Default)]
pub struct Backends {
    pub postgres: Option<Postgres>,
    pub redis: Option<Redis>,
    pub hub: Option<Hub>,
    pub wakes: Option<Wakes>,
    pub outbound: Option<Outbound>,
    /// Changes a handler's statement before Postgres gets it, for a database of the harness. Recordings
    /// contain the statement as the handler wrote it.
    pub statement: Option<fn(&str) -> String>,
}

impl Backends {
    pub fn new(postgres: Postgres, redis: Redis, hub: Hub, wakes: Wakes, outbound: Outbound) -> Self {
        Self {
            postgres: Some(postgres),
            redis: Some(redis),
            hub: Some(hub),
            wakes: Some(wakes),
            outbound: Some(outbound),
            statement: None,
        }
    }

    /// Returns the watches while an operator watches, on any node. This costs one relaxed load.
    pub(crate) fn watches(&self) -> Option<&Watches> {
        self.hub.as_ref().map(Hub::watches).filter(|watches| watches.is_watched())
    }

    fn sql<'a>(&self, statement: &'a str) -> Cow<'a, str> {
        self.statement.map_or(Cow::Borrowed(statement), |change| Cow::Owned(change(statement)))
    }
}

/// The state of one call: the data of its wasmtime store.
pub struct CallState {
    pub(crate) terms: Arc<Terms>,
    pub(crate) id: Arc<str>,
    pub(crate) request: Option<RequestId>,
    pub(crate) connection: Option<ConnectionId>,
    /// True when other calls of the connection may run at the same time.
    pub(crate) overlaps: bool,
    /// The connection that may subscribe: set only while the call handles a frame of it, and no other call
    /// does.
    pub(crate) gates: Option<ConnectionId>,
    pub(crate) middleware: Middleware,
    pub(crate) memory: MemoryLimit,
    /// When the call ends, including its host calls.
    pub(crate) deadline: Instant,
    /// The time from its begin to this deadline.
    pub(crate) deadline_ms: u64,
    /// The client whose request it answers. Set only if it may call other handlers, which get it.
    pub(crate) principal: Option<Principal>,
    /// The number of calls between handlers above it.
    depth: u8,
    others: Arc<Others>,
    backends: Arc<Backends>,
    /// None without Postgres.
    session: Option<Session>,
    transactions: postgres::Transactions,
    /// The number of fetches so far.
    fetches: u32,
    log: log::CallLogger,
    wasi: Option<Box<wasi::Wasi>>,
    /// Set with the store: the engine's epoch advances while this call exists.
    pub(crate) ticking: Option<Ticking>,
}

impl CallState {
    pub(crate) fn new(
        terms: Arc<Terms>,
        call: Call,
        middleware: Middleware,
        backends: &Arc<Backends>,
        others: &Arc<Others>,
    ) -> Self {
        let Call { id, request, connection, cause: _, rank, deadline, depth, secrets_of_callers: _ } = call;
        let overlaps = rank.is_some();
        let begun = Instant::now();
        let own = begun + Duration::from_millis(terms.limits.deadline_ms);
        let deadline = deadline.map_or(own, |deadline| deadline.min(own));
        Self {
            session: backends
                .postgres
                .as_ref()
                .map(|postgres| postgres.session(terms.grants.postgres.as_deref(), terms.release, deadline))
                .map(|session| session.in_order(rank)),
            deadline,
            deadline_ms: deadline.saturating_duration_since(begun).as_micros().div_ceil(1000) as u64,
            principal: None,
            depth,
            others: others.clone(),
            backends: backends.clone(),
            transactions: postgres::Transactions::default(),
            fetches: 0,
            memory: MemoryLimit::new(&terms),
            log: log::CallLogger::new(terms.clone(), id.clone(), request.clone()),
            terms,
            id,
            request,
            connection,
            overlaps,
            gates: None,
            middleware,
            wasi: None,
            ticking: None,
        }
    }

    /// Ends the call's Postgres session. It runs after every call, also after one that failed.
    pub(crate) async fn finish(&mut self) {
        if let Some(session) = &mut self.session {
            session.finish().await;
        }
    }

    /// Returns what the guest reported about its end: its panic, or else the end of its standard error.
    pub(crate) fn last_report(&self) -> Option<String> {
        self.log.last_report()
    }

    /// Returns the number of log lines that were dropped at [`limits::LOG_LINES_MAX`].
    pub(crate) fn lines_dropped(&self) -> u32 {
        self.log.dropped()
    }
}

/// Links everything that a handler can import, under the names of the contract and of WASI 0.2.
pub(crate) fn link(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    wasi::link(linker)?;
    contract::types::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut CallState| state)?;
    contract::calls::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut CallState| state)?;
    contract::channels::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut CallState| state)?;
    contract::clock::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut CallState| state)?;
    contract::config::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut CallState| state)?;
    contract::fetch::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut CallState| state)?;
    contract::log::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut CallState| state)?;
    contract::postgres::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut CallState| state)?;
    contract::redis::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut CallState| state)?;
    contract::wake::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut CallState| state)?;
    contract::random::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut CallState| state)?;
    contract::secrets::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut CallState| state)?;
    contract::timers::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut CallState| state)?;
    Ok(())
}

impl contract::types::Host for CallState {}

/// The limit on a guest's memory, all its linear memories together: at most `memory_mib`, and beyond
/// [`limits::MEMORY_FREE_BYTES`] only what the node's quota grants to its release.
pub(crate) struct MemoryLimit {
    bytes: usize,
    bytes_max: usize,
    claim: Claim,
    /// The granted part of the node's memory, until the call ends.
    grant: Option<Grant>,
    /// Why the guest did not get more memory. Most guests trap then.
    pub(crate) refused: Option<MemoryRefused>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryRefused {
    /// The guest asked for more than its manifest allows.
    ByManifest,
    /// The node's quota grants no more memory to the release.
    ByNode,
}

impl MemoryLimit {
    fn new(terms: &Terms) -> Self {
        Self {
            bytes: 0,
            bytes_max: terms.limits.memory_mib as usize * 1024 * 1024,
            claim: terms.memory.clone(),
            grant: None,
            refused: None,
        }
    }

    /// Returns the memory of the guest. Memory only grows, so this is also its maximum.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Takes the units that a guest of `bytes` needs. Returns false, and takes nothing, when the quota does
    /// not grant them.
    fn is_granted(&mut self, bytes: usize) -> bool {
        let needs = bytes.saturating_sub(limits::MEMORY_FREE_BYTES).div_ceil(limits::MEMORY_UNIT_BYTES);
        match &mut self.grant {
            _ if needs == 0 => true,
            Some(grant) => grant.grow(needs.saturating_sub(grant.units())),
            None => {
                self.grant = self.claim.take(needs);
                self.grant.is_some()
            }
        }
    }
}

impl wasmtime::ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = self.bytes - current.min(self.bytes) + desired;
        if bytes > self.bytes_max {
            self.refused = Some(MemoryRefused::ByManifest);
            return Ok(false);
        }
        if !self.is_granted(bytes) {
            self.refused = Some(MemoryRefused::ByNode);
            return Ok(false);
        }
        self.bytes = bytes;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= limits::TABLE_ELEMENTS_MAX)
    }
}
