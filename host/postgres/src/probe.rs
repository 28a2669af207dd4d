//! Checks for readiness whether a handler's role can write. To Postgres the probe looks like a handler: it
//! logs in as the role and commits one row (`switchboard.probe_write`). So it also fails where COMMIT hangs,
//! for instance on a synchronous standby that is gone.
//!
//! Its connection does not count in the budget of the handlers: a handler that takes every connection does
//! not make the node look unready.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::connection::Connection;
use super::failure::Failure;
use super::roles::Roles;
use switchboard_contract::postgres::Value;
use switchboard_core::limits;
use switchboard_core::manifest::ROLE_PREFIX;

/// The number of rows of a role in `switchboard.write_probes`. Nodes that probe at the same time use
/// different rows and do not wait for each other.
const SLOTS: u8 = 32;

/// Why a role cannot write.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the role {role} cannot write to Postgres: {reason}")]
pub struct CannotWrite {
    /// The name of the role in Postgres, with its prefix.
    pub role: String,
    pub reason: String,
    /// True when the reason concerns this role only (it may not log in, or its password is another). Other
    /// roles may work.
    pub is_of_one_role: bool,
}

#[derive(Clone)]
pub(super) struct Probe {
    roles: Roles,
    slot: i64,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    role: String,
    /// The connection of the role, and since when it is used.
    connection: Option<(Connection, Instant)>,
    /// The last answer, and until when it is reused.
    last: Option<(Instant, Result<(), CannotWrite>)>,
}

impl Probe {
    pub(crate) fn new(roles: Roles) -> Self {
        let slot = i64::from(rand::random::<u8>() % SLOTS);
        Self { roles, slot, state: Arc::default() }
    }

    pub(crate) async fn can_write(&self, roles: &[String]) -> Result<(), CannotWrite> {
        if roles.is_empty() {
            return Ok(());
        }
        let mut state = self.state.lock().await;
        let fresh = state.last.clone().filter(|(until, _)| Instant::now() < *until);
        if let Some((_, Err(why))) = fresh {
            return Err(why);
        }
        // A caller that went away left a probe unfinished.
        if state.connection.as_ref().is_some_and(|(connection, _)| connection.is_running()) {
            return Err(self.give_up(&mut state));
        }
        let refused = self.roles.take_refused();
        if fresh.is_some() && refused.is_none() {
            return Ok(());
        }
        state.choose(roles, refused.as_deref());
        let (answer, rest) = match timeout(limits::POSTGRES_PROBE_WAIT, self.write(&mut state)).await {
            Ok(Ok(())) => (Ok(()), limits::POSTGRES_PROBE_FRESH_FOR),
            Ok(Err(failure)) => {
                state.connection = None;
                if failure.is_read_only() {
                    self.roles.suspicion().raise();
                }
                (
                    Err(state.cannot(explain(&failure), is_of_one_role(&failure))),
                    limits::POSTGRES_PROBE_FRESH_FOR,
                )
            }
            Err(_) => return Err(self.give_up(&mut state)),
        };
        state.last = Some((Instant::now() + rest, answer.clone()));
        answer
    }

    /// Gives up a probe without an answer: cancels its statement, and delays the next probe.
    fn give_up(&self, state: &mut State) -> CannotWrite {
        if let Some((connection, _)) = state.connection.take() {
            self.roles.work().spawn(async move { connection.canceller().cancel().await });
        }
        let why =
            state.cannot(format!("no COMMIT within {} ms", limits::POSTGRES_PROBE_WAIT.as_millis()), false);
        state.last = Some((Instant::now() + limits::POSTGRES_PROBE_PAUSE, Err(why.clone())));
        why
    }

    async fn write(&self, state: &mut State) -> Result<(), Failure> {
        if state.connection.as_ref().is_none_or(|(connection, _)| !connection.is_reusable()) {
            let connection = self.roles.log_in(&state.role).await?;
            state.connection = Some((connection, Instant::now()));
        }
        let Some((connection, _)) = &mut state.connection else { return Err(Failure::Lost) };
        let prepared = connection.prepare("select switchboard.probe_write($1)").await?;
        let slot = super::value::Param(&Value::Integer(self.slot));
        connection.query(&prepared, &[&slot]).await.map(drop)
    }
}

impl State {
    /// Chooses the role to probe. A role that failed is probed again until it can write.
    fn choose(&mut self, roles: &[String], refused: Option<&str>) {
        let at = roles.iter().position(|role| *role == self.role);
        let failed = matches!(&self.last, Some((_, Err(_))));
        let refused = refused.and_then(|refused| roles.iter().find(|role| *role == refused));
        let over =
            self.connection.as_ref().is_none_or(|(_, since)| since.elapsed() > limits::POSTGRES_PROBE_TURN);
        let next = match (at, refused) {
            (_, Some(refused)) => refused,
            (Some(at), None) if failed || !over => &roles[at],
            (Some(at), None) => &roles[(at + 1) % roles.len()],
            (None, None) => &roles[0],
        };
        // A refused role is probed with a new login, even if a connection of it is still open.
        if *next != self.role || refused.is_some() {
            self.connection = None;
            self.role.clone_from(next);
        }
    }

    fn cannot(&self, reason: String, is_of_one_role: bool) -> CannotWrite {
        CannotWrite { role: format!("{ROLE_PREFIX}{}", self.role), reason, is_of_one_role }
    }
}

fn explain(failure: &Failure) -> String {
    match failure {
        Failure::Sql(error) if error.code == "42883" => {
            format!("{failure}; this database was not migrated to this version: run `switchboard migrate`")
        }
        Failure::Unavailable(error) if error.code == "28P01" => format!(
            "{failure}; the node's `secret` differs from the one with which `switchboard migrate` set the role's password; \
             while you change `secret`, set `secret_previous` to the one before"
        ),
        Failure::Unavailable(error) if error.code == "28000" => {
            format!("{failure}; allow the role to log in (alter role … login), or check pg_hba.conf")
        }
        other => other.to_string(),
    }
}

/// True for logins that are refused because of the role. A connection limit (53300) may be the role's or the
/// server's.
fn is_of_one_role(failure: &Failure) -> bool {
    matches!(failure, Failure::Unavailable(error) if error.code.starts_with("28"))
}
