//! Turns messages into notifications: rows first, then frames. However often an event comes, a person has one
//! notification of it, because its id is made from both.

mod looking;
mod rules;

use std::collections::BTreeSet;

use rules::News;
use sdk::channels::{self, Publication};
use sdk::event::{self, Event, Verdict};
use sdk::postgres::{self, Error};
use sdk::{config, frame, log, params};
use serde_json::json;

const NOTIFY: &str = include_str!("sql/notify.sql");
/// Publications of one call to the bus.
const PUBLISH_MAX: usize = 500;

struct Notify;
event::export!(Notify);

sdk::rows! {
    struct Notification { user_id: String, notification: String }
}

impl event::Handler for Notify {
    fn handle(events: Vec<Event>) -> Vec<Verdict> {
        let mut news = Vec::new();
        let mut verdicts = Vec::with_capacity(events.len());
        for event in &events {
            match rules::news(event) {
                Ok(told) => {
                    news.extend(told);
                    verdicts.push(Verdict::Ack);
                }
                Err(why) => verdicts.push(Verdict::Reject(why)),
            }
        }
        match tell(&news) {
            Ok(()) => verdicts,
            Err(Trouble::Away(why)) => {
                log::warn("notifications wait", &[("why", &why)]);
                event::all(&events, Verdict::Hold(event::RETRY_MS))
            }
            Err(Trouble::Failed(why)) if events.len() == 1 => vec![Verdict::Reject(why)],
            // One of them is to blame: each comes back alone and shows whether it is the one.
            Err(Trouble::Failed(_)) => events.iter().map(alone).collect(),
        }
    }
}

enum Trouble {
    /// Postgres or the bus: it comes back.
    Away(String),
    Failed(String),
}

fn alone(event: &Event) -> Verdict {
    let told = match rules::news(event) {
        Ok(told) => told,
        Err(why) => return Verdict::Reject(why),
    };
    match tell(told.as_slice()) {
        Ok(()) => Verdict::Ack,
        Err(Trouble::Away(_)) => Verdict::Hold(event::RETRY_MS),
        Err(Trouble::Failed(why)) => Verdict::Reject(why),
    }
}

fn tell(news: &[News]) -> Result<(), Trouble> {
    if news.is_empty() {
        return Ok(());
    }
    let notifications = store(news)?;
    let publications: Vec<_> = notifications
        .iter()
        .map(|row| {
            let payload = format!(r#"{{"notification":{}}}"#, row.notification);
            Publication::new(channels::user(&row.user_id), frame::push("notification.new", &payload))
        })
        .collect();
    for some in publications.chunks(PUBLISH_MAX) {
        channels::publish(some).map_err(|error| match error {
            channels::Error::Refused(why) => Trouble::Failed(why),
            other => Trouble::Away(format!("{other:?}")),
        })?;
    }
    Ok(())
}

fn store(news: &[News]) -> Result<Vec<Notification>, Trouble> {
    let conversations: BTreeSet<_> = news.iter().map(|told| told.conversation_id).collect();
    let texts = |of: fn(&News) -> String| news.iter().map(of).collect::<Vec<_>>();
    let numbers = |of: fn(&News) -> u64| news.iter().map(|told| of(told) as i64).collect::<Vec<_>>();
    let rows = postgres::query(
        NOTIFY,
        &params![
            texts(|told| told.event_id.clone()),
            texts(|told| told.conversation_id.to_string()),
            texts(|told| told.message_id.clone()),
            numbers(|told| told.seq),
            texts(|told| told.sender_id.clone()),
            texts(|told| told.title.clone()),
            texts(|told| told.body.clone()),
            texts(|told| json!(told.mentions).to_string()),
            numbers(|told| told.at_ms),
            looking::at(&conversations),
            config::number("participants_max", 1000),
        ],
    );
    let rows = rows.map_err(|error| match error {
        Error::Busy | Error::Deadline | Error::Retryable(_) | Error::UnknownOutcome => {
            Trouble::Away(format!("{error:?}"))
        }
        other => Trouble::Failed(format!("{other:?}")),
    })?;
    rows.all().map_err(|mismatch| Trouble::Failed(mismatch.to_string()))
}
