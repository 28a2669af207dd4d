//! Frequent reads: pages of history, searches and lists, over a history of the largest expected size. Each is
//! measured beside the same statements in pgbench, on the same rows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use switchboard_tests::token::Token;
use tokio::net::TcpStream;

use crate::figures::{By, Figures, Latencies, Row};
use crate::pgbench::{self, filled};
use crate::rig::Rig;

/// Callers at a time, each waiting for its answer before the next request.
const CALLERS: usize = 4;
/// Words are drawn with the distribution of the generated messages: common ones often.
const WORDS: usize = 5000;

#[derive(Clone, Copy)]
pub(crate) struct Size {
    conversations: usize,
    /// In each.
    messages: usize,
}

impl Size {
    pub(crate) const FULL: Self = Self { conversations: 1000, messages: 1000 };
    pub(crate) const SMALL: Self = Self { conversations: 100, messages: 200 };

    /// Number of people: ten in each conversation, twenty conversations for each person.
    fn people(self) -> usize {
        self.conversations / 2
    }
}

pub(crate) async fn rows(rig: &Rig, size: Size, time: Duration, wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    let world = World::generate(rig, size).await;
    let all = format!("{} messages", size.conversations * size.messages);
    let mut rows = Vec::new();
    let mut row = |name: String, figures: Figures, control: Figures, to_reach: &'static str| {
        let control_name = "pgbench, the same statements".to_owned();
        rows.push(Row { name, figures, control_name, control, peers: None, by: By::P99, to_reach });
    };
    if wanted("history") {
        let figures = world.measure(rig, time, World::page).await;
        let control = pgbench::run(rig, CALLERS, time, &world.page_script()).await;
        row(format!("history: a page of 50 of {all}"), figures, control, "p99 < 10 ms");
    }
    if wanted("search") {
        let figures = world.measure(rig, time, World::search_one).await;
        let control = pgbench::run(rig, CALLERS, time, &world.search_script(true)).await;
        row(format!("search: in one conversation of {all}"), figures, control, "p99 < 50 ms");
        let figures = world.measure(rig, time, World::search_mine).await;
        let control = pgbench::run(rig, CALLERS, time, &world.search_script(false)).await;
        row(format!("search: in 20 conversations of {all}"), figures, control, "p99 < 50 ms");
    }
    if wanted("lists") {
        // Warm up: read the list of every person once.
        world.measure(rig, time / 4, World::list).await;
        let figures = world.measure(rig, time, World::list).await;
        let control = pgbench::run(rig, CALLERS, time, &world.list_script()).await;
        row("lists: 20 conversations, warm".to_owned(), figures, control, "p99 < 5 ms");
    }
    rows
}

/// The generated data.
#[derive(Clone)]
struct World {
    size: Size,
    conversations: Arc<[String]>,
    words: Arc<[String]>,
}

impl World {
    async fn generate(rig: &Rig, size: Size) -> Self {
        let began = Instant::now();
        let statements = include_str!("sql/history.sql")
            .replace("{conversations}", &size.conversations.to_string())
            .replace("{messages}", &size.messages.to_string())
            .replace("{people}", &size.people().to_string());
        let connection = rig.host.database.connect().await;
        connection.run(&statements).await;
        // Autovacuum would do this within minutes, and the rows below would measure it too.
        connection.run("vacuum app.messages, app.participants, app.conversations, app.users").await;
        let texts = async |statement: &str| {
            connection.rows(statement).await.iter().map(|row| row.get(0)).collect::<Arc<[String]>>()
        };
        let world = Self {
            size,
            conversations: texts("select id::text from public.generated_conversations order by c").await,
            words: texts("select word from public.generated_words order by n").await,
        };
        let messages = size.conversations * size.messages;
        eprintln!("made {messages} messages in {:.1} s", began.elapsed().as_secs_f64());
        world
    }

    /// The number of callers; each sends each request as another person.
    async fn measure(
        &self,
        rig: &Rig,
        time: Duration,
        path: fn(&Self, &mut Dice, usize) -> String,
    ) -> Figures {
        let tokens: Arc<[String]> =
            (0..self.size.people()).map(|n| Token::of(&format!("person-{n}")).sign()).collect();
        let (start, meter) = (Instant::now(), rig.meter());
        let callers: Vec<_> = (0..CALLERS)
            .map(|n| {
                let (world, tokens, host) = (self.clone(), tokens.clone(), rig.host.address);
                tokio::spawn(async move {
                    let (mut dice, mut caller) = (Dice(n as u64 + 1), Caller::connect(host).await);
                    let (mut latencies, mut wrong) = (Latencies::default(), 0);
                    while start.elapsed() < time {
                        let person = dice.below(tokens.len());
                        let path = path(&world, &mut dice, person);
                        let asked = Instant::now();
                        wrong += u64::from(!caller.get(&path, &tokens[person]).await);
                        latencies.add(asked.elapsed());
                    }
                    (latencies, wrong)
                })
            })
            .collect();
        let (mut latencies, mut wrong) = (Latencies::default(), 0);
        for caller in callers {
            let (mine, refused) = caller.await.expect("a caller ends");
            latencies.merge(mine);
            wrong += refused;
        }
        let (took, count) = (start.elapsed().as_secs_f64(), latencies.count() as f64);
        Figures { per_second: Some(count / took), spread: latencies.spread(), wrong, ..Figures::default() }
            .with_cpu(meter.read(), count)
    }

    /// One of a person's twenty conversations: the inverse of the generator's rule.
    fn conversation_of(&self, dice: &mut Dice, person: usize) -> &str {
        let people = self.size.people();
        let owner = (person + people * 10 - dice.below(10) * 37) % people;
        &self.conversations[owner + people * dice.below(2)]
    }

    fn page(&self, dice: &mut Dice, person: usize) -> String {
        let before = dice.below(self.size.messages) + 1;
        let conversation = self.conversation_of(dice, person);
        format!("/api/v1/conversations/{conversation}/messages?limit=50&before_seq={before}")
    }

    fn search_one(&self, dice: &mut Dice, person: usize) -> String {
        let words = self.two_words(dice);
        format!("/api/v1/conversations/{}/search?q={words}", self.conversation_of(dice, person))
    }

    fn search_mine(&self, dice: &mut Dice, _: usize) -> String {
        format!("/api/v1/search?q={}", self.two_words(dice))
    }

    fn list(&self, _: &mut Dice, _: usize) -> String {
        "/api/v1/conversations".to_owned()
    }

    /// One word by its frequency, and, every other time, a second one.
    fn two_words(&self, dice: &mut Dice) -> String {
        let mut word = || {
            let share = dice.below(1_000_000) as f64 / 1_000_000.0;
            self.words[(share.powi(3) * WORDS as f64) as usize].bytes().fold(String::new(), |text, byte| {
                if byte.is_ascii_alphanumeric() {
                    text + &char::from(byte).to_string()
                } else {
                    text + &format!("%{byte:02X}")
                }
            })
        };
        let (first, second) = (word(), word());
        if dice.below(2) == 0 { first } else { format!("{first}%20{second}") }
    }

    fn place(&self) -> String {
        format!(
            "\\set person random(0, {last})\n\\set place random(0, 9)\n\\set half random(0, 1)\n\
             \\set c (:person + {people} * 10 - :place * 37) % {people} + {people} * :half\n\
             select id as conversation from public.generated_conversations where c = :c \\gset\n",
            last = self.size.people() - 1,
            people = self.size.people(),
        )
    }

    fn page_script(&self) -> String {
        const PAGE: &str = include_str!("../../handlers/history/src/sql/page.sql");
        let page = PAGE.replace("{direction}", "desc").replace("{beside_texts}", "");
        let values = [":conversation", "'person-' || :person", ":before", "null", "null", "50", "3145728"];
        format!(
            "{}\\set before random(1, {})\n{};\n",
            self.place(),
            self.size.messages,
            filled(&page, &values)
        )
    }

    fn search_script(&self, in_one: bool) -> String {
        const FIND: &str = include_str!("../../handlers/search/src/sql/find.sql");
        let (me, room) = ("'person-' || :person", if in_one { ":conversation" } else { "null" });
        let word = |share: &str| {
            format!(
                "(select word from public.generated_words where n = 1 + floor(power(:{share} / 1000000.0, 3) * {WORDS})::int)"
            )
        };
        format!(
            "{place}\\set a random(0, 999999)\n\\set b random(0, 999999)\n\\set two random(0, 1)\n\
             select {a} || case when :two = 1 then ' ' || {b} else '' end as words \\gset\n\
             {find};\n",
            place = self.place(),
            a = word("a"),
            b = word("b"),
            find = filled(FIND, &[me, room, ":words::text", "200", "100", "20"]),
        )
    }

    fn list_script(&self) -> String {
        // After the warm-up, order and counts come from Redis, and this is the only statement for Postgres.
        const MEMBERSHIPS: &str = include_str!("../../handlers/lists/src/sql/memberships.sql");
        let mine = "(select ids from public.generated_lists where n = :person)";
        let memberships = filled(MEMBERSHIPS, &["'person-' || :person", mine]);
        format!("\\set person random(0, {})\n{memberships};\n", self.size.people() - 1)
    }
}

/// A connection that is kept open, as clients do.
struct Caller {
    sender: SendRequest<Empty<Bytes>>,
}

impl Caller {
    async fn connect(host: SocketAddr) -> Self {
        let stream = TcpStream::connect(host).await.expect("the host listens");
        stream.set_nodelay(true).expect("a socket");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        Self { sender }
    }

    /// Whether the answer is right.
    async fn get(&mut self, path: &str, token: &str) -> bool {
        let request = Request::get(path)
            .header("host", "load")
            .header("authorization", format!("Bearer {token}"))
            .body(Empty::new())
            .expect("a request");
        let Ok(answer) = self.sender.send_request(request).await else { return false };
        let status = answer.status();
        answer.into_body().collect().await.is_ok() && status == 200
    }
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}
