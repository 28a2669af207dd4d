//! The use of Postgres by one call of a handler: statements through its role, at most one transaction, one
//! deadline. When the call ends in any way, no transaction or lock of it stays.

use std::future::Future;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};
use tokio_postgres::types::ToSql;

use super::call_order::Rank;
use super::collect::{Collector, Request};
use super::connection::Prepared;
use super::failure::Failure;
use super::outbox::Published;
use super::roles::{PooledConnection, Roles};
use super::statement::Statement;
use super::value::{self, Param};
use switchboard_contract::postgres::{Collected, Error, Rows, SqlError, Value};
use switchboard_core::ids::Digest;
use switchboard_core::limits;

pub struct Session {
    roles: Roles,
    collector: Collector,
    /// None when the manifest grants no Postgres role.
    role: Option<Arc<str>>,
    generation: Digest,
    deadline: Instant,
    transaction: Transaction,
    /// The place of the call among the calls of its connection that overlap. Dropped when the call ends.
    rank: Option<Rank>,
    /// The shards in which the call has committed events so far.
    published: Published,
}

enum Transaction {
    None,
    Open(PooledConnection),
    /// A statement failed, so the transaction can only be ended. Postgres would answer COMMIT with success,
    /// and roll back.
    Failed(PooledConnection, Error),
    /// The connection is gone, but the handler has not ended the transaction yet.
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
        Self {
            roles,
            collector,
            role,
            generation,
            deadline,
            transaction: Transaction::None,
            rank: None,
            published: Published::default(),
        }
    }

    /// Group commits of this call keep the place of the rank.
    pub fn in_order(mut self, rank: Option<Rank>) -> Self {
        self.rank = rank;
        self
    }

    /// Runs a statement in the open transaction, or alone.
    pub async fn query(&mut self, statement: &str, params: &[Value]) -> Result<Rows, Error> {
        self.run(Kind::Query, statement, params).await
    }

    /// Like `query`, but returns the number of rows changed.
    pub async fn execute(&mut self, statement: &str, params: &[Value]) -> Result<u64, Error> {
        self.run(Kind::Execute, statement, params).await.map(|rows| rows.affected)
    }

    /// Runs a group commit. Refused inside a transaction: a group commit needs a connection of its own, and
    /// calls that hold one and wait for another would block the pool.
    pub async fn collect(&mut self, collected: Collected) -> Result<Rows, Error> {
        if self.in_transaction() {
            return Err(Error::Refused(
                "a collection cannot run while a transaction is open: commit or roll back first".to_owned(),
            ));
        }
        let request = Request::parse(self.role()?, self.generation, collected)?;
        let answer = self.collector.join(request, self.deadline, self.rank.as_mut()).await;
        let published = answer.as_ref().map_or(Published::UNKNOWN, |(_, published)| *published);
        self.published.add(published);
        answer.map(|(rows, _)| rows)
    }

    /// The shards whose events of this call the consumers of this node get without reading Postgres, one bit
    /// for each.
    pub fn shards_published(&self) -> u64 {
        self.published.taken
    }

    pub async fn begin(&mut self) -> Result<(), Error> {
        if self.in_transaction() {
            return Err(Error::Refused("a transaction is already open in this call".to_owned()));
        }
        let mut connection = self.acquire().await?;
        within(self.deadline, connection.begin()).await?.map_err(Failure::uncommitted)?;
        self.transaction = Transaction::Open(connection);
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

    /// Commits the open transaction. After a failed statement nothing is committed, and the answer is an
    /// error.
    pub async fn commit(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.transaction, Transaction::None) {
            Transaction::None => Err(no_transaction()),
            Transaction::Open(mut connection) => match within(self.deadline, connection.commit()).await {
                Ok(done) => {
                    self.published.add(connection.take_published());
                    done.map_err(|failure| match failure {
                        Failure::Unavailable(_) => Error::UnknownOutcome,
                        other => other.committing(),
                    })
                }
                // The connection is dropped in the middle of COMMIT.
                Err(_) => {
                    self.published.add(Published::UNKNOWN);
                    Err(Error::UnknownOutcome)
                }
            },
            // Dropping the connection rolls back.
            Transaction::Failed(_, Error::Retryable(reason)) => Err(Error::Retryable(reason)),
            Transaction::Failed(..) => Err(failed_before()),
            Transaction::Gone => Err(Error::Retryable("the transaction's connection was lost".to_owned())),
        }
    }

    pub async fn rollback(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.transaction, Transaction::None) {
            Transaction::None => Err(no_transaction()),
            Transaction::Gone => Ok(()),
            Transaction::Open(mut connection) | Transaction::Failed(mut connection, _) => {
                within(self.deadline, connection.reset()).await?.map_err(Failure::uncommitted)
            }
        }
    }

    pub fn in_transaction(&self) -> bool {
        !matches!(self.transaction, Transaction::None)
    }

    /// Ends the session of a call, however the call ended. When this resolves, what the call locked is free,
    /// also past the deadline.
    pub async fn finish(&mut self) {
        if let Transaction::Open(mut connection) | Transaction::Failed(mut connection, _) =
            std::mem::replace(&mut self.transaction, Transaction::None)
        {
            let grace = Instant::now() + limits::POSTGRES_CANCEL_GRACE;
            // After a failure the connection is dropped, which rolls back too.
            let _ = within(grace, connection.reset()).await;
        }
    }

    async fn run(&mut self, kind: Kind, statement: &str, params: &[Value]) -> Result<Rows, Error> {
        let statement = Statement::parse(statement).map_err(Error::Refused)?;
        value::check_params(params)?;
        let params: Vec<Param<'_>> = params.iter().map(Param).collect();
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|param| param as _).collect();
        match std::mem::replace(&mut self.transaction, Transaction::Gone) {
            Transaction::None => {
                self.transaction = Transaction::None;
                let mut connection = self.acquire().await?;
                let answer = within(self.deadline, kind.run(&mut connection, statement.text, &params)).await;
                let published = answer.as_ref().map_or(Published::UNKNOWN, |_| connection.take_published());
                self.published.add(published);
                answer?.map_err(|(failure, sent)| {
                    if sent && !statement.reads { failure.committing() } else { failure.uncommitted() }
                })
            }
            // While the statement runs, the transaction counts as gone: if the caller drops this future here,
            // the transaction is gone.
            Transaction::Open(mut connection) => {
                let answer =
                    within(self.deadline, kind.run(&mut connection, statement.text, &params)).await?;
                match answer {
                    Ok(rows) => {
                        self.transaction = Transaction::Open(connection);
                        Ok(rows)
                    }
                    Err((failure, _)) => {
                        let ours = matches!(failure, Failure::Refused(_));
                        let lives = failure.ends_the_answer();
                        let error = failure.uncommitted();
                        if ours {
                            self.transaction = Transaction::Open(connection);
                        } else if lives {
                            self.transaction = Transaction::Failed(connection, error.clone());
                        }
                        Err(error)
                    }
                }
            }
            Transaction::Failed(connection, error) => {
                self.transaction = Transaction::Failed(connection, error);
                Err(failed_before())
            }
            Transaction::Gone => Err(Error::Retryable("the transaction's connection was lost".to_owned())),
        }
    }

    fn role(&self) -> Result<Arc<str>, Error> {
        self.role.clone().ok_or_else(|| Error::Refused("the manifest grants no Postgres role".to_owned()))
    }

    async fn acquire(&self) -> Result<PooledConnection, Error> {
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
    /// Runs the statement. The error also says whether the statement itself was sent.
    async fn run(
        self,
        connection: &mut PooledConnection,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Rows, (Failure, bool)> {
        let prepared: Arc<Prepared> = connection.prepare(sql).await.map_err(|failure| (failure, false))?;
        match self {
            Self::Query => connection.query(&prepared, params).await,
            Self::Execute => connection
                .execute(&prepared, params)
                .await
                .map(|affected| Rows { affected, ..value::no_rows() }),
        }
        .map_err(|failure| (failure, true))
    }
}

/// Runs work up to the deadline. Past it, the work is dropped where it is; dropping its connection cancels
/// the statement.
async fn within<T>(deadline: Instant, work: impl Future<Output = T>) -> Result<T, Error> {
    timeout_at(deadline, work).await.map_err(|_| Error::Deadline)
}

fn no_transaction() -> Error {
    Error::Refused("the transaction has ended".to_owned())
}

/// Postgres' own answer for such a statement.
fn failed_before() -> Error {
    Error::Sql(SqlError {
        code: "25P02".to_owned(),
        message: "a statement of this transaction failed before".to_owned(),
        constraint: None,
    })
}
