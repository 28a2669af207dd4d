//! The lines that `switchboard dev` prints: how to talk to the handlers, with a token. A shell can run them
//! as they are.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::{Failure, token};
use switchboard_core::config::Config;
use switchboard_core::ids::UserId;
use switchboard_core::limits;
use switchboard_core::manifest::{HttpBinding, Manifest, OPERATORS};

/// The user of the examples.
const USER: &str = "alice";

/// Where the node is, and what opens it.
pub(super) struct Talk {
    /// `http://127.0.0.1:8080`
    clients: String,
    operators: String,
    /// `ws://127.0.0.1:8080/ws`
    socket: String,
    /// A token of [`USER`]; `None` if another party makes the tokens of this node.
    token: Option<String>,
    /// The file with the secrets of the folder.
    secrets: Option<PathBuf>,
}

impl Talk {
    pub(super) fn new(config: &Config, secrets: Option<PathBuf>) -> Result<Self, Failure> {
        let tls = if config.tls_cert.is_some() { "s" } else { "" };
        let token = match (&config.jwt_secret, UserId::parse(USER)) {
            (Some(_), Some(user)) => {
                let ttl_s = limits::DEV_EXAMPLE_TOKEN_LIFETIME.as_secs();
                Some(token::make(config, &user, &[], None, ttl_s)?.0)
            }
            _ => None,
        };
        let (listen, admin) = (reachable(config.listen), reachable(config.admin_listen));
        Ok(Self {
            clients: format!("http{tls}://{listen}"),
            operators: format!("http://{admin}"),
            socket: format!("ws{tls}://{listen}/ws"),
            token,
            secrets,
        })
    }

    pub(super) fn text<'a>(&self, manifests: impl Iterator<Item = &'a Manifest>) -> String {
        let Self { clients, operators, token, secrets, .. } = self;
        let mut out = format!(
            "\nSwitchboard serves clients on {clients} and operators on {operators}. Ctrl-C ends it.\n\n"
        );
        let mut line = |text: &str| {
            writeln!(out, "  {text}").expect("a String takes it");
        };
        match token {
            Some(token) => line(&format!("{USER}={token}")),
            None => line(&format!("{USER}=TOKEN    # a token of the issuer that this node trusts")),
        }
        let examples: Vec<String> = manifests.flat_map(|manifest| self.examples(manifest)).collect();
        for example in examples.iter().take(limits::DEV_EXAMPLES_MAX) {
            line(&format!("\n{example}").replace('\n', "\n  "));
        }
        let others = examples.len().saturating_sub(limits::DEV_EXAMPLES_MAX);
        if others > 0 {
            line("");
            line(&format!("# and {others} more; `switchboard inspect` shows them"));
        }
        if let Some(secrets) = secrets {
            line("");
            line("# in another terminal of this folder: releases, settings, secrets");
            line(&format!(". {}", shell(secrets)));
            line("switchboard status");
        }
        // No space at the ends of lines.
        out.lines().map(str::trim_end).collect::<Vec<_>>().join("\n") + "\n"
    }

    /// One text for each route and frame type.
    fn examples(&self, manifest: &Manifest) -> Vec<String> {
        let name = &manifest.name;
        let socket = format!("wscat -c \"{}\" -H \"authorization: Bearer ${USER}\"", self.socket);
        let http = manifest.on.http.iter().map(|route| format!("# {name}\n{}", self.request(route)));
        let frames = manifest.on.frame.iter().map(|frame| {
            format!(
                "# {name}: open a socket (npm install -g wscat), then type the frame\n\
                 #   {{\"type\":\"{}\",\"id\":1,\"payload\":{{}}}}\n{socket}",
                frame.frame_type
            )
        });
        let on = &manifest.on.connection;
        let opens = on
            .opened
            .is_bound()
            .then(|| format!("# {name} is called when a socket opens (npm install -g wscat)\n{socket}"));
        http.chain(frames).chain(opens).collect()
    }

    fn request(&self, route: &HttpBinding) -> String {
        let HttpBinding { method, path, public, .. } = route;
        let is_for_operators = path.starts_with(OPERATORS);
        let base = if is_for_operators { &self.operators } else { &self.clients };
        let mut command = format!("curl -sS {base}{}", with_names(path));
        if method != "GET" {
            let _ = write!(command, " -X {method}");
        }
        if is_for_operators {
            command.push_str(" -H \"authorization: Bearer $SWITCHBOARD_ADMIN_TOKEN\"");
        } else if !public {
            let _ = write!(command, " -H \"authorization: Bearer ${USER}\"");
        }
        if matches!(method.as_str(), "POST" | "PUT" | "PATCH") {
            command.push_str(" -H 'content-type: application/json' -d '{}'");
        }
        command
    }
}

/// `/polls/{poll_id}` is `/polls/POLL_ID`: curl would read braces as a list.
fn with_names(path: &str) -> String {
    let segment = |segment: &str| match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
        Some(name) => name.trim_start_matches('*').to_ascii_uppercase(),
        None => segment.to_owned(),
    };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// An address that a client of this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if !ip.is_unspecified() => address,
        _ => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()),
    }
}

/// A path for `.` of a shell, which searches names without a slash in PATH. Other characters than those of
/// plain names are quoted.
fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    let text = if text.contains('/') { text } else { format!("./{text}") };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(config: Config) -> Talk {
        Talk::new(&config, Some(PathBuf::from(".switchboard/secrets.env"))).unwrap()
    }

    fn manifest(on: &str) -> Manifest {
        Manifest::parse(&format!("name = \"poll\"\n{on}")).unwrap()
    }

    #[test]
    fn every_way_to_call_a_handler_has_a_line_for_a_shell() {
        let config = Config {
            jwt_secret: Some("0123456789abcdef0123456789abcdef".to_owned()),
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            ..Config::default()
        };
        let poll = manifest(
            "on.http = [{ method = \"GET\", path = \"/polls/{poll_id}\" }, \
             { method = \"POST\", path = \"/hook\", public = true }, \
             { method = \"DELETE\", path = \"/admin/v1/polls\" }]\n\
             on.frame = [{ type = \"poll.vote\" }]\non.connection = { opened = true }",
        );
        let text = talk(config).text([&poll].into_iter());
        for line in [
            "  alice=ey",
            "  curl -sS http://127.0.0.1:8080/polls/POLL_ID -H \"authorization: Bearer $alice\"\n",
            "  curl -sS http://127.0.0.1:8080/hook -X POST -H 'content-type: application/json' -d '{}'\n",
            "  curl -sS http://127.0.0.1:9090/admin/v1/polls -X DELETE -H \"authorization: Bearer $SWITCH",
            "  #   {\"type\":\"poll.vote\",\"id\":1,\"payload\":{}}\n  wscat -c \"ws://127.0.0.1:8080/ws\"",
            "  # poll is called when a socket opens",
            "  . .switchboard/secrets.env\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.lines().all(|line| line.trim_end() == line));
    }

    #[test]
    fn a_shell_reads_any_path_of_the_secrets() {
        assert_eq!(shell(Path::new("secrets.env")), "./secrets.env");
        assert_eq!(shell(Path::new("/my data/bo's/secrets.env")), "'/my data/bo'\\''s/secrets.env'");
    }

    #[test]
    fn many_routes_are_counted_and_foreign_tokens_are_left_to_their_issuer() {
        let routes: Vec<_> = (0..20).map(|n| format!("{{ method = \"GET\", path = \"/r/{n}\" }}")).collect();
        let many = manifest(&format!("on.http = [{}]", routes.join(", ")));
        let text = talk(Config::default()).text([&many].into_iter());
        assert_eq!(text.matches("curl").count(), limits::DEV_EXAMPLES_MAX);
        assert!(text.contains(&format!("and {} more", 20 - limits::DEV_EXAMPLES_MAX)), "{text}");
        assert!(text.contains("alice=TOKEN"), "{text}");
    }
}
