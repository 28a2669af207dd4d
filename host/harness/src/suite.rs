//! Runs the tests of many handlers: replays on all cores; or runs against real services, one after the other,
//! to record them or to check the recorded answers.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::case::{Case, Subject};
use super::player::Player;
use super::props::{Live, Props};
use super::report::{Report, Tested, Verdict};
use super::values::Values;
use super::world::{Services, World};
use super::{Error, Handler, Harness, complete};
use switchboard_core::ids::ConnectionId;
use switchboard_recording::{self as recording, Difference, Outcome, Recording, Scenario, differences};

/// Replays without services. `update` writes the present host calls and results into recordings whose answers
/// still match.
pub async fn replay(harness: &Harness, subjects: &[Subject], update: bool) -> Result<Report, Error> {
    let begun = Instant::now();
    let mut work = Vec::new();
    for subject in subjects {
        let handler = harness.load_bytes(subject.file.bytes.clone()).await?;
        work.extend(subject.cases.iter().map(|case| (handler.clone(), case.clone())));
    }
    let work = Arc::new(work);
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let tasks: Vec<_> = (0..workers)
        .map(|worker| {
            let work = work.clone();
            tokio::spawn(async move {
                let mut done = Vec::new();
                // Every worker has a part of the tests; the results are in the order of all.
                for at in (worker..work.len()).step_by(workers) {
                    let (handler, case) = &work[at];
                    let begun = Instant::now();
                    let verdict = replay_one(handler, case, update).await;
                    done.push((at, Tested::new(case, verdict, begun.elapsed())));
                }
                done
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.map_err(Error::Task)?);
    }
    all.sort_by_key(|(at, _)| *at);
    let tested = all.into_iter().map(|(_, tested)| tested).collect();
    Ok(Report::of(subjects, tested, begun.elapsed()))
}

async fn replay_one(handler: &Handler, case: &Case, update: bool) -> Verdict {
    let recorded = &case.recording;
    if recorded.outcome == Outcome::Unknown {
        return Verdict::Failed("it was never recorded: `switchboard test --record`".to_owned());
    }
    if !recorded.is_whole() {
        return Verdict::Failed(format!("{} of its host calls were left out", recorded.left_out));
    }
    let got = match again(handler, recorded).await {
        Ok(got) => got,
        Err(error) => return Verdict::Failed(error.to_string()),
    };
    let mut found = differences(recorded, &got);
    if let Some(scenario) = &recorded.scenario {
        found.retain(|difference| !scenario.is_volatile(difference));
    }
    let diverged = matches!(&got.outcome, Outcome::Failed { kind, .. } if kind == "diverged");
    match (found.is_empty(), update, diverged) {
        (true, ..) => Verdict::Passed,
        (false, true, false) => written(case, got, Verdict::Updated),
        (false, ..) => Verdict::Differs(found),
    }
}

/// Runs the call of a recording with its answers, and goes on after differences as long as it can find an
/// answer.
pub async fn again(handler: &Handler, recorded: &Recording) -> Result<Recording, Error> {
    let values = Values::of(handler, recorded.scenario.as_ref());
    let concealed = values.concealed.clone();
    let mut input = recorded.input.clone();
    // The runtime removes the escapes, when it inserts the values of the release.
    concealed.reveal_values(&mut input);
    let mut got = handler.play(&recorded.trigger, input, Player::of(recorded, values)).await?;
    // The release has the values of its manifest, and not those of the scenario.
    concealed.conceal_recording(&mut got);
    Ok(got)
}

fn written(case: &Case, got: Recording, verdict: Verdict) -> Verdict {
    match case.replace(got) {
        Ok(true) => verdict,
        Ok(false) => Verdict::Passed,
        Err(error) => Verdict::Failed(format!("cannot write {}: {error}", case.path.display())),
    }
}

/// Runs against real services. `record` writes their answers; otherwise they are compared with the recorded
/// ones.
pub async fn real(services: &Services, subjects: &[Subject], record: bool, each: impl Fn(&Tested)) -> Report {
    let begun = Instant::now();
    let mut tested = Vec::new();
    for subject in subjects {
        for case in &subject.cases {
            let begun = Instant::now();
            let verdict = match &case.recording.scenario {
                // A recording of a node has no scenario to make the call happen again.
                None => Verdict::Skipped("it has no scenario".to_owned()),
                Some(scenario) => match run(services, subject, case, scenario).await {
                    Ok(got) => judged(case, scenario, got, record),
                    Err(error) => Verdict::Failed(error.to_string()),
                },
            };
            tested.push(Tested::new(case, verdict, begun.elapsed()));
            tested.last().into_iter().for_each(&each);
        }
    }
    if let Err(why) = services.end().await {
        tracing::warn!("databases of the tests are left: {why}");
    }
    Report::of(subjects, tested, begun.elapsed())
}

fn judged(case: &Case, scenario: &Scenario, got: Recording, record: bool) -> Verdict {
    let recorded = &case.recording;
    let is_new = recorded.outcome == Outcome::Unknown;
    let found: Vec<Difference> =
        differences(&recording::without_times(recorded), &recording::without_times(&got))
            .into_iter()
            .filter(|difference| !scenario.is_volatile(difference))
            .collect();
    match (record, is_new || !found.is_empty() || recorded.input != got.input) {
        (_, false) => Verdict::Passed,
        (true, true) => written(case, got, Verdict::Recorded),
        (false, true) if is_new => Verdict::Failed("it was never recorded".to_owned()),
        (false, true) if found.is_empty() => Verdict::Passed,
        (false, true) => Verdict::Differs(found),
    }
}

async fn run(
    services: &Services,
    subject: &Subject,
    case: &Case,
    scenario: &Scenario,
) -> Result<Recording, Error> {
    let directory = case.path.parent().map_or_else(PathBuf::new, Path::to_owned);
    let recorded = &case.recording;
    let writing = services.writing_functions().await?;
    let reads = recorded.outcome != Outcome::Unknown && only_reads(recorded, writing);
    let world = match reads {
        true => services.world_to_read(scenario, &directory).await?,
        false => services.world(scenario, &directory).await?,
    };
    let world = Arc::new(world);
    let ran = in_world(&world, subject, case, scenario).await;
    match &ran {
        Ok(got) if reads && only_reads(got, writing) => services.keep_unchanged(&world).await?,
        _ => world.end().await?,
    }
    ran
}

/// Whether no statement of the call changes data or calls a function that may change data, and the call sets
/// and cancels no timers.
fn only_reads(recording: &Recording, writing: &HashSet<String>) -> bool {
    const WRITE: [&str; 6] = ["insert", "update", "delete", "merge", "truncate", "create"];
    let reads = |statement: &Value| {
        let statement = statement.as_str().unwrap_or_default().to_lowercase();
        let mut words = statement.split(|c: char| !c.is_ascii_alphanumeric() && !"_.".contains(c));
        !words.any(|word| WRITE.contains(&word) || writing.contains(word))
    };
    recording.exchanges.iter().all(|exchange| {
        let one = exchange.args.get("statement").into_iter();
        let many = exchange.args.get("statements").and_then(Value::as_array).into_iter().flatten();
        one.chain(many).all(reads) && !exchange.function.starts_with("timers.")
    })
}

async fn in_world(
    world: &Arc<World>,
    subject: &Subject,
    case: &Case,
    scenario: &Scenario,
) -> Result<Recording, Error> {
    let handler = world.load(&subject.file, scenario).await?;
    let responder = Props::of(scenario, Live)?
        .granting(handler.release.fetch_rules())
        .calling(&handler.release.manifest.grants.calls);
    let (recording, _) = handler.live(&case.recording, responder).await?;
    Ok(recording)
}

impl Handler {
    /// Runs the call of a recording in the handler's world, with its connection in the hub.
    pub(super) async fn live(
        &self,
        recorded: &Recording,
        responder: impl switchboard_runtime::Responder + 'static,
    ) -> Result<(Recording, Value), Error> {
        let input = complete(self.manifest(), &recorded.trigger, recorded.input.clone())?;
        let text = |pointer: &str| input.pointer(pointer).and_then(Value::as_str);
        let mut seat = None;
        if let (Some(world), Some(connection), Some(user)) =
            (&self.world, text("/connection").and_then(ConnectionId::parse), text("/caller/user_id"))
        {
            seat = world.seat(connection, user).await;
        }
        let recording = self.play(&recorded.trigger, input.clone(), responder).await?;
        drop(seat);
        Ok((recording, input))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use switchboard_recording::Exchange;

    #[test]
    fn what_a_statement_may_change() {
        for (statement, reads) in [
            ("select user_id from app.participants where left_at is null", true),
            ("select switchboard.shard($1), count(*) from (select 1) as one", true),
            ("-- who\nselect inserted from app.things", true),
            ("with gone as (delete from app.things returning 1) select count(*) from gone", false),
            ("(update app.things set a = 1)", false),
            ("select app.deliver($1)", false),
            ("select app.head($1)", true),
            ("select * from app.things for update", false),
        ] {
            let exchange = Exchange {
                function: "postgres.query".to_owned(),
                unordered: false,
                args: json!({ "statement": statement }),
                answer: None,
                micros: 0,
            };
            let recording = Recording {
                handler: "marks".to_owned(),
                release: None,
                call: "c1".to_owned(),
                trigger: "http".to_owned(),
                scenario: None,
                input: json!({}),
                exchanges: vec![exchange],
                left_out: 0,
                outcome: Outcome::Unknown,
            };
            let writing = HashSet::from(["app.deliver".to_owned()]);
            assert_eq!(only_reads(&recording, &writing), reads, "{statement}");
        }
    }
}
