//! Ends a script that runs too long: sends `SCRIPT KILL` on a connection of its own, because every other
//! connection waits behind the script. Redis reads it only after its `busy-reply-threshold`. Redis refuses it
//! when the script has written: then only a restart of Redis without saving ends the script.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use super::endpoint::RedisEndpoint;
use super::link::Link;
use super::pubsub;
use switchboard_core::limits;

/// The outcome of an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Killed,
    /// No script was running any more.
    NotBusy,
    /// The script has written, so Redis cannot end it.
    Unkillable,
    /// No answer, or another one.
    Unknown(String),
}

/// Runs until the last `Redis` is dropped.
pub(super) async fn run(link: Arc<Link>, endpoint: RedisEndpoint) {
    let mut logged: Option<(Outcome, Instant)> = None;
    loop {
        link.script_overdue.notified().await;
        let began = Instant::now();
        let outcome = kill(&link, &endpoint).await;
        if outcome == Outcome::Killed {
            metrics::counter!("switchboard_redis_scripts_killed_total").increment(1);
            link.check_requested.notify_one();
        }
        let is_new = logged.as_ref().is_none_or(|(last, at)| {
            *last != outcome || at.elapsed() >= limits::REDIS_SCRIPT_KILLS_LOGGED_EVERY
        });
        if is_new && outcome != Outcome::NotBusy {
            match &outcome {
                Outcome::Killed => tracing::error!(
                    "a script ran in Redis for more than {} ms and was ended with SCRIPT KILL; `slowlog get` on the server \
                     names it",
                    limits::REDIS_ANSWER_WAIT.as_millis()
                ),
                Outcome::Unkillable => tracing::error!(
                    "a script in Redis does not end, and Redis cannot end it because it has written: Redis answers no client \
                     until an operator restarts it without saving (`redis-cli shutdown nosave`)"
                ),
                Outcome::Unknown(why) => {
                    tracing::warn!("SCRIPT KILL failed, so the script still runs: {why}")
                }
                Outcome::NotBusy => {}
            }
            logged = Some((outcome, Instant::now()));
        }
        sleep_until(began + limits::REDIS_SCRIPT_KILLS_APART).await;
    }
}

async fn kill(link: &Link, endpoint: &RedisEndpoint) -> Outcome {
    // A busy server does not answer whether it is a primary, so no sentinel would lead to it.
    let server = match link.server.load_full() {
        Some(server) => server.as_ref().clone(),
        None => match endpoint.find().await {
            Ok(server) => server,
            Err(why) => return Outcome::Unknown(why.to_owned()),
        },
    };
    let asked = async {
        let mut stream = timeout(limits::REDIS_SILENCE_MAX * 2, pubsub::connect(&server)).await??;
        stream.write_all(b"*2\r\n$6\r\nSCRIPT\r\n$4\r\nKILL\r\n").await?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && stream.read_buf(&mut line).await? > 0 {}
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&line).trim_end().to_owned())
    };
    match timeout(limits::REDIS_SCRIPT_KILL_WAIT, asked).await {
        Err(_) => {
            Outcome::Unknown(format!("no answer within {} ms", limits::REDIS_SCRIPT_KILL_WAIT.as_millis()))
        }
        Ok(Err(error)) => Outcome::Unknown(error.to_string()),
        Ok(Ok(line)) if line.starts_with("+OK") => Outcome::Killed,
        Ok(Ok(line)) if line.starts_with("-NOTBUSY") => Outcome::NotBusy,
        Ok(Ok(line)) if line.starts_with("-UNKILLABLE") => Outcome::Unkillable,
        Ok(Ok(line)) => Outcome::Unknown(line),
    }
}
