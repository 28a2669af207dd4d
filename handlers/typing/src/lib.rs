//! Pushes typing signals to the other subscribers of a conversation. The permission is read from Postgres
//! only when there is something to push, which is at most every few seconds. Further signals in between only
//! extend the pushed one. A schedule stops the signals that
//! expire; it reads one key while nobody types. If Redis fails, nothing is pushed.

mod rules;

use chat::{Act, keys};
use rules::Signal;
use sdk::channels::{self, Publication};
use sdk::frame::{self, Reply, Request};
use sdk::rate::{self, Verdict, Window};
use sdk::redis::{self, Pipeline};
use sdk::schedule::{self, Tick};
use sdk::{Id, Problem, clock, log};

/// Maximum number of signals of one partition that one run of the schedule stops. The run a second later
/// continues.
const EXPIRE_MAX: &str = "500";

struct Typing;
frame::export!(Typing);
schedule::export!(Typing);

impl frame::Handler for Typing {
    fn handle(request: Request) -> Result<Option<Reply>, Problem> {
        if request.frame_type != "typing" {
            return frame::unknown_type(&request);
        }
        let user = &request.caller.user_id;
        let (conversation, signal) = rules::parse_payload(request.payload()?)?;
        let conversation = conversation.find(user)?;
        let outcome = match signal {
            Signal::Start => start(conversation, user),
            Signal::Stop => stop(conversation, user),
        };
        match outcome {
            Ok(()) => {}
            Err(Error::Refused(problem)) => return Err(problem),
            Err(Error::Unavailable(why)) => log::debug("typing is not told", &[("why", &why)]),
        }
        Ok(None)
    }
}

impl schedule::Handler for Typing {
    fn run(_: Tick) -> Result<(), String> {
        let any = redis::command(&["EXISTS", keys::TYPING_ANY]).map_err(|error| redis::describe(&error))?;
        if any.integer() == Some(0) {
            return Ok(());
        }
        let mut pipeline = Pipeline::new();
        let now = clock::now_ms().to_string();
        for partition in 0..keys::TYPING_PARTITIONS {
            pipeline.push(&["ZCOUNT", &keys::typing_of(partition), "-inf", &now]);
        }
        let counts = pipeline.run().map_err(|error| redis::describe(&error))?;
        for (partition, count) in (0..).zip(&counts) {
            if count.integer() == Some(0) {
                continue;
            }
            let expired = run("expire", &keys::typing_of(partition), &[EXPIRE_MAX]);
            let expired = expired.map_err(|error| redis::describe(&error))?;
            let expired = expired.texts().filter_map(rules::parse_entry);
            let pushes: Vec<_> =
                expired.map(|(conversation, user)| rules::push(conversation, user, Signal::Stop)).collect();
            publish(&pushes).map_err(|error| error.describe())?;
        }
        Ok(())
    }
}

/// Why a signal was not pushed.
enum Error {
    Refused(Problem),
    /// Redis or the bus is unavailable. The signal is dropped.
    Unavailable(String),
}

fn start(conversation: Id, user: &str) -> Result<(), Error> {
    let (key, entry) = (keys::typing(conversation), rules::format_entry(conversation, user));
    let expires_at_ms = (clock::now_ms() + keys::TYPING_MS).to_string();
    let push_interval_ms = rules::PUSH_INTERVAL_MS.to_string();
    if run("ask", &key, &[&entry, &expires_at_ms, &push_interval_ms])?.integer() == Some(0) {
        return Ok(());
    }
    must_type(conversation, user)?;
    // Beyond the limit the signal is dropped without an error, because the user may be typing that much.
    let most = rate::most("pushes_per_ten_seconds", 6);
    let window = Window { what: "typing", user: &entry, most, window_ms: 10_000 };
    if let Verdict::Full(_) = window.count() {
        return Ok(());
    }
    // First, so that the schedule looks for the signal whatever happens next.
    redis::command(&["SET", keys::TYPING_ANY, "1", "PX", &keys::TYPING_ANY_MS.to_string()])?;
    run("begin", &key, &[&entry, &expires_at_ms])?;
    publish(&[rules::push(conversation, user, Signal::Start)])
}

fn stop(conversation: Id, user: &str) -> Result<(), Error> {
    must_type(conversation, user)?;
    let entry = rules::format_entry(conversation, user);
    if run("stop", &keys::typing(conversation), &[&entry])?.integer() == Some(1) {
        publish(&[rules::push(conversation, user, Signal::Stop)])?;
    }
    Ok(())
}

/// Refuses a user who may not send to this conversation.
fn must_type(conversation: Id, user: &str) -> Result<(), Problem> {
    chat::may(user, conversation, Act::Send)?.must_be_open()
}

/// Runs an operation of `scripts/typing.lua`.
fn run(operation: &str, key: &str, args: &[&str]) -> Result<redis::Reply, redis::Error> {
    let now = clock::now_ms().to_string();
    let head = [operation, &now];
    let args: Vec<&str> = head.iter().chain(args).copied().collect();
    redis::script("typing", &[key], &args)
}

fn publish(publications: &[Publication]) -> Result<(), Error> {
    channels::publish(publications).map_err(|error| Error::Unavailable(format!("{error:?}")))
}

impl Error {
    fn describe(self) -> String {
        match self {
            Self::Refused(problem) => problem.detail,
            Self::Unavailable(why) => why,
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl From<redis::Error> for Error {
    fn from(error: redis::Error) -> Self {
        Self::Unavailable(redis::describe(&error))
    }
}
