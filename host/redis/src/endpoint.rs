//! The address of Redis: a fixed one, or the primary that sentinels name. It is looked up for each new
//! connection, so after a failover the next connection finds the new primary. While a connection is open, it
//! is looked up now and then whether the primary is still the same.

use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use switchboard_core::limits;
use tokio::time::timeout;

/// `redis-sentinel://[user:password@]host[:port],…/service[/database]`. The credentials are those of the
/// primary.
const SENTINELS: &str = "redis-sentinel://";
const SENTINEL_PORT: u16 = 26379;
/// `redis-cluster://[user:password@]host[:port],…`: some servers of the cluster. The node learns the others
/// from them.
const CLUSTER: &str = "redis-cluster://";
const REDIS_PORT: u16 = 6379;

#[derive(Clone, Debug)]
pub(super) enum RedisEndpoint {
    Address(ConnectionInfo),
    Sentinels(Sentinels),
    /// Any server of a cluster, for the connection that receives the messages of the bus.
    Cluster(Vec<ConnectionInfo>),
}

#[derive(Clone, Debug)]
pub(super) struct Sentinels {
    /// The sentinels, asked in this order.
    sentinels: Vec<ConnectionInfo>,
    service: String,
    /// The settings of the primary, except its address.
    server: ConnectionInfo,
}

impl RedisEndpoint {
    /// Parses `redis_url`. The error names the rule, but never the URL, which may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        if let Some(servers) = url.strip_prefix(CLUSTER) {
            let (credentials, hosts) = split(servers.trim_end_matches('/'));
            return Ok(Self::Cluster(listed(&credentials, hosts, REDIS_PORT)?));
        }
        let Some(rest) = url.strip_prefix(SENTINELS) else {
            return Ok(Self::Address(info(url)?));
        };
        let (authority, path) = rest.split_once('/').ok_or("the URL names no service after the sentinels")?;
        let (credentials, hosts) = split(authority);
        let (service, database) = path.split_once('/').unwrap_or((path, "0"));
        if service.is_empty() || database.parse::<u32>().is_err() {
            return Err(
                "a service must follow the sentinels, optionally with the number of a database".to_owned()
            );
        }
        Ok(Self::Sentinels(Sentinels {
            sentinels: listed("", hosts, SENTINEL_PORT)?,
            service: service.to_owned(),
            // The address is a placeholder; `find` replaces it.
            server: info(&format!("redis://{credentials}127.0.0.1/{database}"))?,
        }))
    }

    /// Returns the address to connect to now.
    pub(super) async fn find(&self) -> Result<ConnectionInfo, &'static str> {
        match self {
            Self::Address(info) => Ok(info.clone()),
            Self::Sentinels(sentinels) => sentinels.primary().await,
            Self::Cluster(servers) => {
                let ping = redis::cmd("PING");
                for server in servers {
                    if let Ok(Some(_)) =
                        timeout(limits::REDIS_TOPOLOGY_WAIT, once::<redis::Value>(server, &ping)).await
                    {
                        return Ok(server.clone());
                    }
                }
                Err("no server of the cluster answers")
            }
        }
    }

    /// True when the primary is known to be another server, or this server is not a primary any more. False
    /// when no sentinel answers.
    pub(super) async fn has_moved_from(&self, info: &ConnectionInfo) -> bool {
        match self {
            Self::Sentinels(sentinels) => sentinels.name_another_than(info).await,
            Self::Address(_) | Self::Cluster(_) => false,
        }
    }
}

impl Sentinels {
    /// Asks the sentinels for the primary. A sentinel may be behind, so a server counts only when it says
    /// itself that it is a primary.
    async fn primary(&self) -> Result<ConnectionInfo, &'static str> {
        let mut why = "no sentinel answers, or no sentinel knows the service";
        for sentinel in &self.sentinels {
            let Some(address) = self.ask(sentinel).await else { continue };
            let info = self.server.clone().set_addr(address);
            if is_primary(&info).await == Some(true) {
                return Ok(info);
            }
            why = "the server that the sentinels name is not a primary";
        }
        Err(why)
    }

    /// True when the sentinels name another primary. As in [`Self::primary`], the first sentinel that names a
    /// primary decides. Otherwise a connection would be closed only to be opened again.
    async fn name_another_than(&self, info: &ConnectionInfo) -> bool {
        // A replica answers and looks healthy, but takes no writes.
        if is_primary(info).await == Some(false) {
            return true;
        }
        for sentinel in &self.sentinels {
            match self.ask(sentinel).await {
                None => {}
                Some(address) if address == *info.addr() => return false,
                Some(address) => {
                    let other = self.server.clone().set_addr(address);
                    if is_primary(&other).await == Some(true) {
                        return true;
                    }
                }
            }
        }
        false
    }

    async fn ask(&self, sentinel: &ConnectionInfo) -> Option<ConnectionAddr> {
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.service);
        let asked = async { once::<Option<(String, u16)>>(sentinel, &command).await };
        let (host, port) =
            timeout(limits::REDIS_TOPOLOGY_WAIT, asked).await.ok()??.filter(|(host, _)| !host.is_empty())?;
        Some(ConnectionAddr::Tcp(host, port))
    }
}

/// Splits the authority into `user:password@` (empty when missing) and the hosts.
fn split(authority: &str) -> (String, &str) {
    match authority.rsplit_once('@') {
        Some((credentials, hosts)) => (format!("{credentials}@"), hosts),
        None => (String::new(), authority),
    }
}

fn listed(credentials: &str, hosts: &str, port: u16) -> Result<Vec<ConnectionInfo>, String> {
    let each = hosts.split(',').map(|host| {
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let port = if has_port { String::new() } else { format!(":{port}") };
        if host.is_empty() {
            Err("a host has no name".to_owned())
        } else {
            info(&format!("redis://{credentials}{host}{port}"))
        }
    });
    each.collect()
}

fn info(url: &str) -> Result<ConnectionInfo, String> {
    url.into_connection_info().map_err(|error| error.category().to_owned())
}

/// None when the server does not answer.
async fn is_primary(info: &ConnectionInfo) -> Option<bool> {
    let role = redis::cmd("ROLE");
    match timeout(limits::REDIS_TOPOLOGY_WAIT, once::<redis::Value>(info, &role)).await.ok()?? {
        redis::Value::Array(role) => match role.first()? {
            redis::Value::BulkString(word) => Some(word == b"master"),
            _ => None,
        },
        _ => None,
    }
}

/// Sends one command on a new connection.
pub(super) async fn once<T: redis::FromRedisValue>(info: &ConnectionInfo, command: &redis::Cmd) -> Option<T> {
    let settings = AsyncConnectionConfig::new().set_connection_timeout(Some(limits::REDIS_SILENCE_MAX));
    let client = Client::open(info.clone()).ok()?;
    let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await.ok()?;
    command.query_async(&mut connection).await.ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::super::tests::Private;
    use super::*;

    /// A sentinel that knows one primary and has no other sentinel to agree with.
    struct Sentinel {
        port: u16,
        process: Child,
        _directory: tempfile::TempDir,
    }

    impl Sentinel {
        fn of(primary: u16) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("sentinel.conf");
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(listener);
            let settings = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {primary} 9\n\
                 sentinel auth-pass main secret\n"
            );
            std::fs::write(&file, settings).unwrap();
            let process =
                Command::new("redis-server").arg(&file).arg("--sentinel").stdout(Stdio::null()).spawn();
            Self { port, process: process.expect("redis-server is installed"), _directory: directory }
        }
    }

    impl Drop for Sentinel {
        fn drop(&mut self) {
            self.process.kill().unwrap();
            self.process.wait().unwrap();
        }
    }

    fn behind(sentinels: &[&Sentinel]) -> RedisEndpoint {
        let hosts: Vec<_> = sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port)).collect();
        RedisEndpoint::parse(&format!("redis-sentinel://:secret@{}/main", hosts.join(","))).unwrap()
    }

    /// Waits until the sentinels listen.
    async fn found(endpoint: &RedisEndpoint) -> ConnectionInfo {
        loop {
            match endpoint.find().await {
                Ok(info) => return info,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    #[tokio::test]
    async fn only_a_server_that_says_it_is_the_primary_takes_over() {
        let (first, second, gone) = (Private::new(), Private::new(), Private::new());
        let (stale, of_first) = (Sentinel::of(gone.port), Sentinel::of(first.port));
        let of_second = Sentinel::of(second.port);
        drop(gone);
        first.say("PING").await;
        second.say("PING").await;
        let at = |info: &ConnectionInfo| info.addr().to_string();

        // The first sentinel is behind: it neither names a usable server nor makes the node leave one.
        let endpoint = behind(&[&stale, &of_first]);
        let info = found(&endpoint).await;
        assert_eq!(at(&info), format!("127.0.0.1:{}", first.port));
        assert!(!endpoint.has_moved_from(&info).await, "a sentinel that is behind made it flap");

        // Another real primary, once its sentinel listens. The node finds the same server again, so the
        // connection is stable.
        found(&behind(&[&of_second])).await;
        let other = behind(&[&stale, &of_second, &of_first]);
        let elsewhere = found(&other).await;
        assert_eq!(at(&elsewhere), format!("127.0.0.1:{}", second.port));
        assert!(other.has_moved_from(&info).await && !other.has_moved_from(&elsewhere).await);

        // The server is demoted, whatever the sentinels say. It still answers, but takes no writes.
        first.say(&format!("REPLICAOF 127.0.0.1 {}", second.port)).await;
        assert!(endpoint.has_moved_from(&info).await, "a replica passed for the primary");
        // When no sentinel answers, nothing is decided.
        drop(first);
        drop((stale, of_first));
        assert!(!endpoint.has_moved_from(&info).await);
    }

    #[test]
    fn sentinels_are_listed_with_a_service() {
        let Ok(RedisEndpoint::Sentinels(one)) =
            RedisEndpoint::parse("redis-sentinel://u:p%40ss@a:1,b,10.0.0.1:3/main/2")
        else {
            panic!("it has all it needs");
        };
        let addresses: Vec<_> = one.sentinels.iter().map(|info| info.addr().to_string()).collect();
        assert_eq!(addresses, ["a:1", "b:26379", "10.0.0.1:3"]);
        let login = one.server.redis_settings();
        assert_eq!((login.username(), login.password(), login.db()), (Some("u"), Some("p@ss"), 2));
        assert_eq!(one.service, "main");
        // A sentinel has its own users; here it has none.
        assert!(one.sentinels.iter().all(|info| info.redis_settings().password().is_none()));

        assert!(matches!(RedisEndpoint::parse("redis://127.0.0.1:6379/1"), Ok(RedisEndpoint::Address(_))));
        let Ok(RedisEndpoint::Cluster(servers)) = RedisEndpoint::parse("redis-cluster://:pw@a:1,b/") else {
            panic!("some servers are enough");
        };
        let addresses: Vec<_> = servers.iter().map(|info| info.addr().to_string()).collect();
        assert_eq!(addresses, ["a:1", "b:6379"]);
        assert!(servers.iter().all(|info| info.redis_settings().password() == Some("pw")));
        for bad in [
            "redis-sentinel://a:1",
            "redis-sentinel://a:1/",
            "redis-sentinel://a:1/main/x",
            "redis-sentinel:///main",
            "http://a",
            "secret",
        ] {
            let refused = RedisEndpoint::parse(bad).expect_err(bad);
            assert!(!refused.contains("secret"), "{refused}");
        }
    }
}
