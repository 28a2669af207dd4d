//! `postgres`: SQL through the handler's own role. `postgres::Session` checks statements, parameters,
//! deadlines and transactions. Here each operation becomes a host call, and a transaction becomes a handle.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;
use serde::de::DeserializeOwned;
use wasmtime::component::Resource;

use super::call::Function;
use super::log::CallLogger;
use super::{Backends, CallState};
use switchboard_contract::Transaction;
use switchboard_contract::log::Level;
use switchboard_contract::postgres::{self, Collected, Error, Rows, Value};
use switchboard_core::timestamp;
use switchboard_postgres::Session;

/// The call's transactions: at most one is open.
#[derive(Default)]
pub(super) struct Transactions {
    begun: u32,
    pub(super) is_open: bool,
    /// Shards to wake after the COMMIT of the open transaction.
    pub(super) wakes: Vec<u32>,
}

impl Transactions {
    fn is(&self, handle: &Resource<Transaction>) -> bool {
        self.is_open && handle.rep() == self.begun
    }
}

#[derive(Serialize)]
struct Statement<'a> {
    statement: &'a str,
    params: &'a [Value],
}

#[derive(Serialize)]
struct NoArgs {}

/// Counts an error that the handler answers with 503, and logs one such error a second. The client needs only
/// the 503; the operator needs the reason. In an outage, a line for each error would fill the log.
fn report(logger: &CallLogger, backends: &Backends, error: &Error) {
    static LOGGED_S: AtomicU64 = AtomicU64::new(0);
    let why = match error {
        Error::Retryable(_) => "retryable",
        Error::Busy => "busy",
        Error::Deadline => "deadline",
        Error::UnknownOutcome => "unknown-outcome",
        Error::Sql(_) | Error::Refused(_) | Error::TooLarge(_) => return,
    };
    metrics::counter!("switchboard_postgres_unavailable_total", "why" => why).increment(1);
    let now_s = timestamp::now_ms() / 1000;
    if LOGGED_S.swap(now_s, Relaxed) != now_s {
        let fields = [("why".to_owned(), format!("{error:?}"))];
        logger.write(
            Level::Warn,
            "Postgres did not complete a statement; the handler can answer 503",
            &fields,
            backends.watches(),
        );
    }
}

/// Runs one operation on the call's session, and reports its error to the operator. A runtime without
/// Postgres answers `busy`.
async fn on_session<T>(
    session: &mut Option<Session>,
    logger: &CallLogger,
    backends: &Backends,
    operation: impl AsyncFnOnce(&mut Session) -> Result<T, Error>,
) -> Result<T, Error> {
    match session {
        Some(session) => operation(session).await.inspect_err(|error| report(logger, backends, error)),
        None => Err(Error::Busy),
    }
}

/// An answer of the session, which a recording can keep.
trait Answer: Serialize + DeserializeOwned {}

impl<T: Serialize + DeserializeOwned> Answer for T {}

impl CallState {
    /// Makes the host call `function`: one operation on the session, outside of a transaction.
    async fn call_session<T: Answer>(
        &mut self,
        function: Function,
        args: &impl Serialize,
        operation: impl AsyncFnOnce(&mut Session) -> Result<T, Error>,
    ) -> wasmtime::Result<Result<T, Error>> {
        let live = on_session(&mut self.session, &self.log, &self.backends, operation);
        self.middleware.call(function, args, live).await
    }

    /// The same in a transaction, which must be open.
    async fn call_transaction<T: Answer>(
        &mut self,
        handle: &Resource<Transaction>,
        function: Function,
        args: &impl Serialize,
        operation: impl AsyncFnOnce(&mut Session) -> Result<T, Error>,
    ) -> wasmtime::Result<Result<T, Error>> {
        let is_open = self.transactions.is(handle);
        let live = async {
            match is_open {
                true => on_session(&mut self.session, &self.log, &self.backends, operation).await,
                false => Err(Error::Refused("the transaction has ended".to_owned())),
            }
        };
        self.middleware.call(function, args, live).await
    }
}

impl postgres::Host for CallState {
    async fn query(
        &mut self,
        statement: String,
        params: Vec<Value>,
    ) -> wasmtime::Result<Result<Rows, Error>> {
        let args = Statement { statement: &statement, params: &params };
        let sql = self.backends.sql(&statement);
        let run = async |session: &mut Session| session.query(&sql, &params).await;
        self.call_session(Function::PostgresQuery, &args, run).await
    }

    async fn execute(
        &mut self,
        statement: String,
        params: Vec<Value>,
    ) -> wasmtime::Result<Result<u64, Error>> {
        let args = Statement { statement: &statement, params: &params };
        let sql = self.backends.sql(&statement);
        let run = async |session: &mut Session| session.execute(&sql, &params).await;
        self.call_session(Function::PostgresExecute, &args, run).await
    }

    async fn collect(&mut self, collected: Collected) -> wasmtime::Result<Result<Rows, Error>> {
        let (session, logger, backends) = (&mut self.session, &self.log, &self.backends);
        let live = |mut collected: Collected| {
            Box::pin(async move {
                for statement in &mut collected.statements {
                    if let Cow::Owned(sql) = backends.sql(statement) {
                        *statement = sql;
                    }
                }
                on_session(session, logger, backends, async |session| session.collect(collected).await).await
            })
        };
        self.middleware.call_with(Function::PostgresCollect, collected, live).await
    }

    async fn begin(&mut self) -> wasmtime::Result<Result<Resource<Transaction>, Error>> {
        let run = async |session: &mut Session| session.begin().await;
        let begun = self.call_session(Function::PostgresBegin, &NoArgs {}, run).await?;
        Ok(begun.map(|()| {
            self.transactions.begun += 1;
            self.transactions.is_open = true;
            self.transactions.wakes.clear();
            Resource::new_own(self.transactions.begun)
        }))
    }
}

impl postgres::HostTransaction for CallState {
    async fn query(
        &mut self,
        handle: Resource<Transaction>,
        statement: String,
        params: Vec<Value>,
    ) -> wasmtime::Result<Result<Rows, Error>> {
        let args = Statement { statement: &statement, params: &params };
        let sql = self.backends.sql(&statement);
        let run = async |session: &mut Session| session.transaction_query(&sql, &params).await;
        self.call_transaction(&handle, Function::TransactionQuery, &args, run).await
    }

    async fn execute(
        &mut self,
        handle: Resource<Transaction>,
        statement: String,
        params: Vec<Value>,
    ) -> wasmtime::Result<Result<u64, Error>> {
        let args = Statement { statement: &statement, params: &params };
        let sql = self.backends.sql(&statement);
        let run = async |session: &mut Session| session.transaction_execute(&sql, &params).await;
        self.call_transaction(&handle, Function::TransactionExecute, &args, run).await
    }

    async fn commit(&mut self, handle: Resource<Transaction>) -> wasmtime::Result<Result<(), Error>> {
        let is_open = self.transactions.is(&handle);
        let run = async |session: &mut Session| session.commit().await;
        let committed = self.call_transaction(&handle, Function::TransactionCommit, &NoArgs {}, run).await?;
        if is_open {
            self.transactions.is_open = false;
            let wakes = std::mem::take(&mut self.transactions.wakes);
            // A COMMIT of unknown outcome may have happened. A wake without events only costs a read.
            if matches!(committed, Ok(()) | Err(Error::UnknownOutcome)) {
                self.wake(&wakes);
            }
        }
        Ok(committed)
    }

    async fn drop(&mut self, handle: Resource<Transaction>) -> wasmtime::Result<()> {
        if !self.transactions.is(&handle) {
            return Ok(());
        }
        self.transactions.is_open = false;
        self.transactions.wakes.clear();
        let session = &mut self.session;
        let live = async {
            if let Some(session) = session {
                // If the rollback fails, the session has closed the connection, and Postgres rolls back by
                // itself.
                let _ = session.rollback().await;
            }
        };
        self.middleware.call(Function::TransactionDrop, &NoArgs {}, live).await
    }
}
