//! What one call of a handler does with Postgres: statements through its role, at most one transaction, one deadline. When
//! the call ends in any way, nothing of it is left open.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_postgres::types::ToSql;

use super::collect::{Collector, Request};
use super::connection::Prepared;
use super::failure::Failure;
use super::roles::{Lease, Roles};
use super::statement::Statement;
use super::value::{self, Param};
use crate::contract::postgres::{Collected, Error, Rows, SqlError, Value};
use crate::ids::Digest;
use crate::limits;

pub struct Session {
    roles: Roles,
    collector: Collector,
    /// None where the manifest grants no Postgres.
    role: Option<Arc<str>>,
    generation: Digest,
    deadline: Instant,
    transaction: Transaction,
}

enum Transaction {
    None,
    Open(Lease),
    /// A statement failed; only an end is possible. Postgres would answer COMMIT with success, and roll back.
    Failed(Lease, Error),
    /// Its connection is gone, the handler still holds it.
    Gone,
}

impl Session {
    pub(super) fn new(
        roles: Roles,
        collector: Collector,
        role: Option<&str>,
        generation: Digest,
        deadline: Instant,
    ) -> Self {
        let role = role.map(Arc::from);
        Self { roles, collector, role, generation, deadline, transaction: Transaction::None }
    }

    /// In the open transaction, or alone.
    pub async fn query(&mut self, statement: &str, params: &[Value]) -> Result<Rows, Error> {
        self.run(Kind::Query, statement, params).await
    }

    /// Like `query`; returns the rows changed.
    pub async fn execute(&mut self, statement: &str, params: &[Value]) -> Result<u64, Error> {
        self.run(Kind::Execute, statement, params).await.map(|rows| rows.affected)
    }

    /// Refused inside a transaction: it needs a connection of its own, and calls that hold one and wait for another
    /// would lock the pool.
    pub async fn collect(&mut self, collected: Collected) -> Result<Rows, Error> {
        if self.in_transaction() {
            return Err(Error::Refused("a collection while a transaction is open".to_owned()));
        }
        let request = Request::parse(self.role()?, self.generation, collected)?;
        self.collector.join(request, self.deadline).await
    }

    pub async fn begin(&mut self) -> Result<(), Error> {
        if self.in_transaction() {
            return Err(Error::Refused("a transaction is open already".to_owned()));
        }
        let mut lease = self.lease().await?;
        within(self.deadline, lease.begin()).await?.map_err(Failure::uncommitted)?;
        self.transaction = Transaction::Open(lease);
        Ok(())
    }

    pub async fn transaction_query(&mut self, statement: &str, params: &[Value]) -> Result<Rows, Error> {
        self.must_be_in_transaction()?;
        self.query(statement, params).await
    }

    pub async fn transaction_execute(&mut self, statement: &str, params: &[Value]) -> Result<u64, Error> {
        self.must_be_in_transaction()?;
        self.execute(statement, params).await
    }

    /// After a failed statement nothing is committed, and the answer is an error.
    pub async fn commit(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.transaction, Transaction::None) {
            Transaction::None => Err(no_transaction()),
            Transaction::Open(mut lease) => match within(self.deadline, lease.commit()).await {
                Ok(done) => done.map_err(|failure| match failure {
                    Failure::Unavailable(_) => Error::UnknownOutcome,
                    other => other.committing(),
                }),
                // The lease is dropped in the middle of COMMIT.
                Err(_) => Err(Error::UnknownOutcome),
            },
            // Its drop rolls back.
            Transaction::Failed(_, Error::Retryable(reason)) => Err(Error::Retryable(reason)),
            Transaction::Failed(..) => Err(failed_before()),
            Transaction::Gone => Err(Error::Retryable("the transaction's connection was lost".to_owned())),
        }
    }

    pub async fn rollback(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.transaction, Transaction::None) {
            Transaction::None => Err(no_transaction()),
            Transaction::Gone => Ok(()),
            Transaction::Open(mut lease) | Transaction::Failed(mut lease, _) => {
                within(self.deadline, lease.reset()).await?.map_err(Failure::uncommitted)
            }
        }
    }

    pub fn in_transaction(&self) -> bool {
        !matches!(self.transaction, Transaction::None)
    }

    /// The epilogue of a call, however it ended: what it locked is free when this resolves, also past the deadline.
    pub async fn finish(&mut self) {
        if let Transaction::Open(mut lease) | Transaction::Failed(mut lease, _) =
            std::mem::replace(&mut self.transaction, Transaction::None)
        {
            let grace = Instant::now() + Duration::from_millis(limits::POSTGRES_CANCEL_GRACE_MS);
            // A failure is no news: then the lease is dropped, and the connection with it.
            let _ = within(grace, lease.reset()).await;
        }
    }

    async fn run(&mut self, kind: Kind, statement: &str, params: &[Value]) -> Result<Rows, Error> {
        let statement = Statement::parse(statement).map_err(Error::Refused)?;
        check_params(params)?;
        let params: Vec<Param<'_>> = params.iter().map(Param).collect();
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|param| param as _).collect();
        match std::mem::replace(&mut self.transaction, Transaction::Gone) {
            Transaction::None => {
                self.transaction = Transaction::None;
                let mut lease = self.lease().await?;
                let answer = within(self.deadline, kind.run(&mut lease, statement.text, &params)).await?;
                answer.map_err(|(failure, sent)| {
                    if sent && !statement.reads { failure.committing() } else { failure.uncommitted() }
                })
            }
            // While the statement runs the transaction counts as gone: if this call is dropped here, it is.
            Transaction::Open(mut lease) => {
                let answer = within(self.deadline, kind.run(&mut lease, statement.text, &params)).await?;
                match answer {
                    Ok(rows) => {
                        self.transaction = Transaction::Open(lease);
                        Ok(rows)
                    }
                    Err((failure, _)) => {
                        let ours = matches!(failure, Failure::Refused(_));
                        let lives = failure.ends_the_answer();
                        let error = failure.uncommitted();
                        if ours {
                            self.transaction = Transaction::Open(lease);
                        } else if lives {
                            self.transaction = Transaction::Failed(lease, error.clone());
                        }
                        Err(error)
                    }
                }
            }
            Transaction::Failed(lease, error) => {
                self.transaction = Transaction::Failed(lease, error);
                Err(failed_before())
            }
            Transaction::Gone => Err(Error::Retryable("the transaction's connection was lost".to_owned())),
        }
    }

    fn role(&self) -> Result<Arc<str>, Error> {
        self.role.clone().ok_or_else(|| Error::Refused("the manifest grants no Postgres role".to_owned()))
    }

    async fn lease(&self) -> Result<Lease, Error> {
        self.roles.acquire(&self.role()?, self.deadline).await
    }

    fn must_be_in_transaction(&self) -> Result<(), Error> {
        if self.in_transaction() { Ok(()) } else { Err(no_transaction()) }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Query,
    Execute,
}

impl Kind {
    /// A failure, and whether the statement itself had been sent.
    async fn run(
        self,
        lease: &mut Lease,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Rows, (Failure, bool)> {
        let prepared: Arc<Prepared> = lease.prepare(sql).await.map_err(|failure| (failure, false))?;
        match self {
            Self::Query => lease.query(&prepared, params).await,
            Self::Execute => {
                lease.execute(&prepared, params).await.map(|affected| Rows { affected, ..value::no_rows() })
            }
        }
        .map_err(|failure| (failure, true))
    }
}

/// Past the deadline the work is dropped where it stands; its lease then cancels it.
async fn within<T>(deadline: Instant, work: impl Future<Output = T>) -> Result<T, Error> {
    timeout_at(deadline, work).await.map_err(|_| Error::Deadline)
}

pub(super) fn check_params(params: &[Value]) -> Result<(), Error> {
    if params.len() > limits::PARAMETERS_MAX {
        return Err(Error::Refused(format!("a statement has at most {} parameters", limits::PARAMETERS_MAX)));
    }
    if params.iter().map(value::size).sum::<usize>() > limits::PARAMETERS_BYTES_MAX {
        return Err(Error::Refused(format!(
            "parameters have at most {} bytes",
            limits::PARAMETERS_BYTES_MAX
        )));
    }
    Ok(())
}

fn no_transaction() -> Error {
    Error::Refused("the transaction has ended".to_owned())
}

/// The words of Postgres itself.
fn failed_before() -> Error {
    Error::Sql(SqlError {
        code: "25P02".to_owned(),
        message: "a statement of this transaction failed before".to_owned(),
        constraint: None,
    })
}
