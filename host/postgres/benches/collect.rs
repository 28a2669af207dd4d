//! Why handlers use Postgres through tokio-postgres: the batch of a group commit (BEGIN, two statements,
//! COMMIT) by either driver, in turns, on one connection. Then many callers through `Session`. Prints figures
//! and asserts nothing.
//!
//! `SWITCHBOARD_TEST_DATABASE_URL=… cargo bench -p switchboard-postgres --bench collect`

use std::fmt;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::time::Instant;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls};

use switchboard_contract::postgres::{Collected, Value};
use switchboard_core::config::Config;
use switchboard_core::ids::Digest;
use switchboard_postgres::Postgres;
use switchboard_testing::{ROLE, SECRET, with_app_database};

const LOCK: &str = "select switchboard.lock($2::text[]) where $1::int[] is not null";
const APPEND: &str = "with c as (select * from unnest($1::int[], $2::text[], $3::text[]) as c (n, key, body)), \
     s as (insert into sent (body) select body from c order by n), \
     o as (insert into switchboard.outbox (shard, position, id, event_type, key, payload) \
           select shard, switchboard.next_position(shard), gen_random_uuid(), 'x', key, to_json(body) \
           from c, switchboard.shard(c.key) as shard order by n) \
     select n, body from c";
/// Short and many, so that other work on the machine affects both sides.
const ROUND: Duration = Duration::from_millis(100);
const ROUNDS: usize = 40;

#[tokio::main(worker_threads = 2)]
async fn main() {
    with_app_database(by_either_driver).await;
    with_app_database(many_callers).await;
}

async fn by_either_driver(url: String) {
    let mut sqlx = PgConnection::connect(&url).await.unwrap();
    table(&mut sqlx).await;
    let (tokio_postgres, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    println!("{:>6} {:>28} {:>28} {:>7}", "batch", "sqlx", "tokio-postgres", "ratio");
    for batch in [1, 8, 16, 32, 64] {
        let rows = Rows::new(batch);
        let (mut of_sqlx, mut of_tokio_postgres) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            of_sqlx.push(by_sqlx(&mut sqlx, &rows).await);
            of_tokio_postgres.push(by_tokio_postgres(&tokio_postgres, &rows).await);
        }
        let (sqlx, tokio_postgres) = (median(of_sqlx), median(of_tokio_postgres));
        let ratio = tokio_postgres.batches / sqlx.batches;
        println!("{batch:>6} {sqlx} {tokio_postgres} {ratio:>6.2}x");
    }
    drop(tokio_postgres);
    connection.await.unwrap().unwrap();
    sqlx.close().await.unwrap();
}

/// Many callers, each with one row, through `Session`.
async fn many_callers(url: String) {
    let mut owner = PgConnection::connect(&url).await.unwrap();
    table(&mut owner).await;
    owner.close().await.unwrap();
    let config = Config {
        database_url: Some(url),
        secret: Some(SECRET.to_owned()),
        postgres_connections_max: 32,
        ..Config::default()
    };
    let postgres = Postgres::connect(&config).await.unwrap();
    println!("{:>8} {:>6} {:>20}", "callers", "lanes", "");
    for (callers, lanes) in [(1, 1), (16, 1), (64, 1), (256, 1), (64, 2), (64, 8)] {
        let until = Instant::now() + Duration::from_secs(3);
        let calling: Vec<_> = (0..callers)
            .map(|caller| tokio::spawn(call_until(postgres.clone(), caller % lanes, until)))
            .collect();
        let cpu = cpu_us();
        let mut calls = 0;
        for caller in calling {
            calls += caller.await.unwrap();
        }
        let cpu = (cpu_us() - cpu) / f64::from(calls);
        println!("{callers:>8} {lanes:>6} {:>8.0} calls/s {cpu:>4.0} us CPU a call", f64::from(calls) / 3.0);
    }
    postgres.close().await;
}

async fn call_until(postgres: Postgres, lane: u32, until: Instant) -> u32 {
    let mut calls = 0;
    while Instant::now() < until {
        let collected = Collected {
            statements: vec![LOCK.to_owned(), APPEND.to_owned()],
            row: vec![
                Value::Text(format!("conversation {lane}")),
                Value::Text("a message of a usual length".to_owned()),
            ],
            lane,
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut session = postgres.session(Some(ROLE), Digest::of(b"release"), deadline);
        session.collect(collected).await.unwrap();
        calls += 1;
    }
    calls
}

async fn table(owner: &mut PgConnection) {
    let sql = "create table public.sent (id bigserial primary key, body text); grant all on public.sent, \
               switchboard.outbox to switchboard_test; grant usage on sequence public.sent_id_seq to switchboard_test";
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(owner).await.unwrap();
}

/// The parameters of a batch. Both drivers send them as text, as the host does.
struct Rows {
    count: usize,
    numbers: String,
    keys: String,
    bodies: String,
}

impl Rows {
    fn new(count: usize) -> Self {
        let array = |item: fn(usize) -> String| {
            let items: Vec<_> = (0..count).map(item).collect();
            format!("{{{}}}", items.join(","))
        };
        Self {
            count,
            numbers: array(|n| n.to_string()),
            keys: array(|n| format!("\"conversation {n}\"")),
            bodies: array(|n| format!("\"a message of a usual length, the {n}th of its batch\"")),
        }
    }
}

/// One round, or the median of many.
#[derive(Clone, Copy)]
struct Figures {
    /// Batches in a second.
    batches: f64,
    /// Processor time of this process for one batch.
    cpu_us: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>7.0} batches/s {:>6.0} us CPU", self.batches, self.cpu_us)
    }
}

/// Executes until the round is over.
async fn round(mut execute: impl AsyncFnMut()) -> Figures {
    let (begun, cpu, mut batches) = (Instant::now(), cpu_us(), 0);
    while begun.elapsed() < ROUND {
        execute().await;
        batches += 1;
    }
    let batches = f64::from(batches);
    Figures { batches: batches / begun.elapsed().as_secs_f64(), cpu_us: (cpu_us() - cpu) / batches }
}

/// The processor time of all threads of this process, as the scheduler counts it.
fn cpu_us() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let ran_ns = threads.filter_map(|thread| {
        let counts = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        counts.split(' ').next()?.parse::<f64>().ok()
    });
    ran_ns.sum::<f64>() / 1000.0
}

async fn by_sqlx(connection: &mut PgConnection, rows: &Rows) -> Figures {
    let (lock, append) = (as_text(LOCK), as_text(APPEND));
    round(async || {
        let mut transaction = connection.begin().await.unwrap();
        let lock = sqlx::query(AssertSqlSafe(lock.clone())).bind(&rows.numbers).bind(&rows.keys);
        lock.execute(&mut *transaction).await.unwrap();
        let append = sqlx::query(AssertSqlSafe(append.clone()));
        let append = append.bind(&rows.numbers).bind(&rows.keys).bind(&rows.bodies);
        assert_eq!(append.fetch_all(&mut *transaction).await.unwrap().len(), rows.count);
        transaction.commit().await.unwrap();
    })
    .await
}

/// Sends all four statements before it awaits the first.
async fn by_tokio_postgres(client: &Client, rows: &Rows) -> Figures {
    let lock = client.prepare_typed(&as_text(LOCK), &[Type::TEXT; 2]).await.unwrap();
    let append = client.prepare_typed(&as_text(APPEND), &[Type::TEXT; 3]).await.unwrap();
    let params: [&(dyn ToSql + Sync); 3] = [&rows.numbers, &rows.keys, &rows.bodies];
    round(async || {
        let (begin, lock, append, commit) = tokio::join!(
            client.batch_execute("begin"),
            client.execute(&lock, &params[..2]),
            client.query(&append, &params),
            client.batch_execute("commit"),
        );
        begin.unwrap();
        lock.unwrap();
        assert_eq!(append.unwrap().len(), rows.count);
        commit.unwrap();
    })
    .await
}

/// The statement with parameters of the type `text`.
fn as_text(sql: &str) -> String {
    sql.replace("$1::", "$1::text::").replace("$2::", "$2::text::").replace("$3::", "$3::text::")
}

fn median(rounds: Vec<Figures>) -> Figures {
    let middle = |of: fn(&Figures) -> f64| {
        let mut figures: Vec<f64> = rounds.iter().map(of).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Figures { batches: middle(|round| round.batches), cpu_us: middle(|round| round.cpu_us) }
}
