//! Ends a script that does not end: `SCRIPT KILL`, on a connection of its own, because every other one waits behind the
//! script. Redis reads it only once its `busy-reply-threshold` has passed, and refuses where the script has written: then
//! nothing but a restart of Redis without saving ends it.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use super::SILENCE_MAX;
use super::link::Link;
use super::place::Place;
use super::pubsub;
use crate::limits;

/// Between two attempts.
const KILLS_APART: Duration = Duration::from_secs(1);
/// The same is logged once in so long.
const LOGS_APART: Duration = Duration::from_secs(60);

/// What came of an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Killed,
    /// No script was running any more.
    NotBusy,
    /// It has written.
    Unkillable,
    /// No answer, or another one.
    Unknown(String),
}

/// For as long as anyone holds the `Redis`.
pub(super) async fn run(link: Arc<Link>, place: Place) {
    let mut logged: Option<(Outcome, Instant)> = None;
    loop {
        link.overdue.notified().await;
        let began = Instant::now();
        let outcome = kill(&link, &place).await;
        if outcome == Outcome::Killed {
            metrics::counter!("switchboard_redis_scripts_killed_total").increment(1);
            link.doubted.notify_one();
        }
        let is_new = logged.as_ref().is_none_or(|(last, at)| *last != outcome || at.elapsed() >= LOGS_APART);
        if is_new && outcome != Outcome::NotBusy {
            match &outcome {
                Outcome::Killed => tracing::error!(
                    "a script ran in Redis for more than {} ms and was ended by SCRIPT KILL; `slowlog get` on the server \
                     names it",
                    limits::REDIS_ANSWER_MS_MAX
                ),
                Outcome::Unkillable => tracing::error!(
                    "a script in Redis does not end, and Redis cannot end it because it has written: Redis serves nobody \
                     until somebody restarts it without saving (`redis-cli shutdown nosave`)"
                ),
                Outcome::Unknown(why) => tracing::warn!("SCRIPT KILL was not answered: {why}"),
                Outcome::NotBusy => {}
            }
            logged = Some((outcome, Instant::now()));
        }
        sleep_until(began + KILLS_APART).await;
    }
}

async fn kill(link: &Link, place: &Place) -> Outcome {
    // A busy server does not say whether it is a primary, so no sentinel would find it.
    let server = match link.server.load_full() {
        Some(server) => server.as_ref().clone(),
        None => match place.find().await {
            Ok(server) => server,
            Err(why) => return Outcome::Unknown(why.to_owned()),
        },
    };
    let asked = async {
        let mut stream = timeout(SILENCE_MAX * 2, pubsub::connect(&server)).await??;
        stream.write_all(b"*2\r\n$6\r\nSCRIPT\r\n$4\r\nKILL\r\n").await?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && stream.read_buf(&mut line).await? > 0 {}
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&line).trim_end().to_owned())
    };
    match timeout(Duration::from_millis(limits::REDIS_SCRIPT_KILL_MS_MAX), asked).await {
        Err(_) => Outcome::Unknown(format!("no answer within {} ms", limits::REDIS_SCRIPT_KILL_MS_MAX)),
        Ok(Err(error)) => Outcome::Unknown(error.to_string()),
        Ok(Ok(line)) if line.starts_with("+OK") => Outcome::Killed,
        Ok(Ok(line)) if line.starts_with("-NOTBUSY") => Outcome::NotBusy,
        Ok(Ok(line)) if line.starts_with("-UNKILLABLE") => Outcome::Unkillable,
        Ok(Ok(line)) => Outcome::Unknown(line),
    }
}
