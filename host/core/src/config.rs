//! The settings of a node: defaults, overridden by `switchboard.toml`, by `SWITCHBOARD_…`, by flags. In a
//! node, only this module reads the environment; an empty variable counts as unset. Secrets have no default;
//! code that needs a missing one reports it.

mod environment;
mod origins;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::error::Error;
use crate::limits;
pub use environment::variable;

/// The begin of environment variables; `__` separates levels: `SWITCHBOARD_HANDLERS__SEND_MESSAGE__…`.
const PREFIX: &str = "SWITCHBOARD_";
/// Settings with their old names, which still work.
const RENAMED: [(&str, &str); 4] = [
    ("trace_dir", "recording_dir"),
    ("trace_calls", "recording_calls"),
    ("trace_one_in", "recording_one_in"),
    ("trace_bodies", "recording_bodies"),
];
/// The file that is read from the working directory if no other is named.
pub const FILE: &str = "switchboard.toml";

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address for clients.
    pub listen: SocketAddr,
    /// The address for operators: health, metrics, releases.
    pub admin_listen: SocketAddr,
    /// Certificate chain and private key in PEM, for HTTPS and WSS. The node reads the files again when they
    /// change.
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// Further `Host` names of the admin listener, beside those that need no setting.
    pub admin_hosts: Vec<String>,
    /// The token of the first admin.
    pub admin_token: Option<String>,

    /// The login of an owner of the database, for migrations and the host's own tables. Handlers log in as
    /// their own roles.
    pub database_url: Option<String>,
    /// Connections of all roles together; the rest of the server's `max_connections` is for other nodes.
    pub postgres_connections_max: usize,
    /// Memory of all calls inside handlers together, beyond the free part of each call.
    pub guest_memory_mib: u32,
    pub redis_url: Option<String>,
    /// Role passwords, the key of secrets and the key of the artifact cache are derived from it: at least 32
    /// characters, the same on every node.
    pub secret: Option<String>,
    /// The `secret` before, while operators change it: roles that still have its passwords can log in, and
    /// secrets that were sealed with it open.
    pub secret_previous: Option<String>,

    /// For HS256 tokens.
    pub jwt_secret: Option<String>,
    /// PEM files of public keys, for RS256, ES256 and EdDSA tokens.
    pub jwt_keys: Vec<PathBuf>,
    /// Key sets (JWKS) with such keys: files, or URLs (https, or http to this machine). The node reads them
    /// again when a token names an unknown key.
    pub jwt_jwks: Vec<String>,
    pub jwt_algorithms: Vec<String>,
    pub jwt_issuer: Option<String>,
    pub jwt_audience: Option<String>,
    /// Clock skew: a token is expired this long after its `exp`, everywhere.
    pub jwt_leeway_s: u64,
    /// Origins that browsers may connect from; empty means any.
    pub origins: Vec<String>,

    /// Maximum number of WebSockets of the node. Beyond it, the node closes one without a sign-in, or answers
    /// a handshake with 503.
    pub connections_max: usize,
    /// Connections of one remote address without a sign-in, HTTP and WebSocket together; 0 is no bound.
    /// Beyond it the node closes the oldest of the address that waits for its client.
    pub anonymous_per_address_max: usize,
    /// The node closes an HTTP connection that is idle for this long. Keep it above the idle time of a load
    /// balancer in front, which would otherwise send a request into a connection that is being closed.
    pub keep_alive_ms: u64,
    /// Beyond it the node closes the newest connection of the user with 4009.
    pub connections_per_user_max: usize,
    pub frames_per_second: u32,
    pub frames_burst: u32,
    /// The node closes a connection without a token after this time with 4001.
    pub auth_wait_ms: u64,
    /// The node closes a connection that sends nothing for this long with 4010. Clients get a third of it as
    /// the interval of heartbeats.
    pub idle_ms: u64,
    /// The node ends a connection that reads none of its waiting bytes for this long; a WebSocket with 4008.
    /// The same holds for a WebSocket whose queue is full for this long.
    pub stall_ms: u64,
    /// A connection gets `auth.expiring` this long before the end of its token.
    pub expiry_warning_ms: u64,
    /// A drain spreads the reconnects of its clients over this time.
    pub drain_ms: u64,

    /// The directory of cached artifacts and other files that can be made again.
    pub data_dir: PathBuf,
    /// The directory for recordings of calls, to be read and replayed. The old names of these settings begin
    /// with `trace_`.
    pub recording_dir: Option<PathBuf>,
    /// The recorded calls. `failed`: those without an answer, or with an answer that is the host's or the
    /// handler's fault. `all`: every call.
    pub recording_calls: RecordedCalls,
    /// One of this many calls is recorded, decided at its begin. Recording a call costs some microseconds.
    pub recording_one_in: u32,
    /// Include texts of people and data of the services. Otherwise sizes replace them, and the recording can
    /// only be read.
    pub recording_bodies: bool,
    /// The directory of release files that `serve` deploys at its start, if the fleet has not run them yet.
    pub handlers_dir: Option<PathBuf>,
    /// Public keys, in hex or as files of `switchboard keys`. If there are any, nodes load only releases that
    /// one of them signed.
    pub release_keys: Vec<String>,
    /// For `deploy oci://…`, if the registry needs a login. Nodes do not use them.
    pub registry_user: Option<String>,
    pub registry_password: Option<String>,
    /// A `tracing` filter, for instance `info,switchboard_fanout=debug`.
    pub log: String,
    pub log_json: bool,
    /// `http://host:port` of a collector that takes OTLP over HTTP; the node makes spans only if it is set.
    pub otlp_endpoint: Option<String>,
    /// The share of traced calls, among calls without a trace of their own: 0.01 is one in a hundred.
    pub otlp_sample: f64,

    /// Settings of handlers on this node. They override the `[config]` of their manifests and the live
    /// settings of the fleet.
    pub handlers: BTreeMap<String, Table>,
    /// Where the settings of handlers come from, by handler and key: the file, or a variable.
    #[serde(skip)]
    pub handler_places: BTreeMap<(String, String), String>,

    /// Variables that begin with `SWITCHBOARD_` and name no setting.
    #[serde(skip)]
    pub unknown_variables: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
            tls_cert: None,
            tls_key: None,
            admin_hosts: Vec::new(),
            admin_token: None,
            database_url: None,
            postgres_connections_max: 32,
            guest_memory_mib: 1024,
            redis_url: None,
            secret: None,
            secret_previous: None,
            jwt_secret: None,
            jwt_keys: Vec::new(),
            jwt_jwks: Vec::new(),
            jwt_algorithms: ["HS256", "RS256", "ES256", "EdDSA"].map(str::to_owned).to_vec(),
            jwt_issuer: None,
            jwt_audience: None,
            jwt_leeway_s: 30,
            origins: Vec::new(),
            connections_max: 10_000,
            anonymous_per_address_max: 1024,
            keep_alive_ms: 75_000,
            connections_per_user_max: 50,
            frames_per_second: 100,
            frames_burst: 500,
            auth_wait_ms: 10_000,
            idle_ms: 90_000,
            stall_ms: 30_000,
            expiry_warning_ms: 60_000,
            drain_ms: 10_000,
            data_dir: PathBuf::from(".switchboard"),
            recording_dir: None,
            recording_calls: RecordedCalls::Failed,
            recording_one_in: 1,
            recording_bodies: false,
            handlers_dir: None,
            release_keys: Vec::new(),
            registry_user: None,
            registry_password: None,
            log: "info".to_owned(),
            log_json: false,
            otlp_endpoint: None,
            otlp_sample: 0.01,
            handlers: BTreeMap::new(),
            handler_places: BTreeMap::new(),
            unknown_variables: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordedCalls {
    #[default]
    Failed,
    All,
}

/// A setting of a handler that a node overrides.
#[derive(Clone, PartialEq, Eq)]
pub struct Override {
    pub value: String,
    /// Where the value comes from, for operators: `environment (SWITCHBOARD_HANDLERS__POLL__LANES)` or
    /// `file (switchboard.toml)`.
    pub place: String,
}

/// The recordings of a node: which calls, and with which contents.
#[derive(Clone, Debug)]
pub struct RecordingSettings {
    pub directory: PathBuf,
    pub calls: RecordedCalls,
    pub one_in: u32,
    pub bodies: bool,
}

impl Config {
    /// Reads the file (the default one may be absent) and the process's environment.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        let text = match file {
            Some(path) => fs::read_to_string(path).map_err(|error| Error::Read(path.to_owned(), error))?,
            None => match fs::read_to_string(FILE) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(Error::Read(FILE.into(), error)),
            },
        };
        let source = file.unwrap_or(Path::new(FILE)).display().to_string();
        Self::from_sources(&source, &text, std::env::vars_os())
    }

    fn from_sources(
        source: &str,
        text: &str,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Error> {
        let invalid = |source: &str, reason: &dyn fmt::Display| Error::Setting {
            place: source.to_owned(),
            reason: reason.to_string().trim_end().to_owned(),
        };
        let mut settings: Table = text.parse().map_err(|error| invalid(source, &error))?;
        for (old, new) in RENAMED {
            if let Some(value) = settings.remove(old)
                && settings.insert(new.to_owned(), value).is_some()
            {
                return Err(invalid(
                    source,
                    &format!("`{old}` is the old name of `{new}`: set only one of them"),
                ));
            }
        }
        // Check the file before variables override it, so that an error names its source.
        Self::deserialize(settings.clone()).map_err(|error| invalid(source, &error))?;

        let mut handler_places = places_in_file(source, &settings);
        let mut unknown_variables = Vec::new();
        for (variable, value) in environment {
            // Variables of other programs may have any content, also no text.
            let Some(variable) = variable.to_str() else { continue };
            let Some(name) = variable.strip_prefix(PREFIX) else { continue };
            if value.is_empty() {
                continue;
            }
            let mut with = settings.clone();
            if !overlay(&mut with, name, value.to_str().unwrap_or_default()) {
                if !environment::is_known(variable) {
                    unknown_variables.push(variable.to_owned());
                }
                continue;
            }
            if value.to_str().is_none() {
                return Err(invalid(variable, &"its value is not UTF-8 text"));
            }
            Self::deserialize(with.clone()).map_err(|error| invalid(variable, &error))?;
            settings = with;
            if let Some(of_handler) = handler_setting(name) {
                handler_places.insert(of_handler, format!("environment ({variable})"));
            }
        }
        let mut config = Self::deserialize(settings).map_err(|error| invalid(source, &error))?;
        config.handler_places = handler_places;
        unknown_variables.sort_unstable();
        config.unknown_variables = unknown_variables;
        config.unset_empty();
        config.refuse_blank_secrets()?;
        if config.guest_memory_mib < limits::GUEST_MEMORY_MIB_MIN {
            let least = limits::GUEST_MEMORY_MIB_MIN;
            return Err(invalid(
                "guest_memory_mib",
                &format!("it is at least {least}, so that large calls fit"),
            ));
        }
        for origin in &mut config.origins {
            *origin = origins::normal(origin).map_err(|reason| invalid("origins", &reason))?;
        }
        Ok(config)
    }

    /// None if no call is recorded.
    pub fn recordings(&self) -> Option<RecordingSettings> {
        Some(RecordingSettings {
            directory: self.recording_dir.clone()?,
            calls: self.recording_calls,
            one_in: self.recording_one_in.max(1),
            bodies: self.recording_bodies,
        })
    }

    pub fn database_url(&self) -> Result<&str, Error> {
        required(&self.database_url, "database_url", "Postgres keeps every message, release and cursor")
    }

    pub fn redis_url(&self) -> Result<&str, Error> {
        required(
            &self.redis_url,
            "redis_url",
            "nodes reach each other and share presence and limits through Redis",
        )
    }

    pub fn secret(&self) -> Result<&str, Error> {
        required(
            &self.secret,
            "secret",
            "role passwords, the key of secrets and the artifact cache's key are derived from it",
        )
    }

    /// The settings of one handler that this node's file and environment override.
    pub fn handler_overrides(&self, name: &str) -> BTreeMap<String, Override> {
        let settings = self.handlers.get(name).into_iter().flatten();
        settings
            .map(|(key, value)| {
                let place = self.handler_places.get(&(name.to_owned(), key.clone())).cloned();
                let value = crate::manifest::Manifest::setting(value);
                (key.clone(), Override { value, place: place.unwrap_or_else(|| "configuration".to_owned()) })
            })
            .collect()
    }

    /// A setting without a default counts as unset if the file has an empty text, as in the environment.
    fn unset_empty(&mut self) {
        for text in [
            &mut self.admin_token,
            &mut self.database_url,
            &mut self.redis_url,
            &mut self.secret,
            &mut self.secret_previous,
            &mut self.jwt_secret,
            &mut self.jwt_issuer,
            &mut self.jwt_audience,
            &mut self.registry_user,
            &mut self.registry_password,
            &mut self.otlp_endpoint,
        ] {
            text.take_if(|text| text.is_empty());
        }
        for path in [&mut self.tls_cert, &mut self.tls_key, &mut self.recording_dir, &mut self.handlers_dir] {
            path.take_if(|path| path.as_os_str().is_empty());
        }
    }

    fn refuse_blank_secrets(&mut self) -> Result<(), Error> {
        for (setting, value, least) in [
            ("secret", &self.secret, 32),
            ("secret_previous", &self.secret_previous, 32),
            ("jwt_secret", &self.jwt_secret, 16),
            ("admin_token", &self.admin_token, 16),
        ] {
            if value.as_ref().is_some_and(|value| value.len() < least) {
                return Err(Error::Setting {
                    place: setting.to_owned(),
                    reason: format!("a secret has at least {least} characters"),
                });
            }
        }
        Ok(())
    }
}

/// Omits secrets, so that a configuration can be logged.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("admin_listen", &self.admin_listen)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

fn required<'a>(
    value: &'a Option<String>,
    setting: &'static str,
    why: &'static str,
) -> Result<&'a str, Error> {
    let missing = || Error::Missing { setting, variable: format!("{PREFIX}{}", setting.to_uppercase()), why };
    value.as_deref().ok_or_else(missing)
}

/// Overrides a setting by one variable. Returns false if it names no setting: other programs may use the
/// prefix too.
fn overlay(settings: &mut Table, name: &str, value: &str) -> bool {
    match *name.split("__").collect::<Vec<_>>() {
        ["HANDLERS", ..] => {
            let Some((handler, key)) = handler_setting(name) else { return false };
            let handlers = settings.entry("handlers").or_insert_with(|| Value::Table(Table::new()));
            let Some(handlers) = handlers.as_table_mut() else { return false };
            let table = handlers.entry(handler).or_insert_with(|| Value::Table(Table::new()));
            let Some(table) = table.as_table_mut() else { return false };
            table.insert(key, scalar(value));
            true
        }
        [_] => {
            let key = name.to_lowercase();
            let key = RENAMED.iter().find(|(old, _)| *old == key).map_or(key, |(_, new)| (*new).to_owned());
            let Some(kind) = kind_of(&key) else { return false };
            settings.insert(key, kind.read(value));
            true
        }
        _ => false,
    }
}

/// The handler and the key of a variable `HANDLERS__SEND_MESSAGE__LANES`, without its prefix.
fn handler_setting(name: &str) -> Option<(String, String)> {
    match *name.split("__").collect::<Vec<_>>() {
        ["HANDLERS", handler, key] => Some((handler.to_lowercase().replace('_', "-"), key.to_lowercase())),
        _ => None,
    }
}

/// The settings of handlers in the file.
fn places_in_file(source: &str, settings: &Table) -> BTreeMap<(String, String), String> {
    let handlers = settings.get("handlers").and_then(Value::as_table).into_iter().flatten();
    let keys = handlers.flat_map(|(handler, table)| {
        table.as_table().into_iter().flat_map(move |table| table.keys().map(move |key| (handler, key)))
    });
    keys.map(|(handler, key)| ((handler.clone(), key.clone()), format!("file ({source})"))).collect()
}

/// The form of a setting in a variable, from the type of its default.
enum Kind {
    Text,
    Scalar,
    /// A list, separated by commas.
    List,
}

impl Kind {
    fn read(self, value: &str) -> Value {
        match self {
            Self::Text => Value::String(value.to_owned()),
            Self::Scalar => scalar(value),
            Self::List => value
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Value::String(item.to_owned()))
                .collect::<Vec<_>>()
                .into(),
        }
    }
}

fn kind_of(key: &str) -> Option<Kind> {
    const WITHOUT_DEFAULT: [&str; 15] = [
        "tls_cert",
        "tls_key",
        "admin_token",
        "database_url",
        "redis_url",
        "secret",
        "secret_previous",
        "jwt_secret",
        "jwt_issuer",
        "jwt_audience",
        "recording_dir",
        "handlers_dir",
        "registry_user",
        "registry_password",
        "otlp_endpoint",
    ];
    if WITHOUT_DEFAULT.contains(&key) {
        return Some(Kind::Text);
    }
    let defaults = Table::try_from(Config::default()).expect("the defaults are plain data");
    match defaults.get(key)? {
        Value::String(_) => Some(Kind::Text),
        Value::Array(_) => Some(Kind::List),
        Value::Table(_) => None,
        _ => Some(Kind::Scalar),
    }
}

fn scalar(value: &str) -> Value {
    if let Ok(number) = value.parse() {
        Value::Integer(number)
    } else if let Ok(number) = value.parse() {
        Value::Float(number)
    } else if let Ok(flag) = value.parse() {
        Value::Boolean(flag)
    } else {
        Value::String(value.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config, Error> {
        let variables = environment.iter().map(|(name, value)| (name.into(), value.into()));
        Config::from_sources("switchboard.toml", text, variables)
    }

    #[test]
    fn the_environment_overrides_the_file_and_the_file_the_defaults() {
        let config = read(
            "connections_max = 5\ndrain_ms = 7\n[handlers.send-message]\nmessages_per_minute = 30",
            &[
                ("SWITCHBOARD_CONNECTIONS_MAX", "6"),
                ("SWITCHBOARD_LISTEN", "127.0.0.1:1234"),
                ("SWITCHBOARD_JWT_ALGORITHMS", "HS256, EdDSA"),
                ("SWITCHBOARD_HANDLERS__SEND_MESSAGE__MESSAGES_PER_MINUTE", "99"),
                ("SWITCHBOARD_TEST_DATABASE_URL", "of another program"),
            ],
        )
        .unwrap();
        assert_eq!((config.connections_max, config.drain_ms), (6, 7));
        assert_eq!(config.listen.port(), 1234);
        assert_eq!(config.jwt_algorithms, ["HS256", "EdDSA"]);
        assert_eq!(config.handlers["send-message"]["messages_per_minute"].as_integer(), Some(99));
    }

    #[test]
    fn an_override_of_a_handlers_setting_names_its_place() {
        let config = read(
            "[handlers.send-message]\nlanes = 2\nmessages_per_minute = 30",
            &[("SWITCHBOARD_HANDLERS__SEND_MESSAGE__MESSAGES_PER_MINUTE", "99")],
        )
        .unwrap();
        let overrides = config.handler_overrides("send-message");
        let of = |key: &str| (overrides[key].value.as_str(), overrides[key].place.as_str());
        assert_eq!(of("lanes"), ("2", "file (switchboard.toml)"));
        let variable = "environment (SWITCHBOARD_HANDLERS__SEND_MESSAGE__MESSAGES_PER_MINUTE)";
        assert_eq!(of("messages_per_minute"), ("99", variable));
        assert!(config.handler_overrides("lists").is_empty());
    }

    #[test]
    fn an_empty_variable_is_unset_and_an_empty_text_of_the_file_too() {
        let config = read(
            "jwt_audience = \"\"\ntls_cert = \"\"\nlog = \"warn\"\n[handlers.send-message]\nlanes = 2",
            &[
                ("SWITCHBOARD_JWT_ISSUER", ""),
                ("SWITCHBOARD_LISTEN", ""),
                ("SWITCHBOARD_CONNECTIONS_MAX", ""),
                ("SWITCHBOARD_SECRET", ""),
                ("SWITCHBOARD_LOG", ""),
                ("SWITCHBOARD_HANDLERS__SEND_MESSAGE__LANES", ""),
                ("SWITCHBOARD_NO_SUCH_THING", ""),
            ],
        )
        .unwrap();
        assert_eq!((&config.jwt_issuer, &config.jwt_audience, &config.secret), (&None, &None, &None));
        assert_eq!((config.tls_cert, config.log.as_str(), config.connections_max), (None, "warn", 10_000));
        assert_eq!(config.handlers["send-message"]["lanes"].as_integer(), Some(2));
        assert!(config.unknown_variables.is_empty());
    }

    #[test]
    fn only_a_setting_that_is_no_text_is_refused_and_names_that_nobody_knows_are_kept() {
        use std::os::unix::ffi::OsStringExt;
        let garbage = || OsString::from_vec(vec![b'a', 0xff]);
        let read = |variables: Vec<(OsString, OsString)>| {
            Config::from_sources("switchboard.toml", "", variables.into_iter())
        };
        let others = vec![
            ("LC_PAPER".into(), garbage()),
            (garbage(), "x".into()),
            ("SWITCHBOARD_TEST_REDIS_URL".into(), garbage()),
            ("SWITCHBOARD_WASM_ROUTE".into(), "x".into()),
            ("SWITCHBOARD_JWT_ISUER".into(), garbage()),
            ("SWITCHBOARD_CONECTIONS_MAX".into(), "5".into()),
            ("SWITCHBOARD_HANDLERS__SEND_MESSAGE".into(), "5".into()),
        ];
        assert_eq!(
            read(others).unwrap().unknown_variables,
            ["SWITCHBOARD_CONECTIONS_MAX", "SWITCHBOARD_HANDLERS__SEND_MESSAGE", "SWITCHBOARD_JWT_ISUER"]
        );
        let error = read(vec![("SWITCHBOARD_LOG".into(), garbage())]).unwrap_err().to_string();
        assert!(error.starts_with("SWITCHBOARD_LOG: ") && error.contains("UTF-8"), "{error}");
    }

    #[test]
    fn every_setting_can_be_given_in_the_environment() {
        let error = toml::from_str::<Config>("no_such_setting = 1").map(drop).unwrap_err().to_string();
        let (_, expected) = error.split_once("expected one of").expect("it names what there is");
        let names: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
        assert!(names.contains(&"listen") && names.contains(&"otlp_endpoint"), "{names:?}");
        for name in names.into_iter().filter(|name| *name != "handlers") {
            assert!(kind_of(name).is_some(), "SWITCHBOARD_{} is passed over", name.to_uppercase());
        }
    }

    #[test]
    fn a_bad_setting_is_named_with_its_source() {
        for (text, environment, complaint) in [
            ("colour = 1", vec![], "switchboard.toml: unknown field `colour`"),
            ("", vec![("SWITCHBOARD_LISTEN", "nowhere")], "SWITCHBOARD_LISTEN: "),
            ("", vec![("SWITCHBOARD_CONNECTIONS_MAX", "many")], "SWITCHBOARD_CONNECTIONS_MAX: "),
            ("secret = \"short\"", vec![], "at least 32"),
            ("", vec![("SWITCHBOARD_ORIGINS", "*")], "origins: `*`"),
        ] {
            let error = read(text, &environment).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
        let missing = read("", &[]).unwrap().database_url().unwrap_err().to_string();
        assert!(missing.contains("SWITCHBOARD_DATABASE_URL"), "{missing}");
    }

    #[test]
    fn settings_can_still_be_given_by_their_old_names() {
        let config =
            read("trace_dir = \"calls\"\ntrace_one_in = 5", &[("SWITCHBOARD_TRACE_BODIES", "true")]).unwrap();
        let recordings = config.recordings().unwrap();
        assert_eq!((recordings.directory, recordings.one_in, recordings.bodies), ("calls".into(), 5, true));
        let twice = read("trace_dir = \"a\"\nrecording_dir = \"b\"", &[]).unwrap_err().to_string();
        assert!(twice.contains("old name"), "{twice}");
    }

    #[test]
    fn a_secret_is_never_printed() {
        let config = read("secret = \"0123456789abcdef0123456789abcdef\"", &[]).unwrap();
        assert!(!format!("{config:?}").contains("0123456789"));
    }
}
