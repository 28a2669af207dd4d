//! One connection to Postgres: the login as one role, its prepared statements, and how a statement is run and
//! cancelled on it. The connection knows whether an operation is under way. Which call may use it, and when,
//! is decided in `roles`.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt;
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, CancelToken, Client, NoTls, RowStream, SimpleQueryMessage};

use super::epochs::Epoch;
use super::failure::Failure;
use super::outbox::{Committed, Published, Reports};
use super::settings::{self, Purpose};
use super::socket::{Endpoint, Oversize};
use super::value::{self, Cell, Decode};
use switchboard_contract::postgres::{Rows, Value};
use switchboard_core::limits;

/// Asked once on a new session: whether a handler could leave state in it, and whether the session can be
/// used at all.
const CHECK: &str = "select not (has_function_privilege('pg_catalog.set_config(text,text,boolean)', 'execute') \
     or has_function_privilege('pg_catalog.pg_advisory_lock(bigint)', 'execute') \
     or has_function_privilege('pg_catalog.pg_notify(text,text)', 'execute') \
     or has_database_privilege(current_database(), 'temp')) as guarded, \
     current_setting('transaction_read_only') as read_only, current_setting('synchronous_commit') as durable, \
     switchboard.current_epoch() as epoch";

/// Resets the state that a handler could leave in a session. Needed only where the migrations could not
/// revoke the permission. The session's settings are sent after it.
const RESET: &str = "rollback; close all; reset all; unlisten *; select pg_advisory_unlock_all(); \
     discard temp; discard sequences";

pub(super) struct Connection {
    client: Client,
    driver: JoinHandle<()>,
    statements: Statements,
    endpoint: Endpoint,
    oversize: Oversize,
    /// False when a handler may change the state of its session. The session is then reset after each call.
    guarded: bool,
    /// A statement was sent whose answer was not read to its end, or a transaction is open.
    dirty: bool,
    running: bool,
    /// An error showed that the session, or the server behind it, cannot be used any more.
    unusable: bool,
    /// The server was read-only at the login, or became read-only.
    read_only: bool,
    /// The server's `synchronous_commit` is off, so the session sets its own value.
    sets_durable: bool,
    /// The position epoch at the login.
    history: Epoch,
    /// The events that the server has reported since the last statement or transaction began.
    reports: Reports,
    committed: Committed,
    /// The shards in which the last statement or transaction has committed events.
    published: Published,
}

/// A statement prepared on this connection, with what is needed to read its rows.
pub(super) struct Prepared {
    pub statement: tokio_postgres::Statement,
    columns: Vec<String>,
    /// `Err` names the first column that the contract cannot carry, and its type.
    decode: Result<Vec<Decode>, String>,
}

impl Connection {
    pub(crate) async fn open(
        login: &tokio_postgres::Config,
        endpoints: &[Endpoint],
        committed: &Committed,
    ) -> Result<Self, Failure> {
        let mut failure = Failure::Refused("the database URL names no host".to_owned());
        for endpoint in endpoints {
            match Self::open_at(login, endpoint, committed.clone()).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn open_at(
        login: &tokio_postgres::Config,
        endpoint: &Endpoint,
        committed: Committed,
    ) -> Result<Self, Failure> {
        let (socket, oversize) = endpoint.connect().await.map_err(|_| Failure::Lost)?;
        let (client, mut driver) = login.connect_raw(socket, NoTls).await.map_err(Failure::of_login)?;
        let reports = Reports::default();
        let kept = reports.clone();
        let driver = tokio::spawn(async move {
            // A report arrives before the answer to its statement, so it is kept before the caller gets the
            // answer. The caller that waits for an answer gets an error; later callers see it by `is_closed`.
            while let Some(Ok(message)) = poll_fn(|context| driver.poll_message(context)).await {
                if let AsyncMessage::Notice(notice) = message {
                    kept.keep(&notice);
                }
            }
        });
        let mut connection = Self {
            client,
            driver,
            statements: Statements::default(),
            endpoint: endpoint.clone(),
            oversize,
            guarded: false,
            dirty: false,
            running: false,
            unusable: false,
            read_only: false,
            sets_durable: false,
            history: 0,
            reports,
            committed,
            published: Published::default(),
        };
        connection.prepare_session().await?;
        Ok(connection)
    }

    /// Sends the session's settings. Refuses a session that cannot write: a standby, or a server that was
    /// made read-only.
    async fn prepare_session(&mut self) -> Result<(), Failure> {
        let ask = format!("{}{CHECK}", settings::statements(Purpose::Handler));
        let answers = self.client.simple_query(&ask).await?;
        let row = answers.iter().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let setting = |column: &str| row.and_then(|row| row.try_get(column).ok().flatten());
        self.guarded = setting("guarded") == Some("t");
        if setting("read_only") != Some("off") {
            return Err(Failure::read_only());
        }
        self.sets_durable = setting("durable") == Some("off");
        self.history = setting("epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        if self.sets_durable {
            self.client.batch_execute(settings::DURABLE).await?;
        }
        Ok(())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed() || self.driver.is_finished()
    }

    /// True when another call can use the connection without a reset.
    pub(crate) fn is_clean(&self) -> bool {
        self.is_reusable() && self.guarded
    }

    /// True when the call that holds the connection can send its next statement.
    pub(crate) fn is_reusable(&self) -> bool {
        !self.dirty && self.is_resettable()
    }

    /// True when another call can use the connection after [`Self::reset`].
    pub(crate) fn is_resettable(&self) -> bool {
        !self.running && !self.unusable && !self.is_closed()
    }

    /// True when the server did not write. Connections that were opened to it earlier should be closed too.
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(crate) async fn reset(&mut self) -> Result<(), Failure> {
        self.forget_reports();
        self.running = true;
        if self.guarded {
            self.client.batch_execute("rollback").await?;
        } else {
            let durable = if self.sets_durable { settings::DURABLE } else { "" };
            let sql = format!("{RESET}; {}{durable}", settings::statements(Purpose::Handler));
            self.client.batch_execute(&sql).await?;
        }
        (self.running, self.dirty) = (false, false);
        Ok(())
    }

    /// True when a statement is under way and no caller awaits its end any more.
    pub(crate) fn is_running(&self) -> bool {
        self.running && !self.is_closed()
    }

    /// Returns what is needed to cancel the running statement.
    pub(crate) fn canceller(&self) -> Canceller {
        Canceller { token: self.client.cancel_token(), endpoint: self.endpoint.clone() }
    }

    pub(crate) async fn prepare(&mut self, sql: &str) -> Result<Arc<Prepared>, Failure> {
        if let Some(prepared) = self.statements.get(sql) {
            return Ok(prepared);
        }
        self.running = true;
        let statement = self.client.prepare(sql).await;
        let prepared = Arc::new(Prepared::new(self.ended(statement)?));
        self.statements.insert(sql, prepared.clone());
        Ok(prepared)
    }

    pub(crate) async fn prepare_all(&mut self, statements: &[String]) -> Result<Vec<Arc<Prepared>>, Failure> {
        let mut prepared = Vec::with_capacity(statements.len());
        for statement in statements {
            prepared.push(self.prepare(statement).await?);
        }
        Ok(prepared)
    }

    /// Runs a prepared statement and returns its rows. The size is checked while the rows are read.
    pub(crate) async fn query(
        &mut self,
        prepared: &Prepared,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Rows, Failure> {
        prepared.takes(params.len())?;
        let decode = prepared.decode.as_ref().map_err(|column| Failure::Refused(column.clone()))?;
        self.begin_alone();
        self.running = true;
        let answer = match self.client.query_raw(&prepared.statement, params.iter().copied()).await {
            Ok(stream) => read(stream, &prepared.columns, decode).await,
            Err(error) => Err(error.into()),
        };
        let answer = self.ended(answer);
        self.end_alone(answer.is_ok());
        answer
    }

    pub(crate) async fn execute(
        &mut self,
        prepared: &Prepared,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Failure> {
        prepared.takes(params.len())?;
        self.begin_alone();
        self.running = true;
        let answer = self.client.execute_raw(&prepared.statement, params.iter().copied()).await;
        let answer = self.ended(answer);
        self.end_alone(answer.is_ok());
        answer
    }

    pub(crate) async fn begin(&mut self) -> Result<(), Failure> {
        self.forget_reports();
        (self.running, self.dirty) = (true, true);
        let answer = self.client.batch_execute("begin isolation level read committed").await;
        self.ended(answer)
    }

    /// Commits the transaction. The caller must not have seen a statement of it fail: Postgres answers COMMIT
    /// of a failed transaction with success, and rolls back.
    pub(crate) async fn commit(&mut self) -> Result<(), Failure> {
        self.running = true;
        let answer = self.client.batch_execute("commit").await;
        let answer = self.ended(answer);
        self.dirty = answer.is_err();
        self.publish(answer.is_ok());
        answer
    }

    /// Notes that a statement begins. Outside of a transaction it is one by itself.
    fn begin_alone(&mut self) {
        if !self.dirty {
            self.forget_reports();
        }
    }

    fn forget_reports(&mut self) {
        self.reports.take();
        self.published = Published::default();
    }

    fn end_alone(&mut self, is_ok: bool) {
        if !self.dirty {
            self.publish(is_ok);
        }
    }

    /// Publishes the events that the server has reported for a transaction, if it was committed.
    fn publish(&mut self, is_committed: bool) {
        let reported = self.reports.take();
        let published = match is_committed {
            true => self.committed.publish(reported, self.history),
            false => Published::UNKNOWN,
        };
        self.published.add(published);
    }

    /// Returns the shards in which the last statement or transaction has committed events.
    pub(crate) fn take_published(&mut self) -> Published {
        std::mem::take(&mut self.published)
    }

    /// Sends BEGIN, the statements and COMMIT in one round trip. Each statement gets as many of the first
    /// parameters as it uses. Returns the rows of the last statement, or the first failure. After a failure
    /// nothing was committed, unless the failure is [`TransactionFailure::Unknown`].
    pub(crate) async fn transact(
        &mut self,
        statements: &[Arc<Prepared>],
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Rows, TransactionFailure> {
        let Some((last, others)) = statements.split_last() else { return Ok(value::no_rows()) };
        // Checked before the host sends anything: if one statement between BEGIN and COMMIT were missing,
        // COMMIT would commit the others.
        for prepared in statements {
            prepared.uses(params.len()).map_err(TransactionFailure::NotCommitted)?;
        }
        let decode = last
            .decode
            .as_ref()
            .map_err(|column| TransactionFailure::NotCommitted(Failure::Refused(column.clone())))?;
        self.forget_reports();
        let of = |prepared: &Prepared| params[..prepared.statement.params().len()].iter().copied();
        (self.running, self.dirty) = (true, true);
        // Each future sends its statement when it is first polled, and they are polled in this order.
        let before = futures_util::future::join_all(
            others.iter().map(|prepared| self.client.execute_raw(&prepared.statement, of(prepared))),
        );
        let answer = async {
            let stream = self.client.query_raw(&last.statement, of(last)).await?;
            read(stream, &last.columns, decode).await
        };
        let (begun, before, answer, committed) = futures_util::future::join4(
            self.client.batch_execute("begin isolation level read committed"),
            before,
            answer,
            self.client.batch_execute("commit"),
        )
        .await;
        let statements = begun
            .map_err(Failure::from)
            .and_then(|()| before.into_iter().try_for_each(|done| done.map(drop).map_err(Failure::from)))
            .and(answer);
        let committed = committed.map_err(Failure::from);
        statements.as_ref().err().into_iter().chain(committed.as_ref().err()).for_each(|failure| {
            self.note_failure(failure);
        });
        self.running =
            self.is_closed() || matches!(statements, Err(Failure::TooLarge(_) | Failure::Undecodable(_)));
        self.dirty = self.running || committed.is_err();
        self.publish(statements.is_ok() && committed.is_ok());
        match (statements, committed) {
            (Ok(rows), Ok(())) => Ok(rows),
            // The statements succeeded, and COMMIT was sent together with them.
            (Ok(_), Err(Failure::Lost | Failure::Unavailable(_))) | (Err(Failure::Lost), _) => {
                Err(TransactionFailure::Unknown(self.connection_lost()))
            }
            (Ok(_), Err(refused)) => Err(TransactionFailure::NotCommitted(refused)),
            (Err(unread @ (Failure::TooLarge(_) | Failure::Undecodable(_))), _) => {
                Err(TransactionFailure::Unknown(unread))
            }
            (Err(failure), _) => Err(TransactionFailure::NotCommitted(failure)),
        }
    }

    /// Sets `running` by how an answer ended: an error of the server ends the answer; a lost or unread answer
    /// does not.
    fn ended<T, E: Into<Failure>>(&mut self, answer: Result<T, E>) -> Result<T, Failure> {
        let answer = answer.map_err(Into::into);
        self.running = answer.as_ref().is_err_and(|failure| !failure.ends_the_answer());
        if let Err(failure) = &answer {
            self.note_failure(failure);
        }
        answer.map_err(|failure| match failure {
            Failure::Lost => self.connection_lost(),
            Failure::Stale => {
                self.statements.clear();
                Failure::Stale
            }
            other => other,
        })
    }

    fn note_failure(&mut self, failure: &Failure) {
        self.unusable |= failure.makes_connection_unusable();
        self.read_only |= failure.is_read_only();
    }

    /// The failure of a lost connection. Our own guard in `socket` may have cut it.
    fn connection_lost(&self) -> Failure {
        if self.oversize.happened() {
            Failure::TooLarge(limits::ANSWER_BYTES_MAX as u64)
        } else {
            Failure::Lost
        }
    }
}

/// How a pipelined transaction failed.
#[derive(Debug)]
pub(super) enum TransactionFailure {
    NotCommitted(Failure),
    /// The transaction may have been committed.
    Unknown(Failure),
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The host does not wait for a clean end: the server sees that the socket closed.
        self.driver.abort();
    }
}

/// Reads rows up to the bound. Past the bound the stream is dropped in the middle, and the connection stays
/// marked as running.
async fn read(stream: RowStream, columns: &[String], decode: &[Decode]) -> Result<Rows, Failure> {
    let mut stream = pin!(stream);
    let mut cells = Vec::<Value>::new();
    let (mut bytes, mut count) = (0, 0);
    while let Some(row) = stream.try_next().await? {
        bytes += row.raw_size_bytes() + limits::CELL_BYTES * decode.len().max(1);
        if bytes > limits::ANSWER_BYTES_MAX {
            return Err(Failure::TooLarge(limits::ANSWER_BYTES_MAX as u64));
        }
        count += 1;
        for (index, decode) in decode.iter().enumerate() {
            let cell = row.try_get::<_, Cell<'_>>(index)?;
            cells.push(decode.value(cell).map_err(Failure::Undecodable)?);
        }
    }
    let affected = stream.rows_affected().unwrap_or(count);
    Ok(Rows { columns: columns.to_vec(), cells, affected })
}

impl Prepared {
    fn new(statement: tokio_postgres::Statement) -> Self {
        let columns = statement.columns();
        let decode = columns
            .iter()
            .map(|column| {
                Decode::of(column.type_()).ok_or_else(|| {
                    format!(
                        "column `{}` has the type {}, which the contract cannot carry: cast it, for instance to text",
                        column.name(),
                        column.type_()
                    )
                })
            })
            .collect();
        Self { columns: columns.iter().map(|column| column.name().to_owned()).collect(), decode, statement }
    }

    fn takes(&self, params: usize) -> Result<(), Failure> {
        let expected = self.statement.params().len();
        if params == expected {
            Ok(())
        } else {
            Err(Failure::Refused(format!(
                "the statement has {expected} parameters, but the call passed {params}"
            )))
        }
    }

    fn uses(&self, params: usize) -> Result<(), Failure> {
        let used = self.statement.params().len();
        if used <= params {
            Ok(())
        } else {
            Err(Failure::Refused(format!("a statement uses ${used}, but the row ends at ${params}")))
        }
    }
}

/// Asks the server, through another connection, to stop what a backend is doing.
pub(super) struct Canceller {
    token: CancelToken,
    endpoint: Endpoint,
}

impl Canceller {
    /// Sends the request to cancel, and then waits a moment for the statement to end.
    pub(crate) async fn cancel(self) {
        let grace = limits::POSTGRES_CANCEL_GRACE;
        let ask = async {
            let (socket, _) = self.endpoint.connect().await.ok()?;
            self.token.cancel_query_raw(socket, NoTls).await.ok()
        };
        // Without an answer to the request, waiting is useless.
        if tokio::time::timeout(grace, ask).await.is_ok_and(|asked| asked.is_some()) {
            tokio::time::sleep(grace).await;
        }
    }
}

/// The prepared statements of one connection. The number is bounded; the least recently used statement is
/// closed.
#[derive(Default)]
struct Statements {
    by_text: HashMap<String, (Arc<Prepared>, u64)>,
    uses: u64,
}

impl Statements {
    fn get(&mut self, sql: &str) -> Option<Arc<Prepared>> {
        self.uses += 1;
        let (prepared, used) = self.by_text.get_mut(sql)?;
        *used = self.uses;
        Some(prepared.clone())
    }

    fn insert(&mut self, sql: &str, prepared: Arc<Prepared>) {
        if self.by_text.len() >= limits::STATEMENTS_CACHED_MAX {
            let oldest = self.by_text.iter().min_by_key(|(_, (_, used))| *used).map(|(sql, _)| sql.clone());
            if let Some(oldest) = oldest {
                self.by_text.remove(&oldest);
            }
        }
        self.by_text.insert(sql.to_owned(), (prepared, self.uses));
    }

    fn clear(&mut self) {
        self.by_text.clear();
    }
}
