//! Why handlers speak through tokio-postgres: a collection's batch (BEGIN, two statements, COMMIT) by either
//! driver, in turns, on one connection. Prints and asserts nothing.
//!
//! `cargo test -p switchboard-postgres --lib collect::measure -- --ignored --nocapture`

use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::super::fixture::{ROLE, World, with_world};
use super::super::value::array_literal;
use super::*;

const LOCK: &str = "select switchboard.lock($2::text[]) where $1::int[] is not null";
const APPEND: &str = "with c as (select * from unnest($1::int[], $2::text[], $3::text[]) as c (n, key, body)), \
     s as (insert into sent (body) select body from c order by n), \
     o as (insert into switchboard.outbox (shard, position, id, event_type, key, payload) \
           select shard, switchboard.next_position(shard), gen_random_uuid(), 'x', key, to_json(body) \
           from c, switchboard.shard(c.key) as shard order by n) \
     select n, body from c";
/// Short and many, so that whatever else the machine does hits both.
const ROUND: Duration = Duration::from_millis(100);
const ROUNDS: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures"]
async fn a_flight_by_either_driver() {
    with_world(4, async |world| {
        table(&world).await;
        println!("{:>6} {:>28} {:>28} {:>7}", "batch", "sqlx", "tokio-postgres", "ratio");
        for batch in [1, 8, 16, 32, 64] {
            let (mut sqlx, mut tokio_postgres) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                sqlx.push(by_sqlx(&world, batch).await);
                tokio_postgres.push(by_tokio_postgres(&world, batch).await);
            }
            let (sqlx, tokio_postgres) = (median(sqlx), median(tokio_postgres));
            let ratio = tokio_postgres.batches / sqlx.batches;
            println!("{batch:>6} {sqlx} {tokio_postgres} {ratio:>6.2}x");
        }
    })
    .await;
}

/// Many callers, each with one row, through `Session`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures"]
async fn many_callers() {
    with_world(32, async |world| {
        table(&world).await;
        println!("{:>8} {:>6} {:>20}", "callers", "lanes", "");
        for (callers, lanes) in [(1, 1), (16, 1), (64, 1), (256, 1), (64, 2), (64, 8)] {
            let until = Instant::now() + Duration::from_secs(3);
            let calling: Vec<_> = (0..callers)
                .map(|caller| tokio::spawn(call_until(world.clone(), caller, lanes, until)))
                .collect();
            let cpu = cpu_us();
            let mut calls = 0;
            for caller in calling {
                calls += caller.await.unwrap();
            }
            let cpu = (cpu_us() - cpu) / f64::from(calls);
            println!(
                "{callers:>8} {lanes:>6} {:>8.0} calls/s {cpu:>4.0} us CPU a call",
                f64::from(calls) / 3.0
            );
        }
    })
    .await;
}

async fn call_until(world: Arc<World>, caller: u32, lanes: u32, until: Instant) -> u32 {
    let mut calls = 0;
    while Instant::now() < until {
        let collected = Collected {
            statements: vec![LOCK.to_owned(), APPEND.to_owned()],
            row: vec![
                Value::Text(format!("conversation {}", caller % lanes)),
                Value::Text("a message of a usual length".to_owned()),
            ],
            lane: caller % lanes,
        };
        world.session().collect(collected).await.unwrap();
        calls += 1;
    }
    calls
}

async fn table(world: &World) {
    world
        .owner(
            "create table public.sent (id bigserial primary key, body text); grant all on public.sent, \
             switchboard.outbox to switchboard_test; grant usage on sequence public.sent_id_seq to switchboard_test",
        )
        .await;
}

fn columns(batch: usize) -> [String; 3] {
    let texts = |text: fn(usize) -> String| {
        array_literal((0..batch).map(text).map(Value::Text).collect::<Vec<_>>().iter()).0
    };
    [
        value::numbers_literal(batch).0,
        texts(|n| format!("conversation {n}")),
        texts(|n| format!("a message of a usual length, the {n}th of its batch")),
    ]
}

/// One round, or the median of many.
#[derive(Clone, Copy)]
struct Figures {
    /// A second.
    batches: f64,
    /// Of this process, client and all, for one batch.
    cpu_us: f64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

/// All threads of this process, from the scheduler's own books.
fn cpu_us() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let ran_ns = threads.filter_map(|thread| {
        let books = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        books.split(' ').next()?.parse::<f64>().ok()
    });
    ran_ns.sum::<f64>() / 1000.0
}

async fn by_sqlx(world: &World, batch: usize) -> Figures {
    let [numbers, keys, bodies] = columns(batch);
    let as_text = |sql: &str| {
        sql.replace("$1::", "$1::text::").replace("$2::", "$2::text::").replace("$3::", "$3::text::")
    };
    let (lock, append) = (as_text(LOCK), as_text(APPEND));
    round(async || {
        let mut transaction = world.postgres.host().begin().await.unwrap();
        let lock = sqlx::query(AssertSqlSafe(lock.clone())).bind(&numbers).bind(&keys);
        lock.execute(&mut *transaction).await.unwrap();
        let append = sqlx::query(AssertSqlSafe(append.clone())).bind(&numbers).bind(&keys).bind(&bodies);
        assert_eq!(append.fetch_all(&mut *transaction).await.unwrap().len(), batch);
        transaction.commit().await.unwrap();
    })
    .await
}

async fn by_tokio_postgres(world: &World, batch: usize) -> Figures {
    let literals = columns(batch).map(value::Literal);
    let params: Vec<&(dyn ToSql + Sync)> = literals.iter().map(|literal| literal as _).collect();
    let statements = [LOCK.to_owned(), APPEND.to_owned()];
    let deadline = Instant::now() + Duration::from_secs(60);
    let roles = &world.postgres.0.roles;
    round(async || {
        let mut lease = roles.acquire(&ROLE.into(), deadline).await.unwrap();
        let statements = lease.prepare_all(&statements).await.unwrap();
        assert_eq!(lease.transact(&statements, &params).await.unwrap().affected, batch as u64);
    })
    .await
}

fn median(rounds: Vec<Figures>) -> Figures {
    let middle = |of: fn(&Figures) -> f64| {
        let mut figures: Vec<f64> = rounds.iter().map(of).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Figures { batches: middle(|round| round.batches), cpu_us: middle(|round| round.cpu_us) }
}
