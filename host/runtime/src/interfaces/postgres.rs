//! `postgres`: SQL through the handler's own role. Statements, parameters, deadlines and transactions are `postgres::
//! Session`'s to judge; here each becomes a host call, and a transaction a handle that dies with its transaction.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;
use wasmtime::component::Resource;

use super::CallState;
use super::call::Function;
use super::log::Lines;
use crate::contract::Transaction;
use crate::contract::log::Level;
use crate::contract::postgres::{self, Collected, Error, Rows, Value};
use crate::wire::timestamp;

/// The call's transactions: at most one is open.
#[derive(Default)]
pub(super) struct Transactions {
    begun: u32,
    pub(super) is_open: bool,
    /// Shards to wake once the open one is committed.
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

/// What a handler is told by a runtime that has no Postgres.
fn none<T>() -> Result<T, Error> {
    Err(Error::Busy)
}

/// A handler passes these on as 503, which tells the client all it needs; whoever runs the fleet needs the reason. All are
/// counted; one a second stands in the log, where an outage would fill it.
fn note(lines: &Lines, error: &Error) {
    static TOLD_S: AtomicU64 = AtomicU64::new(0);
    let why = match error {
        Error::Retryable(_) => "retryable",
        Error::Busy => "busy",
        Error::Deadline => "deadline",
        Error::UnknownOutcome => "unknown-outcome",
        Error::Sql(_) | Error::Refused(_) | Error::TooLarge(_) => return,
    };
    metrics::counter!("switchboard_postgres_unavailable_total", "why" => why).increment(1);
    let now_s = timestamp::now_ms() / 1000;
    if TOLD_S.swap(now_s, Relaxed) != now_s {
        lines.write(Level::Warn, "Postgres could not do it now", &[("why".to_owned(), format!("{error:?}"))]);
    }
}

fn ended() -> Error {
    Error::Refused("the transaction has ended".to_owned())
}

impl postgres::Host for CallState {
    async fn query(
        &mut self,
        statement: String,
        params: Vec<Value>,
    ) -> wasmtime::Result<Result<Rows, Error>> {
        let args = Statement { statement: &statement, params: &params };
        let sql = self.backends.sql(&statement);
        let (session, lines) = (&mut self.session, &self.log);
        let live = async {
            match session {
                Some(session) => session.query(&sql, &params).await.inspect_err(|error| note(lines, error)),
                None => none(),
            }
        };
        self.middleware.call(Function::PostgresQuery, &args, live).await
    }

    async fn execute(
        &mut self,
        statement: String,
        params: Vec<Value>,
    ) -> wasmtime::Result<Result<u64, Error>> {
        let args = Statement { statement: &statement, params: &params };
        let sql = self.backends.sql(&statement);
        let (session, lines) = (&mut self.session, &self.log);
        let live = async {
            match session {
                Some(session) => session.execute(&sql, &params).await.inspect_err(|error| note(lines, error)),
                None => none(),
            }
        };
        self.middleware.call(Function::PostgresExecute, &args, live).await
    }

    async fn collect(&mut self, mut collected: Collected) -> wasmtime::Result<Result<Rows, Error>> {
        let args = collected.clone();
        for statement in &mut collected.statements {
            if let Cow::Owned(sql) = self.backends.sql(statement) {
                *statement = sql;
            }
        }
        let (session, lines) = (&mut self.session, &self.log);
        let live = async {
            match session {
                Some(session) => session.collect(collected).await.inspect_err(|error| note(lines, error)),
                None => none(),
            }
        };
        self.middleware.call(Function::PostgresCollect, &args, live).await
    }

    async fn begin(&mut self) -> wasmtime::Result<Result<Resource<Transaction>, Error>> {
        let (session, lines) = (&mut self.session, &self.log);
        let live = async {
            match session {
                Some(session) => session.begin().await.inspect_err(|error| note(lines, error)),
                None => none(),
            }
        };
        let begun = self.middleware.call(Function::PostgresBegin, &NoArgs {}, live).await?;
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
        let (session, lines, is_open) = (&mut self.session, &self.log, self.transactions.is(&handle));
        let live = async {
            match session {
                _ if !is_open => Err(ended()),
                Some(session) => {
                    session.transaction_query(&sql, &params).await.inspect_err(|error| note(lines, error))
                }
                None => none(),
            }
        };
        self.middleware.call(Function::TransactionQuery, &args, live).await
    }

    async fn execute(
        &mut self,
        handle: Resource<Transaction>,
        statement: String,
        params: Vec<Value>,
    ) -> wasmtime::Result<Result<u64, Error>> {
        let args = Statement { statement: &statement, params: &params };
        let sql = self.backends.sql(&statement);
        let (session, lines, is_open) = (&mut self.session, &self.log, self.transactions.is(&handle));
        let live = async {
            match session {
                _ if !is_open => Err(ended()),
                Some(session) => {
                    session.transaction_execute(&sql, &params).await.inspect_err(|error| note(lines, error))
                }
                None => none(),
            }
        };
        self.middleware.call(Function::TransactionExecute, &args, live).await
    }

    async fn commit(&mut self, handle: Resource<Transaction>) -> wasmtime::Result<Result<(), Error>> {
        let (session, lines, is_open) = (&mut self.session, &self.log, self.transactions.is(&handle));
        let live = async {
            match session {
                _ if !is_open => Err(ended()),
                Some(session) => session.commit().await.inspect_err(|error| note(lines, error)),
                None => none(),
            }
        };
        let committed = self.middleware.call(Function::TransactionCommit, &NoArgs {}, live).await?;
        if is_open {
            self.transactions.is_open = false;
            let wakes = std::mem::take(&mut self.transactions.wakes);
            // A COMMIT of unknown outcome may have happened, and a wake for nothing costs a look.
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
                // Where it fails, the session threw the connection away, and Postgres rolls back by itself.
                let _ = session.rollback().await;
            }
        };
        self.middleware.call(Function::TransactionDrop, &NoArgs {}, live).await
    }
}
