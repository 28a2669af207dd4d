//! Host names under which the admin listener answers. A web page can make its own host name point to this
//! machine (DNS rebinding), and the browser then lets the page read the answers. So a host name that such a
//! page can have is refused.

use std::net::IpAddr;

use hyper::header::{HOST, HeaderMap};
use hyper::http::uri::Authority;

use switchboard_contract::types::Problem;
use switchboard_protocol::wire::problem::Code;

pub(super) struct Hosts {
    /// The allowed names, in lower case and without ports.
    names: Vec<String>,
}

impl Hosts {
    /// The configured names, and the node's own host name.
    pub(super) fn new(configured: &[String], listen: IpAddr) -> Self {
        let own = own_name();
        // A name with a port, as in an address bar, means the same.
        let name_of = |listed: &String| match Authority::try_from(listed.as_str()) {
            Ok(authority) => authority.host().to_ascii_lowercase(),
            Err(_) => String::new(),
        };
        let mut names: Vec<String> = configured.iter().map(name_of).collect();
        names.extend([own, listen.to_string()]);
        names.retain(|name| !name.is_empty());
        Self { names }
    }

    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        // HTTP/1.0 may omit it. Browsers never do.
        let Some(host) = headers.get(HOST) else { return Ok(()) };
        let name = Authority::try_from(host.as_bytes()).map(|it| it.host().to_ascii_lowercase());
        if name.as_ref().is_ok_and(|name| self.admits(name.trim_end_matches('.'))) {
            return Ok(());
        }
        metrics::counter!("switchboard_admin_hosts_refused_total").increment(1);
        let mut problem = Code::Forbidden.problem(
            "the admin listener does not answer under the name in the `host` header: add it to the setting `admin_hosts`",
        );
        problem.status = 421;
        Err(problem)
    }

    fn admits(&self, name: &str) -> bool {
        let is_address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        // No public name server answers for a name of one label, or for `localhost`.
        let is_local = !name.is_empty() && !name.contains('.') || name.ends_with(".localhost");
        is_address || is_local || self.names.iter().any(|listed| listed == name)
    }
}

/// The host name of the machine or container; empty when the kernel does not provide it here.
fn own_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_web_page_can_have_is_refused_unless_it_is_listed() {
        let hosts = Hosts::new(&["Admin.Chat.Example:9090".to_owned()], [10, 0, 0, 7].into());
        let check = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            hosts.check(&headers).map_err(|problem| problem.status)
        };
        let own = own_name();
        for host in [
            "localhost",
            "localhost:9090",
            "LOCALHOST.:9090",
            "a.localhost",
            "127.0.0.1:9090",
            "10.0.0.7",
            "192.168.1.1:9090",
            "[::1]:9090",
            "switchboard:9090",
            "admin.chat.example",
            &own,
        ] {
            assert_eq!(check(host), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9090",
            "127.0.0.1.evil.example",
            "chat.example",
            "a.admin.chat.example",
        ] {
            assert_eq!(check(host), Err(421), "{host}");
        }
        assert_eq!(hosts.check(&HeaderMap::new()), Ok(()));
    }
}
