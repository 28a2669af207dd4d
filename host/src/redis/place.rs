//! Where Redis is: at an address, or wherever sentinels say that the primary is now. It is asked for each time a connection
//! is made, so a failover is found by whoever connects again; and while one stands, now and then, whether it still is there.

use std::time::Duration;

use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use tokio::time::timeout;

use super::SILENCE_MAX;

/// `redis-sentinel://[user:password@]host[:port],…/service[/database]`; the credentials are the primary's.
const SENTINELS: &str = "redis-sentinel://";
const SENTINEL_PORT: u16 = 26379;
/// One that does not answer by then is passed over.
const SENTINEL_WAIT: Duration = Duration::from_secs(1);
/// `redis-cluster://[user:password@]host[:port],…`: some of its servers; the others are learnt from them.
const CLUSTER: &str = "redis-cluster://";
const REDIS_PORT: u16 = 6379;

#[derive(Clone, Debug)]
pub(super) enum Place {
    At(ConnectionInfo),
    Behind(Sentinels),
    /// Any server of a cluster, as far as it is for hearing the bus.
    Among(Vec<ConnectionInfo>),
}

#[derive(Clone, Debug)]
pub(super) struct Sentinels {
    /// Asked in this order.
    sentinels: Vec<ConnectionInfo>,
    service: String,
    /// The primary, but for its address.
    server: ConnectionInfo,
}

impl Place {
    /// The error names the rule; never the URL, which may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        if let Some(servers) = url.strip_prefix(CLUSTER) {
            let (credentials, hosts) = split(servers.trim_end_matches('/'));
            return Ok(Self::Among(listed(&credentials, hosts, REDIS_PORT)?));
        }
        let Some(rest) = url.strip_prefix(SENTINELS) else {
            return Ok(Self::At(info(url)?));
        };
        let (authority, path) = rest.split_once('/').ok_or("no service after the sentinels")?;
        let (credentials, hosts) = split(authority);
        let (service, database) = path.split_once('/').unwrap_or((path, "0"));
        if service.is_empty() || database.parse::<u32>().is_err() {
            return Err("after the sentinels come a service, and perhaps the number of a database".to_owned());
        }
        Ok(Self::Behind(Sentinels {
            sentinels: listed("", hosts, SENTINEL_PORT)?,
            service: service.to_owned(),
            // The address is a placeholder; `find` puts the real one in.
            server: info(&format!("redis://{credentials}127.0.0.1/{database}"))?,
        }))
    }

    /// Where to connect now.
    pub(super) async fn find(&self) -> Result<ConnectionInfo, &'static str> {
        match self {
            Self::At(info) => Ok(info.clone()),
            Self::Behind(sentinels) => sentinels.primary().await,
            Self::Among(servers) => {
                let ping = redis::cmd("PING");
                for server in servers {
                    if let Ok(Some(_)) = timeout(SENTINEL_WAIT, once::<redis::Value>(server, &ping)).await {
                        return Ok(server.clone());
                    }
                }
                Err("no server of the cluster answers")
            }
        }
    }

    /// Whether the primary is known to be elsewhere, or this server is none any more. Nobody who answers is no answer.
    pub(super) async fn has_moved_from(&self, info: &ConnectionInfo) -> bool {
        let Self::Behind(sentinels) = self else { return false };
        for sentinel in &sentinels.sentinels {
            if let Some(now) = sentinels.ask(sentinel).await {
                return now != *info.addr();
            }
        }
        false
    }
}

impl Sentinels {
    /// A sentinel may be behind: a server counts once it says itself that it is a primary.
    async fn primary(&self) -> Result<ConnectionInfo, &'static str> {
        let mut why = "no sentinel answers, or none knows the service";
        for sentinel in &self.sentinels {
            let Some(address) = self.ask(sentinel).await else { continue };
            let info = self.server.clone().set_addr(address);
            if is_primary(&info).await {
                return Ok(info);
            }
            why = "the server that the sentinels name is no primary";
        }
        Err(why)
    }

    async fn ask(&self, sentinel: &ConnectionInfo) -> Option<ConnectionAddr> {
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.service);
        let asked = async { once::<Option<(String, u16)>>(sentinel, &command).await };
        let (host, port) = timeout(SENTINEL_WAIT, asked).await.ok()??.filter(|(host, _)| !host.is_empty())?;
        Some(ConnectionAddr::Tcp(host, port))
    }
}

/// `user:password@` where there is one, and the rest.
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
            Err("a host without a name".to_owned())
        } else {
            info(&format!("redis://{credentials}{host}{port}"))
        }
    });
    each.collect()
}

fn info(url: &str) -> Result<ConnectionInfo, String> {
    url.into_connection_info().map_err(|error| error.category().to_owned())
}

async fn is_primary(info: &ConnectionInfo) -> bool {
    let role = redis::cmd("ROLE");
    let asked = timeout(SENTINEL_WAIT, once::<redis::Value>(info, &role)).await;
    match asked {
        Ok(Some(redis::Value::Array(role))) => {
            matches!(role.first(), Some(redis::Value::BulkString(word)) if word == b"master")
        }
        _ => false,
    }
}

/// One question on a connection of its own.
pub(super) async fn once<T: redis::FromRedisValue>(info: &ConnectionInfo, command: &redis::Cmd) -> Option<T> {
    let settings = AsyncConnectionConfig::new().set_connection_timeout(Some(SILENCE_MAX));
    let client = Client::open(info.clone()).ok()?;
    let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await.ok()?;
    command.query_async(&mut connection).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentinels_are_listed_with_a_service() {
        let Ok(Place::Behind(one)) = Place::parse("redis-sentinel://u:p%40ss@a:1,b,10.0.0.1:3/main/2") else {
            panic!("it has all it needs");
        };
        let addresses: Vec<_> = one.sentinels.iter().map(|info| info.addr().to_string()).collect();
        assert_eq!(addresses, ["a:1", "b:26379", "10.0.0.1:3"]);
        let login = one.server.redis_settings();
        assert_eq!((login.username(), login.password(), login.db()), (Some("u"), Some("p@ss"), 2));
        assert_eq!(one.service, "main");
        // A sentinel has its own users, and here none.
        assert!(one.sentinels.iter().all(|info| info.redis_settings().password().is_none()));

        assert!(matches!(Place::parse("redis://127.0.0.1:6379/1"), Ok(Place::At(_))));
        let Ok(Place::Among(servers)) = Place::parse("redis-cluster://:pw@a:1,b/") else {
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
            let refused = Place::parse(bad).expect_err(bad);
            assert!(!refused.contains("secret"), "{refused}");
        }
    }
}
