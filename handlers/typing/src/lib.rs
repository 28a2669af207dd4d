//! Who is typing. Postgres is asked whether somebody may when there is something to tell, which is at most every few
//! seconds; the keystrokes in between only prolong what was told. Without Redis nobody is told anything.

mod rules;

use chat::conversation::{Act, Role};
use chat::{keys, membership, problem};
use rules::State;
use sdk::channels::{self, Publication};
use sdk::frame::{self, Reply, Request};
use sdk::rate::{self, Verdict, Window};
use sdk::redis::{self, Error, Pipeline};
use sdk::schedule::{self, Tick};
use sdk::{Id, Problem, clock, log, params, postgres};

const SEAT: &str = include_str!("sql/seat.sql");
/// Of one partition at a time; the rest has its turn a second later.
const EXPIRE_MAX: &str = "500";

struct Typing;
frame::export!(Typing);
schedule::export!(Typing);

sdk::rows! {
    struct Seat { role: String, archived: bool }
}

impl frame::Handler for Typing {
    fn handle(request: Request) -> Result<Option<Reply>, Problem> {
        if request.frame_type != "typing" {
            return frame::unknown_type(&request);
        }
        let user = &request.caller.user_id;
        let (conversation, state) = rules::read(request.payload()?)?;
        let conversation = conversation.find(user)?;
        let told = match state {
            State::Start => start(conversation, user),
            State::Stop => stop(conversation, user),
        };
        match told {
            Ok(()) => {}
            Err(Trouble::Refused(problem)) => return Err(problem),
            Err(Trouble::Away(why)) => log::debug("typing is not told", &[("why", &why)]),
        }
        Ok(None)
    }
}

impl schedule::Handler for Typing {
    fn run(_: Tick) -> Result<(), String> {
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
            let over = run("expire", &keys::typing_of(partition), &[EXPIRE_MAX]);
            let over = over.map_err(|error| redis::describe(&error))?;
            let over = over.texts().filter_map(rules::read_entry);
            let pushes: Vec<_> = over.map(|(room, user)| rules::push(room, user, State::Stop)).collect();
            publish(&pushes).map_err(|trouble| trouble.describe())?;
        }
        Ok(())
    }
}

enum Trouble {
    Refused(Problem),
    /// Redis: nothing is told, and nothing needs to be.
    Away(String),
}

fn start(conversation: Id, user: &str) -> Result<(), Trouble> {
    let (key, entry) = (keys::typing(conversation), rules::entry(conversation, user));
    let (over, fresh) = ((clock::now_ms() + keys::TYPING_MS).to_string(), rules::FRESH_MS.to_string());
    if run("ask", &key, &[&entry, &over, &fresh])?.integer() == Some(0) {
        return Ok(());
    }
    must_type(conversation, user)?;
    // Beyond the limit nobody is told. It is no error: the person may well be typing.
    let most = rate::most("pushes_per_ten_seconds", 6);
    let window = Window { what: "typing", user: &entry, most, window_ms: 10_000 };
    if let Verdict::Full(_) = window.count() {
        return Ok(());
    }
    run("begin", &key, &[&entry, &over])?;
    publish(&[rules::push(conversation, user, State::Start)])
}

fn stop(conversation: Id, user: &str) -> Result<(), Trouble> {
    must_type(conversation, user)?;
    let entry = rules::entry(conversation, user);
    if run("stop", &keys::typing(conversation), &[&entry])?.integer() == Some(1) {
        publish(&[rules::push(conversation, user, State::Stop)])?;
    }
    Ok(())
}

fn must_type(conversation: Id, user: &str) -> Result<(), Problem> {
    let seat: Option<Seat> = postgres::query(SEAT, &params![conversation, user])?.one()?;
    let seat = seat.ok_or_else(|| membership::unseen(conversation, user, "conversation"))?;
    Role::parse(&seat.role).ok_or_else(Problem::internal)?.must(Act::Send)?;
    if seat.archived { Err(problem::archived()) } else { Ok(()) }
}

fn run(operation: &str, key: &str, args: &[&str]) -> Result<redis::Reply, Error> {
    let now = clock::now_ms().to_string();
    let head = [operation, &now];
    let args: Vec<&str> = head.iter().chain(args).copied().collect();
    redis::script("typing", &[key], &args)
}

fn publish(publications: &[Publication]) -> Result<(), Trouble> {
    channels::publish(publications).map_err(|error| Trouble::Away(format!("{error:?}")))
}

impl Trouble {
    fn describe(self) -> String {
        match self {
            Self::Refused(problem) => problem.detail,
            Self::Away(why) => why,
        }
    }
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Away(redis::describe(&error))
    }
}
