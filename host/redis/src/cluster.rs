//! A Redis Cluster: which server has which keys, and a connection to each server. A command goes to the
//! server of its first key. The commands of a pipeline go to all servers concerned at once. When a server
//! answers that a key is on another server, the command is sent there. Messages of the bus may be published
//! to any server, because a cluster forwards them to all of its servers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{Cmd, ConnectionAddr, ConnectionInfo, Value};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::endpoint::{RedisEndpoint, once};
use super::fault::Fault;
use super::keyspace::Keyspace;
use super::link::{Health, Link, batch};
use super::{keys, packed, spawn_tasks};
use switchboard_contract::redis::Error;
use switchboard_core::limits;

const SLOTS: u16 = 16_384;
pub(super) struct Cluster(Arc<Shared>);

struct Shared {
    seeds: Vec<ConnectionInfo>,
    table: ArcSwap<Table>,
    servers: Mutex<HashMap<String, Server>>,
    keyspace: Keyspace,
    /// Notified when the table was found to be wrong.
    doubted: Notify,
}

/// The server of each range of slots, by the last slot of the range.
#[derive(Default)]
struct Table(BTreeMap<u16, String>);

struct Server {
    link: Arc<Link>,
    /// A hash tag whose slot this server has. The guard key of the server uses it.
    tag: watch::Sender<String>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Table {
    fn server_of(&self, slot: u16) -> Option<&String> {
        self.0.range(slot..).next().map(|(_, server)| server)
    }

    /// Returns the first hash tag `{n}` whose slot the server has.
    fn tag_of(&self, server: &str) -> String {
        let tags = (0..u32::from(SLOTS)).map(|number| format!("{{{number}}}"));
        let mut own =
            tags.filter(|tag| self.server_of(slot_of_key(tag)).is_some_and(|named| named == server));
        own.next().unwrap_or_else(|| super::GUARD_TAG.to_owned())
    }
}

/// The slot of a command. None: any server will do.
type Slot = Option<u16>;

/// A command with its index among all commands, and the server that it is sent to.
struct RoutedCommand {
    index: usize,
    to: String,
    /// Send ASKING first, because the server is only about to get the key.
    asking: bool,
}

impl Cluster {
    /// Starts the task that keeps the table. The task ends with the process, or with its handle.
    pub(super) fn start(
        seeds: Vec<ConnectionInfo>,
        state: Arc<Link>,
        keyspace: Keyspace,
    ) -> (Self, JoinHandle<()>) {
        let shared = Arc::new(Shared {
            seeds,
            table: ArcSwap::default(),
            servers: Mutex::default(),
            keyspace,
            doubted: Notify::new(),
        });
        let task = tokio::spawn(shared.clone().keep_table(state));
        (Self(shared), task)
    }

    /// Runs the commands and returns a reply for each, in their order. An error of a server is a reply too.
    pub(super) async fn run(
        &self,
        commands: &[(Slot, Cmd)],
        generation: i64,
        has_script: bool,
        deadline: Instant,
    ) -> Result<Vec<Value>, Error> {
        let of = (generation, has_script);
        let mut replies: Vec<Option<Value>> = commands.iter().map(|_| None).collect();
        let mut routed: Vec<RoutedCommand> = Vec::new();
        for (index, (slot, _)) in commands.iter().enumerate() {
            routed.push(RoutedCommand { index, to: self.0.server_of(*slot)?, asking: false });
        }
        for _ in 0..limits::REDIS_REDIRECTS_MAX {
            let mut by_server: BTreeMap<String, Vec<RoutedCommand>> = BTreeMap::new();
            routed
                .drain(..)
                .for_each(|command| by_server.entry(command.to.clone()).or_default().push(command));
            let sent = by_server
                .into_iter()
                .map(|(server, routed)| self.send(server, routed, commands, of, deadline));
            for answered in join_all(sent).await {
                for (command, reply) in answered? {
                    match redirect(&reply) {
                        // A script can return a made-up redirect. The node sends its password only to servers
                        // that a table named.
                        Some((to, _)) if !self.0.knows(&to) => {
                            self.0.doubted.notify_one();
                            return Err(Error::Unavailable);
                        }
                        Some((to, asking)) => {
                            if !asking {
                                self.0.doubted.notify_one();
                            }
                            routed.push(RoutedCommand { index: command.index, to, asking });
                        }
                        // The keys of one command are on two servers while their slot moves.
                        None if is_moving(&reply) => return Err(Error::Unavailable),
                        None => replies[command.index] = Some(reply),
                    }
                }
            }
            if routed.is_empty() {
                return Ok(replies.into_iter().flatten().collect());
            }
            routed.sort_by_key(|command| command.index);
        }
        Err(Error::Unavailable)
    }

    /// Returns the links to all servers.
    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        let named: BTreeSet<String> = self.0.table.load().0.values().cloned().collect();
        named.iter().map(|server| self.0.link_to(server)).collect()
    }

    /// Returns the link to any server that is connected.
    pub(super) fn any_link(&self) -> Result<Arc<Link>, Error> {
        self.0.server_of(None).map(|server| self.0.link_to(&server))
    }

    async fn send(
        &self,
        server: String,
        routed: Vec<RoutedCommand>,
        commands: &[(Slot, Cmd)],
        (generation, has_script): (i64, bool),
        deadline: Instant,
    ) -> Result<Vec<(RoutedCommand, Value)>, Error> {
        let mut sent = Vec::with_capacity(routed.len());
        for command in &routed {
            if command.asking {
                sent.push(packed(&["ASKING"]));
            }
            sent.push(commands[command.index].1.clone());
        }
        let batch = batch(sent, generation, has_script);
        let answered = self.0.link_to(&server).send(batch, deadline).await;
        if answered == Err(Error::Unavailable) {
            // The server that took over is in a newer table.
            self.0.doubted.notify_one();
        }
        let mut replies = answered?.into_iter();
        let reply_of = |command: RoutedCommand| {
            if command.asking {
                replies.next();
            }
            let reply = replies.next()?;
            Some((command, reply))
        };
        Ok(routed.into_iter().map_while(reply_of).collect())
    }
}

impl Shared {
    fn server_of(&self, slot: Slot) -> Result<String, Error> {
        let table = self.table.load();
        let server = match slot {
            Some(slot) => table.server_of(slot),
            None => table.0.values().find(|server| self.link_to(server).is_up()),
        };
        server.cloned().ok_or(Error::Unavailable)
    }

    /// True when a table has named the server.
    fn knows(&self, server: &str) -> bool {
        self.servers.lock().contains_key(server)
    }

    fn link_to(&self, server: &str) -> Arc<Link> {
        let mut servers = self.servers.lock();
        if let Some(known) = servers.get(server) {
            return known.link.clone();
        }
        let link = Arc::new(Link::default());
        if let (Some((host, port)), Some(seed)) = (server.rsplit_once(':'), self.seeds.first())
            && let Ok(port) = port.parse()
        {
            let info = seed.clone().set_addr(ConnectionAddr::Tcp(host.to_owned(), port));
            let (tag, tags) = watch::channel(self.table.load().tag_of(server));
            let tasks = spawn_tasks(link.clone(), RedisEndpoint::Address(info), self.keyspace.clone(), tags);
            servers.insert(server.to_owned(), Server { link: link.clone(), tag, tasks });
        }
        link
    }

    /// Moves each guard to a slot that its server has in the table.
    fn place_guards(&self, table: &Table) {
        let servers = self.servers.lock();
        for (name, server) in servers.iter() {
            let tag = table.tag_of(name);
            server.tag.send_if_modified(|before| {
                let is_new = *before != tag;
                *before = tag;
                is_new
            });
        }
    }

    /// The health of the cluster. It is writable when every server is a writable primary, and takes commands
    /// when at least one server does.
    fn health(&self) -> Health {
        let named: BTreeSet<String> = self.table.load().0.values().cloned().collect();
        let each: Vec<_> =
            named.iter().map(|server| (server, self.link_to(server).health.borrow().clone())).collect();
        if !each.iter().any(|(_, health)| health.takes_commands()) {
            let first = each.first().and_then(|(_, health)| health.writable().err());
            return Health::Away(first.unwrap_or_else(|| "no server of the cluster answers".to_owned()));
        }
        let refusing = each.iter().find_map(|(server, health)| Some((server, health.writable().err()?)));
        refusing.map_or(Health::Writable, |(server, why)| Health::Full(format!("{server}: {why}")))
    }

    async fn keep_table(self: Arc<Self>, state: Arc<Link>) {
        loop {
            let table = self.ask_for_table().await;
            if let Some(table) = table {
                let named: BTreeSet<String> = table.0.values().cloned().collect();
                // Store the table first: a new server finds the slot of its guard in it.
                self.table.store(Arc::new(table));
                named.iter().for_each(|server| drop(self.link_to(server)));
                self.place_guards(&self.table.load());
                // A server that lost all its slots is removed, and its connection closed.
                let mut servers = self.servers.lock();
                servers.retain(|server, _| named.contains(server));
                drop(servers);
            }
            let health = self.health();
            let is_up = health.takes_commands();
            state.set(None, health);
            // Many commands notice a wrong table at once, and the cluster needs a moment to make a new one.
            tokio::time::sleep(limits::REDIS_BACKOFF_MIN * 2).await;
            let wait = if is_up { limits::REDIS_SLOTS_READ_EVERY } else { limits::REDIS_BACKOFF_MIN * 5 };
            let _ = timeout(wait, self.doubted.notified()).await;
        }
    }

    /// Reads the table from the first server that answers: first the known servers, then the seeds.
    async fn ask_for_table(&self) -> Option<Table> {
        let known: BTreeSet<String> = self.table.load().0.values().cloned().collect();
        let seed = self.seeds.first()?;
        let known = known.into_iter().filter_map(|server| {
            let (host, port) = server.rsplit_once(':')?;
            Some(seed.clone().set_addr(ConnectionAddr::Tcp(host.to_owned(), port.parse().ok()?)))
        });
        for server in known.chain(self.seeds.iter().cloned()) {
            let mut command = redis::cmd("CLUSTER");
            command.arg("SLOTS");
            let asked = timeout(limits::REDIS_TOPOLOGY_WAIT, once::<Value>(&server, &command)).await;
            if let Ok(Some(reply)) = asked
                && let Some(table) = table_of(&reply, &server)
            {
                return Some(table);
            }
        }
        None
    }
}

/// Parses `[[first, last, [host, port, …], replicas…], …]`. A host without a name is the server that was
/// asked.
fn table_of(reply: &Value, asked: &ConnectionInfo) -> Option<Table> {
    let Value::Array(ranges) = reply else { return None };
    let mut table = BTreeMap::new();
    for range in ranges {
        let Value::Array(range) = range else { return None };
        let [Value::Int(_), Value::Int(last), Value::Array(primary), ..] = &range[..] else { return None };
        let [host, Value::Int(port), ..] = &primary[..] else { return None };
        let host = match (host, asked.addr()) {
            (Value::BulkString(host), _) if !host.is_empty() => String::from_utf8(host.clone()).ok()?,
            (_, ConnectionAddr::Tcp(host, _)) => host.clone(),
            _ => return None,
        };
        table.insert(u16::try_from(*last).ok()?, format!("{host}:{port}"));
    }
    (!table.is_empty()).then_some(Table(table))
}

/// Returns the server that a redirect names. The flag is true when the key is only about to be there.
fn redirect(reply: &Value) -> Option<(String, bool)> {
    let Value::ServerError(error) = reply else { return None };
    let asking = match error.code() {
        "MOVED" => false,
        "ASK" => true,
        _ => return None,
    };
    let (_, to) = error.details()?.split_once(' ')?;
    Some((to.trim().to_owned(), asking))
}

fn is_moving(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if Fault::of(error) == Fault::Moved)
}

/// Returns the slot of a command's first key. All other keys must be in the same slot, which the server
/// checks.
pub(super) fn slot_of_command(args: &[impl AsRef<str>]) -> Slot {
    let args: Vec<String> = args.iter().map(|word| word.as_ref().to_owned()).collect();
    let keys = keys::of(&args).ok()?;
    keys.iter().next().map(slot_of_key)
}

/// CRC16 (XMODEM) of the key, or of the text in its first braces.
pub(super) fn slot_of_key(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    let crc =
        hashed.bytes().fold(0u16, |crc, byte| {
            (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
            })
        });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_cluster_keyslot() {
        // The expected slots are from `CLUSTER KEYSLOT`.
        for (key, slot) in
            [("foo", 12182), ("123456789", 12739), ("", 0), ("{foo}:bar", 12182), ("a{foo}{b}", 12182)]
        {
            assert_eq!(slot_of_key(key), slot, "{key}");
        }
        assert_eq!(slot_of_key("{}foo"), slot_of_key("{}foo"));
        assert_ne!(slot_of_key("{}foo"), slot_of_key("foo"));
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(slot_of_command(&words("GET foo")), Some(12182));
        assert_eq!(slot_of_command(&words("XREAD COUNT 1 STREAMS foo 0")), Some(12182));
        assert_eq!(slot_of_command(&words("PING")), None);
    }

    #[test]
    fn a_table_names_a_server_for_every_slot() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let range = |first, last, host, port| {
            let primary = Value::Array(vec![text(host), Value::Int(port), text("id")]);
            Value::Array(vec![Value::Int(first), Value::Int(last), primary])
        };
        let Ok(RedisEndpoint::Address(asked)) = RedisEndpoint::parse("redis://10.0.0.9:1") else {
            panic!("a URL")
        };
        let reply = Value::Array(vec![range(0, 99, "10.0.0.1", 7), range(100, 16383, "", 8)]);
        let table = table_of(&reply, &asked).unwrap();
        let of = |slot: u16| table.0.range(slot..).next().map(|(_, server)| server.as_str());
        assert_eq!((of(0), of(99), of(100)), (Some("10.0.0.1:7"), Some("10.0.0.1:7"), Some("10.0.0.9:8")));
        for nonsense in [Value::Nil, Value::Array(vec![]), Value::Array(vec![Value::Int(1)])] {
            assert!(table_of(&nonsense, &asked).is_none());
        }
    }
}
