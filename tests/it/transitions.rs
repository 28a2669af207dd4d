//! No order of connects, ends, reports, sweeps and dead nodes causes a wrong announcement: `presence.lua`,
//! driven at random against a real Redis, beside a model that knows the really connected people.
//!
//! An announcement is wrong if it reports a person as offline who is connected, or was within the grace
//! period. When all work is done, the last announcement must be the present status. Announcements may be
//! delayed, lost, or written twice.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use switchboard_tests::services::Redis;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../handlers/chat/scripts/presence.lua");
const DUE: &str = "{p:00}:due";
const IDLE_MS: u64 = 300_000;
const GRACE_MS: u64 = 5_000;
const LEASE_MS: u64 = 90_000;
const NODE_LEASE_MS: u64 = 9_000;
/// The interval of the product.
const HEARTBEAT_MS: u64 = 3_000;
/// Maximum duration of a call that announces; Postgres accepts nothing of it afterwards.
const CALL_MS: u64 = 5_000;
const PING_MS: u64 = 30_000;

#[derive(Clone, Debug)]
enum Step {
    Open {
        user: usize,
        node: usize,
    },
    /// One of the open connections ends, and its node reports it.
    Close {
        which: usize,
    },
    /// One of them acts, or only pings; the report comes at once or some steps later.
    Touch {
        which: usize,
        active: bool,
        late: bool,
    },
    /// A person sets their status.
    Set {
        which: usize,
        status: &'static str,
    },
    /// The node dies with all its connections, without a report.
    Die {
        node: usize,
    },
    Pass {
        ms: u64,
    },
    Sweep,
    /// Delivers an announcement: the oldest one under way, or the newest.
    Write {
        newest: bool,
    },
    /// Loses an announcement: its node died, or Postgres was unavailable.
    Lose,
    /// Redis is emptied; every node uploads its connections.
    Empty,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2usize, 0..2usize).prop_map(|(user, node)| Step::Open { user, node }),
        4 => any::<usize>().prop_map(|which| Step::Close { which }),
        3 => (any::<usize>(), any::<bool>(), any::<bool>())
            .prop_map(|(which, active, late)| Step::Touch { which, active, late }),
        2 => (any::<usize>(), prop::sample::select(vec!["online", "away", "busy"]))
            .prop_map(|(which, status)| Step::Set { which, status }),
        1 => (0..2usize).prop_map(|node| Step::Die { node }),
        4 => prop::sample::select(vec![1, 100, 300, 999, 2_500, 5_000, 8_000, 31_000, 310_000])
            .prop_map(|ms| Step::Pass { ms }),
        5 => Just(Step::Sweep),
        6 => any::<bool>().prop_map(|newest| Step::Write { newest }),
        1 => Just(Step::Lose),
        1 => Just(Step::Empty),
    ]
}

#[derive(Clone, Debug)]
struct Change {
    user: String,
    status: String,
    version: u64,
    /// The time of its begin.
    since: u64,
}

struct Link {
    id: String,
    user: String,
    node: String,
    last_ping: u64,
}

/// The real state, and the announcements.
struct World {
    redis: redis::Connection,
    script: String,
    now: u64,
    links: Vec<Link>,
    made: usize,
    /// Nodes restart under other names.
    nodes: [usize; 2],
    /// The last time of a connection of each person. For people of a dead node: the time of its death.
    here: BTreeMap<String, u64>,
    late: Vec<(String, String, String, Option<u64>)>,
    on_the_way: Vec<Change>,
    /// Postgres keeps the newer version.
    announced: BTreeMap<String, (u64, String)>,
    young_until: u64,
    /// The time of the next check of the people that Postgres lists as present.
    account_at: Option<u64>,
    next_heartbeat: u64,
    /// Whether the partition is in the set of the busy ones. A sweep reads only those.
    is_busy: bool,
}

impl World {
    fn new(server: &Redis, script: &str) -> Self {
        let client = redis::Client::open(server.url_at(None)).expect("a URL");
        let mut redis = client.get_connection().expect("Redis answers");
        redis::cmd("FLUSHALL").exec(&mut redis).expect("flushed");
        Self {
            redis,
            script: script.to_owned(),
            now: 1_763_000_000_000,
            links: Vec::new(),
            made: 0,
            nodes: [0, 1],
            here: BTreeMap::new(),
            late: Vec::new(),
            on_the_way: Vec::new(),
            announced: BTreeMap::new(),
            young_until: 0,
            account_at: None,
            next_heartbeat: 0,
            is_busy: false,
        }
    }

    fn run<T: redis::FromRedisValue>(&mut self, operation: &str, args: &[&str]) -> T {
        let mut command = redis::cmd("EVAL");
        command.arg(&self.script).arg(1).arg(DUE).arg(operation).arg(self.now).arg(IDLE_MS).arg(args);
        command.query(&mut self.redis).unwrap_or_else(|error| panic!("{operation}: {error}"))
    }

    fn announce(&mut self, flat: Vec<String>) {
        for change in flat.chunks(4) {
            let (user, status) = (change[0].clone(), change[1].clone());
            if status == "offline" {
                let gone = self.here.get(&user).copied().unwrap_or(0);
                let is_here = self.links.iter().any(|link| link.user == user);
                assert!(!is_here, "{user} is announced to be gone, and is here");
                assert!(gone + GRACE_MS <= self.now, "{user} is announced to be gone within the grace");
            }
            let version = change[2].parse().expect("a version");
            self.on_the_way.push(Change { user, status, version, since: self.now });
        }
    }

    fn node(&self, node: usize) -> String {
        format!("node-{}", self.nodes[node])
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Open { user, node } => {
                self.made += 1;
                let link = Link {
                    id: format!("c{}", self.made),
                    user: format!("user {user}"),
                    node: self.node(*node),
                    last_ping: self.now,
                };
                let (lease, node_lease) = (self.now + LEASE_MS, self.now + NODE_LEASE_MS);
                let (lease, node_lease) = (lease.to_string(), node_lease.to_string());
                let (_, announced, was_empty): (i64, Vec<String>, i64) = self
                    .run("open", &[&link.id, &link.node, &link.user, "test", &lease, &node_lease, "3600000"]);
                self.is_busy |= was_empty == 1;
                self.links.push(link);
                self.announce(announced);
            }
            Step::Close { which } => {
                if self.links.is_empty() {
                    return;
                }
                let link = self.links.remove(which % self.links.len());
                self.leaves(&link);
                let grace = (self.now + GRACE_MS).to_string();
                let (was_empty,): (i64,) =
                    self.run("close", &[&link.id, &link.node, &link.user, &grace, "0"]);
                self.is_busy |= was_empty == 1;
            }
            Step::Touch { which, active, late } => {
                let count = self.links.len().max(1);
                let now = self.now;
                let Some(link) = self.links.get_mut(which % count) else { return };
                link.last_ping = now;
                let touch = (link.node.clone(), link.id.clone(), link.user.clone(), active.then_some(now));
                if *late { self.late.push(touch) } else { self.report(touch) }
            }
            Step::Set { which, status } => {
                let count = self.links.len().max(1);
                let Some(link) = self.links.get(which % count) else { return };
                let user = link.user.clone();
                let announced = self.run("set", &[&user, status]);
                self.announce(announced);
            }
            Step::Die { node } => {
                let name = self.node(*node);
                let (dead, alive) = std::mem::take(&mut self.links).into_iter().partition(|l| l.node == name);
                self.links = alive;
                let dead: Vec<Link> = dead;
                dead.iter().for_each(|link| self.leaves(link));
                self.late.retain(|(from, ..)| *from != name);
                self.nodes[*node] += 2;
            }
            Step::Pass { ms } => self.pass(*ms),
            Step::Sweep => self.sweep(),
            Step::Write { newest } => {
                if self.on_the_way.is_empty() {
                    return;
                }
                let place = if *newest { self.on_the_way.len() - 1 } else { 0 };
                let change = self.on_the_way.remove(place);
                self.write(&change);
            }
            Step::Lose => {
                self.on_the_way.pop();
            }
            Step::Empty => {
                redis::cmd("FLUSHALL").exec(&mut self.redis).expect("flushed");
                self.is_busy = false;
                // A restart takes at least a millisecond.
                self.now += 1;
                self.young_until = self.now + NODE_LEASE_MS;
                self.heartbeat();
                let everybody: Vec<_> = self
                    .links
                    .iter()
                    .map(|link| (link.node.clone(), link.id.clone(), link.user.clone(), None))
                    .collect();
                everybody.into_iter().for_each(|touch| self.report(touch));
                self.account_at = Some(self.now + LEASE_MS);
            }
        }
    }

    fn leaves(&mut self, link: &Link) {
        if !self.links.iter().any(|other| other.user == link.user) {
            self.here.insert(link.user.clone(), self.now);
        }
    }

    fn report(&mut self, (node, id, user, active): (String, String, String, Option<u64>)) {
        let (lease, node_lease) = (self.now + LEASE_MS, self.now + NODE_LEASE_MS);
        let (lease, node_lease) = (lease.to_string(), node_lease.to_string());
        let active = active.map_or("-".to_owned(), |ms| ms.to_string());
        let announced = self.run("renew", &[&node, &lease, &node_lease, &id, &user, &active]);
        self.is_busy = true;
        self.announce(announced);
    }

    /// Whether it announced anything new.
    fn write(&mut self, change: &Change) -> bool {
        let known = self.announced.get(&change.user).map_or(0, |(version, _)| *version);
        let is_new = known < change.version;
        if is_new {
            self.announced.insert(change.user.clone(), (change.version, change.status.clone()));
        }
        let [version, known] = [change.version, known.max(change.version)].map(|version| version.to_string());
        self.run::<Vec<String>>("settle", &[&change.user, &change.status, &version, &known]);
        is_new
    }

    fn heartbeat(&mut self) {
        for node in [self.node(0), self.node(1)] {
            let ends = self.now + NODE_LEASE_MS;
            redis::cmd("ZADD").arg("nodes").arg(ends).arg(node).exec(&mut self.redis).unwrap();
        }
    }

    /// Advances the time, and runs the periodic work of the nodes.
    fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            let ping = self.links.iter().map(|link| link.last_ping + PING_MS).min().unwrap_or(u64::MAX);
            let next = self.next_heartbeat.min(ping);
            if next > end {
                break;
            }
            self.now = next.max(self.now);
            if self.next_heartbeat <= self.now {
                self.heartbeat();
                self.next_heartbeat = self.now + HEARTBEAT_MS;
            }
            let now = self.now;
            let due = self.links.iter_mut().filter(|link| link.last_ping + PING_MS <= now);
            let pings: Vec<_> = due
                .map(|link| {
                    link.last_ping = now;
                    (link.node.clone(), link.id.clone(), link.user.clone(), None)
                })
                .collect();
            pings.into_iter().for_each(|touch| self.report(touch));
        }
        self.now = end;
        self.on_the_way.retain(|change| change.since + CALL_MS > end);
        std::mem::take(&mut self.late).into_iter().for_each(|touch| self.report(touch));
    }

    fn sweep(&mut self) {
        if self.account_at.is_some_and(|at| at <= self.now) {
            self.account_at = None;
            self.account();
        }
        if !self.is_busy {
            return;
        }
        let alive: BTreeSet<String> = redis::cmd("ZRANGEBYSCORE")
            .arg("nodes")
            .arg(self.now)
            .arg("+inf")
            .query(&mut self.redis)
            .unwrap();
        let late: Vec<String> = redis::cmd("ZRANGEBYSCORE")
            .arg("{p:00}:nodes")
            .arg("-inf")
            .arg(self.now)
            .query(&mut self.redis)
            .unwrap();
        for dead in late.iter().filter(|node| !alive.contains(*node)) {
            self.run::<Vec<String>>("reap", &[dead, &NODE_LEASE_MS.to_string()]);
        }
        let young = if self.now < self.young_until { "1" } else { "0" };
        let announced = self.run("sweep", &["500", &LEASE_MS.to_string(), young]);
        self.announce(announced);
        let sets = ["due", "grace", "idle", "changed"].map(|set| format!("{{p:00}}:{set}"));
        self.is_busy = redis::cmd("EXISTS").arg(&sets).query::<i64>(&mut self.redis).unwrap() > 0;
    }

    /// Checks the people again that Postgres lists as present.
    fn account(&mut self) {
        self.is_busy = true;
        for (user, (_, status)) in &self.announced {
            if status != "offline" {
                redis::cmd("ZADD")
                    .arg("{p:00}:grace")
                    .arg("NX")
                    .arg(self.now)
                    .arg(user)
                    .exec(&mut self.redis)
                    .unwrap();
            }
        }
    }

    /// Only time, sweeps and writes go on: then every announcement is right.
    fn comes_to_rest(&mut self) {
        for _ in 0..40 {
            self.pass(3_000);
            self.sweep();
            for change in std::mem::take(&mut self.on_the_way) {
                self.write(&change);
            }
        }
        for user in ["user 0", "user 1"] {
            let is_here = self.links.iter().any(|link| link.user == user);
            let announced = self.announced.get(user).map_or("offline", |(_, status)| status);
            assert_eq!(announced != "offline", is_here, "{user} was last announced to be {announced}");
        }
    }
}

fn script() -> String {
    std::fs::read_to_string(SCRIPT).expect("the script")
}

/// Runs random orders against this script. Returns the first wrong announcement, if any.
fn lie(server: &Redis, script: &str, config: Config) -> Option<String> {
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..config });
    let outcome = runner.run(&prop::collection::vec(step(), 1..60), |steps| {
        let mut world = World::new(server, script);
        steps.iter().for_each(|step| world.step(step));
        world.comes_to_rest();
        Ok(())
    });
    outcome.err().map(|failure| failure.to_string())
}

#[tokio::test]
async fn no_order_of_events_announces_a_wrong_status() {
    let server = Redis::start().await;
    let announced = tokio::task::spawn_blocking(move || lie(&server, &script(), Config::default()));
    assert_eq!(announced.await.unwrap(), None);
}

/// The check must be able to fail: each of these is a bug that the script had or could have, and it causes a
/// wrong announcement.
#[tokio::test]
async fn every_seeded_bug_announces_a_wrong_status() {
    let server = Redis::start().await;
    let bugs = [
        (
            "a lease is not renewed",
            "redis.call('ZADD', DUE, ARGV[5], node .. ' ' .. connection .. ' ' .. user)\n",
            "",
        ),
        ("an old announcement settles a newer one", "if known[1] ~= ARGV[i + 2] then", "if false then"),
        ("there is no grace", "math.max(grace_ends, tonumber(known[2] or '0'))", "now"),
        ("versions stand still", "math.max(tonumber(version) + 1, now)", "tonumber(version)"),
        (
            "a user with another connection is offline",
            "connected[string.match(lease, '^%S+ %S+ (.*)$')] = true",
            "local _ = lease",
        ),
    ];
    tokio::task::spawn_blocking(move || {
        let script = script();
        let unnoticed = bugs.into_iter().filter(|(bug, right, wrong)| {
            assert_eq!(script.matches(right).count(), 1, "{bug}: the script has changed");
            let config = Config { max_shrink_iters: 0, ..Config::default() };
            lie(&server, &script.replace(right, wrong), config).is_none()
        });
        assert_eq!(unnoticed.map(|(bug, ..)| bug).collect::<Vec<_>>(), [""; 0]);
    })
    .await
    .unwrap();
}

/// Hundreds of leases end at once, as after the death of a node or a loss of Redis. The script then handles
/// them together, in one of two ways, by the number of leases that stand.
#[tokio::test]
async fn leases_that_end_together_make_exactly_their_users_offline() {
    const USERS: usize = 300;
    let server = Redis::start().await;
    tokio::task::spawn_blocking(move || {
        for (survivors, young, at_once) in [
            (0, false, USERS),
            (0, false, 70),
            (0, true, USERS),
            (20, false, USERS),
            (20, true, USERS),
            (280, false, USERS),
            (280, true, USERS),
        ] {
            let mut world = World::new(&server, &script());
            let (begin, lease_ms) = (world.now, LEASE_MS.to_string());
            let ends = |now: u64| [(now + LEASE_MS).to_string(), (now + NODE_LEASE_MS).to_string()];
            for n in 0..USERS {
                let (user, [lease, node_lease]) = (format!("user {n}"), ends(begin));
                // The survivors have a second connection, which is renewed.
                for id in [format!("a{n}"), format!("b{n}")].iter().take(1 + usize::from(n < survivors)) {
                    let open = [id, "node-0", &user, "test", &lease, &node_lease, "3600000"];
                    world.run::<(i64, Vec<String>, i64)>("open", &open);
                }
            }
            world.now = begin + 60_000;
            for n in 0..survivors {
                let [lease, node_lease] = ends(world.now);
                let renew = ["node-0", &lease, &node_lease, &format!("b{n}"), &format!("user {n}"), "-"];
                world.run::<Vec<String>>("renew", &renew);
            }
            for n in 0..USERS {
                let version = begin + 1_000;
                let settle = [&format!("user {n}"), "online", &version.to_string(), &version.to_string()];
                world.run::<Vec<String>>("settle", &settle);
            }
            world.now = begin + LEASE_MS + 1;
            let case = format!("{survivors} survivors, young: {young}, {at_once} at once");
            if young {
                let announced: Vec<String> = world.run("sweep", &["500", &lease_ms, "1"]);
                assert_eq!(announced, [""; 0], "{case}");
            }
            let mut offline = BTreeSet::new();
            for _ in 0..USERS.div_ceil(at_once) {
                let announced: Vec<String> = world.run("sweep", &[&at_once.to_string(), &lease_ms, "0"]);
                assert!(announced.len() <= 4 * at_once, "{case}");
                for change in announced.chunks(4) {
                    let (user, status, version, seen) = (&change[0], &change[1], &change[2], &change[3]);
                    assert_eq!((status.as_str(), seen.as_str()), ("offline", &*begin.to_string()), "{case}");
                    assert!(offline.insert(user.clone()), "{case}: {user} is announced twice");
                    world.run::<Vec<String>>("settle", &[user, status, version, version]);
                }
                world.now += 1_000;
            }
            let expected: BTreeSet<String> = (survivors..USERS).map(|n| format!("user {n}")).collect();
            assert_eq!(offline, expected, "{case}");
            let leases: Vec<String> = (0..USERS).map(|n| format!("{{p:00}}:leases:user {n}")).collect();
            let standing: usize = redis::cmd("EXISTS").arg(leases).query(&mut world.redis).unwrap();
            let due: usize = redis::cmd("ZCARD").arg(DUE).query(&mut world.redis).unwrap();
            let rest = ["grace", "changed"].map(|set| format!("{{p:00}}:{set}"));
            let rest: usize = redis::cmd("EXISTS").arg(&rest).query(&mut world.redis).unwrap();
            assert_eq!((standing, due, rest), (survivors, survivors, 0), "{case}");
        }
    })
    .await
    .unwrap();
}

/// Known cases, by name.
#[tokio::test]
async fn each_step_has_its_effect() {
    let server = Redis::start().await;
    tokio::task::spawn_blocking(move || {
        let mut world = World::new(&server, &script());
        // The announcements that Postgres accepts.
        let statuses = |world: &mut World| {
            let announced = std::mem::take(&mut world.on_the_way);
            let new = announced.into_iter().filter(|change| world.write(change));
            new.map(|change| change.status).collect::<Vec<_>>()
        };
        let settle = |world: &mut World| {
            world.pass(1_000);
            world.sweep();
        };
        world.step(&Step::Open { user: 0, node: 0 });
        assert_eq!(statuses(&mut world), ["online"]);
        // A second device belongs to the same user.
        world.step(&Step::Open { user: 0, node: 1 });
        world.step(&Step::Close { which: 0 });
        world.pass(6_000);
        world.sweep();
        assert!(statuses(&mut world).is_empty());
        // Pings do not count as activity; other frames do.
        world.pass(IDLE_MS - 6_001);
        world.sweep();
        assert!(statuses(&mut world).is_empty());
        settle(&mut world);
        assert_eq!(statuses(&mut world), ["away"]);
        world.pass(300);
        world.step(&Step::Touch { which: 0, active: true, late: false });
        assert_eq!(statuses(&mut world), ["online"]);
        // Busy lasts, with and without activity.
        world.pass(1_000);
        world.step(&Step::Set { which: 0, status: "busy" });
        assert_eq!(statuses(&mut world), ["busy"]);
        world.pass(IDLE_MS + 1_000);
        world.step(&Step::Touch { which: 0, active: true, late: false });
        world.sweep();
        assert!(statuses(&mut world).is_empty());
        // Several choices in a burst are announced once, with the last one.
        world.step(&Step::Set { which: 0, status: "away" });
        assert_eq!(statuses(&mut world), ["away"]);
        for status in ["busy", "online", "busy", "online"] {
            world.step(&Step::Set { which: 0, status });
        }
        assert!(statuses(&mut world).is_empty());
        settle(&mut world);
        assert_eq!(statuses(&mut world), ["online"]);
        // Away that was set by hand ends with the next action; the report of the setting itself does not
        // count.
        world.pass(1_000);
        world.step(&Step::Touch { which: 0, active: true, late: true });
        world.step(&Step::Set { which: 0, status: "away" });
        assert_eq!(statuses(&mut world), ["away"]);
        world.pass(300);
        world.sweep();
        assert!(statuses(&mut world).is_empty());
        world.step(&Step::Touch { which: 0, active: true, late: false });
        assert_eq!(statuses(&mut world), ["online"]);
        // A reloaded page, then a closed one.
        world.step(&Step::Close { which: 0 });
        world.pass(4_900);
        world.sweep();
        world.step(&Step::Open { user: 0, node: 0 });
        world.pass(6_000);
        world.sweep();
        assert!(statuses(&mut world).is_empty());
        world.step(&Step::Close { which: 0 });
        world.pass(5_100);
        world.sweep();
        assert_eq!(statuses(&mut world), ["offline"]);
        // The people of a dead node are offline within its lease and two sweeps.
        world.step(&Step::Open { user: 1, node: 1 });
        assert_eq!(statuses(&mut world), ["online"]);
        world.step(&Step::Die { node: 1 });
        world.pass(NODE_LEASE_MS + 1_000);
        world.sweep();
        assert_eq!(statuses(&mut world), ["offline"]);
    })
    .await
    .unwrap();
}
