//! The manifest of a release: what it answers, what it may use, and how much. It is parsed once, so every
//! `Manifest` is valid. This module does not inspect code: the runtime checks imports against grants.

mod build;
mod cron;
mod fetch;
mod hooks;
mod schedule;
mod settings;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;
use crate::limits;
pub use build::Build;
pub use cron::Cron;
pub use fetch::{FETCH_METHODS, FetchGrant, FetchRules};
pub use hooks::{HookBinding, OnFailure};
pub use schedule::{ScheduleBinding, Scope, Timing};
pub use settings::{Bound, SettingRule, SettingType};

/// The name of the custom section that carries `handler.toml` inside a release file.
pub const SECTION: &str = "switchboard:manifest";
/// The prefix of routes that only the operators' listener answers.
pub const OPERATORS: &str = "/admin/v1/";

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The handler's name: lower case, digits and dashes. It is the same in all its releases.
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub on: Bindings,
    #[serde(default)]
    pub grants: Grants,
    #[serde(default)]
    pub limits: Limits,
    /// Thresholds for the automatic withdrawal of a canary.
    #[serde(default)]
    pub canary: Thresholds,
    #[serde(default)]
    pub needs: Needs,
    /// The texts of Lua scripts by name; `switchboard build` inserts the contents of the files.
    #[serde(default)]
    pub scripts: BTreeMap<String, String>,
    /// Settings whose values recordings, reports and `inspect` may show. All other values are concealed
    /// there.
    #[serde(default)]
    pub public_settings: Vec<String>,
    /// Defaults of the handler's settings; the operator can override them.
    #[serde(default)]
    pub config: toml::Table,
    /// Types and bounds of settings, with or without a default. Nodes of the version before do not know this
    /// member, so it is stored only where a manifest uses it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, SettingRule>,
    /// How `switchboard build` makes the component of a handler that is not a crate. Releases do not contain
    /// it, so nodes of the version before can read them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
}

/// The triggers of the handler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bindings {
    #[serde(default)]
    pub http: Vec<HttpBinding>,
    #[serde(default)]
    pub frame: Vec<FrameBinding>,
    #[serde(default)]
    pub connection: ConnectionBinding,
    #[serde(default)]
    pub schedule: Vec<ScheduleBinding>,
    #[serde(default)]
    pub event: Option<EventBinding>,
    /// The actions that it decides about before their handlers get them. Nodes of the version before know
    /// neither this member nor the next, so they are stored only where a manifest uses them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<HookBinding>,
    /// The methods that other handlers may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub call: Vec<String>,
    /// Nodes of the version before do not know this member, so it is stored only where a manifest uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timer: Option<TimerBinding>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpBinding {
    pub method: String,
    /// The path; segments in braces are parameters. A path under [`OPERATORS`] is for operators only.
    pub path: String,
    /// Requests need no token.
    #[serde(default)]
    pub public: bool,
    /// The action that the route does, whose hooks are called before the handler. None: no hooks. The action
    /// of a frame is its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameBinding {
    #[serde(rename = "type")]
    pub frame_type: String,
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Calls of one connection for this type overlap: the next call begins once the group commit of the call
    /// before it is asked for (`postgres.collect`). Their group commits keep the order of the frames. Nothing
    /// else does: a call may run before the call before it has committed. The calls cannot subscribe.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pipelined: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionBinding {
    #[serde(default)]
    pub opened: Lifecycle,
    #[serde(default)]
    pub closed: Lifecycle,
    #[serde(default)]
    pub touched: bool,
    /// Address patterns whose gaps it fills; one handler for each address.
    #[serde(default)]
    pub missed: Vec<Pattern>,
}

impl ConnectionBinding {
    /// Whether it binds functions of the interface `connection`.
    pub fn binds_single(&self) -> bool {
        [self.opened, self.closed].contains(&Lifecycle::Single) || self.touched || !self.missed.is_empty()
    }

    /// Whether it binds functions of the interface `connection-batch`.
    pub fn binds_batches(&self) -> bool {
        [self.opened, self.closed].contains(&Lifecycle::Batch)
    }
}

/// How the host calls a handler when connections open or close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifecycle {
    /// Not at all: `false`.
    #[default]
    Unbound,
    /// One call for each connection (`connection`): `true`.
    Single,
    /// One call for many connections (`connection-batch`): `"batch"`.
    Batch,
}

impl Lifecycle {
    const BATCH: &str = "batch";

    pub fn is_bound(self) -> bool {
        self != Self::Unbound
    }
}

impl Serialize for Lifecycle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Batch => serializer.serialize_str(Self::BATCH),
            other => serializer.serialize_bool(other.is_bound()),
        }
    }
}

impl<'de> Deserialize<'de> for Lifecycle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = Lifecycle;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "true, false or \"{}\"", Lifecycle::BATCH)
            }

            fn visit_bool<E: de::Error>(self, bound: bool) -> Result<Lifecycle, E> {
                Ok(if bound { Lifecycle::Single } else { Lifecycle::Unbound })
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Lifecycle, E> {
                if word == Lifecycle::BATCH {
                    return Ok(Lifecycle::Batch);
                }
                Err(E::invalid_value(de::Unexpected::Str(word), &self))
            }
        }

        deserializer.deserialize_any(Written)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventBinding {
    /// Event types; `*` at the end matches the rest. Other events are acknowledged without a call.
    pub types: Vec<Pattern>,
    /// Maximum batch of one call.
    #[serde(default = "EventBinding::default_batch")]
    pub batch: u32,
    /// Attempts before an event is parked.
    #[serde(default = "EventBinding::default_attempts")]
    pub attempts: u32,
    /// The begin of a new consumer.
    #[serde(default)]
    pub from: Start,
    /// Minimum time from one read to the next, so that events for which nobody waits come together.
    #[serde(default)]
    pub pace_ms: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With the oldest stored event, so that nothing is missed.
    #[default]
    Beginning,
    /// With the next event, for handlers that must not react to old events.
    Now,
}

impl EventBinding {
    fn default_batch() -> u32 {
        limits::EVENT_BATCH_MAX
    }

    fn default_attempts() -> u32 {
        8
    }
}

/// The handler gets the timers that it has set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimerBinding {
    /// Attempts before a timer is parked.
    #[serde(default = "TimerBinding::default_attempts")]
    pub attempts: u32,
}

impl TimerBinding {
    fn default_attempts() -> u32 {
        8
    }
}

/// The grants. Nothing is granted by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    /// The Postgres role that it logs in as, without the common prefix.
    #[serde(default)]
    pub postgres: Option<String>,
    /// Key patterns in Redis.
    #[serde(default)]
    pub redis: Vec<Pattern>,
    /// Address patterns that it may publish to, and revoke subscriptions of.
    #[serde(default)]
    pub publish: Vec<Pattern>,
    /// Address patterns that it may subscribe callers to.
    #[serde(default)]
    pub subscribe: Vec<Pattern>,
    /// Whether it may close connections.
    #[serde(default)]
    pub disconnect: bool,
    /// Queues that it may wake: `outbox`.
    #[serde(default)]
    pub wake: Vec<String>,
    /// Methods and URLs that it may fetch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetch: Vec<FetchGrant>,
    /// Names of the fleet's secrets that it may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Names of the handlers that it may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
    /// Whether it may set timers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub timers: bool,
}

/// Limits of one call. Every field has a maximum in `limits`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Maximum wall time of a call, host calls included.
    pub deadline_ms: u64,
    /// Maximum time inside the guest.
    pub cpu_ms: u64,
    pub memory_mib: u32,
    pub host_calls: u32,
    /// Maximum bytes of arguments and answers of host calls.
    pub host_bytes: u64,
    /// Maximum concurrent calls of this handler on one node; beyond it callers get 503 with `Retry-After`.
    pub concurrency: u32,
    /// Maximum fetches of one call.
    pub fetches: u32,
    /// Maximum bytes of the body of a fetch, and of its answer.
    pub fetch_bytes: u64,
    /// Maximum fetches of this handler in flight on one node.
    pub fetch_concurrency: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline_ms: 1000,
            cpu_ms: 50,
            memory_mib: 16,
            host_calls: 64,
            host_bytes: 4 * 1024 * 1024,
            concurrency: 256,
            fetches: 8,
            fetch_bytes: 1024 * 1024,
            fetch_concurrency: 32,
        }
    }
}

/// Thresholds of a canary, compared with the running release in the same time and on the same node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// Number of calls without an answer by its fault, from which their rate counts.
    pub failures: u32,
    /// Maximum increase of the failure rate and of the error rate, in percentage points.
    pub error_percent: u32,
    /// Maximum increase of the 90th percentile of the latency, in percent: 100 is twice as slow.
    pub latency_percent: u32,
    /// Number of calls from which errors and latency count.
    pub calls: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { failures: 10, error_percent: 5, latency_percent: 200, calls: 50 }
    }
}

/// Requirements of the release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Needs {
    /// Migrations that must have run, by the numbers of their files.
    #[serde(default)]
    pub migrations: Vec<i64>,
}

/// A pattern that matches exactly, or up to a final `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pattern(String);

impl Pattern {
    pub fn matches(&self, text: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => text.starts_with(prefix),
            None => text == self.0,
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether some text matches both patterns.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self.0.strip_suffix('*'), other.0.strip_suffix('*')) {
            (None, _) => other.matches(&self.0),
            (_, None) => self.matches(&other.0),
            (Some(a), Some(b)) => a.starts_with(b) || b.starts_with(a),
        }
    }
}

impl Manifest {
    pub fn parse(text: &str) -> Result<Self, Error> {
        let manifest: Self =
            toml::from_str(text).map_err(|error| Error::Manifest(error.to_string().trim_end().to_owned()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Returns true if the calls of one connection for this frame type may overlap.
    pub fn is_pipelined(&self, frame_type: &str) -> bool {
        self.on.frame.iter().any(|binding| binding.frame_type == frame_type && binding.pipelined)
    }

    fn check(&self) -> Result<(), Error> {
        let rule =
            |holds: bool, what: &str| if holds { Ok(()) } else { Err(Error::Manifest(what.to_owned())) };

        rule(is_name(&self.name), "`name` is 1 to 64 lower-case letters, digits and dashes")?;
        rule(
            self.on != Bindings::default(),
            "`on` binds nothing: no http, frame, connection, schedule, event, timer, before or call",
        )?;
        for binding in &self.on.http {
            rule(
                matches!(binding.method.as_str(), "GET" | "POST" | "PUT" | "PATCH" | "DELETE"),
                &format!("`on.http` method `{}` is not one of GET, POST, PUT, PATCH, DELETE", binding.method),
            )?;
            rule(
                binding.path.starts_with('/'),
                &format!("`on.http` path `{}` does not begin with /", binding.path),
            )?;
            rule(
                !binding.path.starts_with(OPERATORS) || !binding.public,
                &format!("`on.http` path `{}` is for operators and cannot be public", binding.path),
            )?;
            hooks::check_action(binding).map_err(Error::Manifest)?;
        }
        for binding in &self.on.frame {
            for name in std::iter::once(&binding.frame_type).chain(&binding.aliases) {
                rule(
                    is_frame_type(name),
                    &format!("`on.frame` type `{name}` is not a frame type a handler may take"),
                )?;
            }
        }
        let schedules_max = limits::SCHEDULES_PER_HANDLER_MAX;
        rule(
            self.on.schedule.len() <= schedules_max,
            &format!("`on.schedule` names at most {schedules_max} schedules"),
        )?;
        for binding in &self.on.schedule {
            rule(
                is_name(&binding.name),
                "`on.schedule` needs a `name` of lower-case letters, digits and dashes",
            )?;
            let every_min = ms(limits::SCHEDULE_EVERY_MIN);
            let is_allowed = !matches!(binding.timing, Timing::Every(every_ms) if every_ms < every_min);
            rule(is_allowed, &format!("`on.schedule` every_ms is under {every_min}"))?;
        }
        if let Some(binding) = &self.on.event {
            rule(!binding.types.is_empty(), "`on.event` types is empty")?;
            rule(
                (1..=limits::EVENT_BATCH_MAX).contains(&binding.batch),
                &format!("`on.event` batch is 1 to {}", limits::EVENT_BATCH_MAX),
            )?;
            rule(
                u64::from(binding.pace_ms) <= ms(limits::EVENT_PACE_MAX),
                &format!("`on.event` pace_ms is at most {}", ms(limits::EVENT_PACE_MAX)),
            )?;
            rule(
                (1..=limits::EVENT_ATTEMPTS_MAX).contains(&binding.attempts),
                &format!("`on.event` attempts is 1 to {}", limits::EVENT_ATTEMPTS_MAX),
            )?;
        }
        hooks::check(&self.on.before).map_err(Error::Manifest)?;
        hooks::check_calls(&self.on.call, &self.grants.calls).map_err(Error::Manifest)?;
        if let Some(binding) = &self.on.timer {
            rule(
                (1..=limits::EVENT_ATTEMPTS_MAX).contains(&binding.attempts),
                &format!("`on.timer` attempts is 1 to {}", limits::EVENT_ATTEMPTS_MAX),
            )?;
        }
        rule(
            !self.grants.timers || self.on.timer.is_some(),
            "`grants.timers` needs `on.timer`: without it, the timers of this handler would never fire",
        )?;
        let in_range = |value: u64, most: u64, field: &str| {
            rule((1..=most).contains(&value), &format!("`limits.{field}` is 1 to {most}"))
        };
        in_range(self.limits.deadline_ms, ms(limits::HANDLER_DEADLINE_MAX), "deadline_ms")?;
        in_range(self.limits.cpu_ms, ms(limits::HANDLER_CPU_MAX), "cpu_ms")?;
        in_range(self.limits.memory_mib.into(), limits::HANDLER_MEMORY_MIB_MAX.into(), "memory_mib")?;
        in_range(self.limits.host_calls.into(), limits::HANDLER_HOST_CALLS_MAX.into(), "host_calls")?;
        in_range(self.limits.host_bytes, limits::HANDLER_HOST_BYTES_MAX, "host_bytes")?;
        in_range(self.limits.concurrency.into(), limits::HANDLER_CONCURRENCY_MAX.into(), "concurrency")?;
        in_range(self.limits.fetches.into(), limits::FETCHES_PER_CALL_MAX.into(), "fetches")?;
        in_range(self.limits.fetch_bytes, limits::FETCH_BYTES_MAX, "fetch_bytes")?;
        in_range(
            self.limits.fetch_concurrency.into(),
            limits::FETCH_CONCURRENCY_MAX.into(),
            "fetch_concurrency",
        )?;
        let Thresholds { failures, error_percent, latency_percent, calls } = self.canary;
        rule(
            (1..=limits::CANARY_FAILURES_MAX).contains(&failures),
            &format!("`canary.failures` is 1 to {}", limits::CANARY_FAILURES_MAX),
        )?;
        rule(error_percent <= 100, "`canary.error_percent` is 0 to 100")?;
        rule((1..=10_000).contains(&latency_percent), "`canary.latency_percent` is 1 to 10000")?;
        rule((1..=10_000).contains(&calls), "`canary.calls` is 1 to 10000")?;
        rule(self.needs.migrations.len() <= 100, "`needs.migrations` names at most 100")?;
        if let Some(role) = &self.grants.postgres {
            rule(
                is_role(role),
                "`grants.postgres` is a role: 1 to 40 lower-case letters, digits and underscores",
            )?;
        }
        for queue in &self.grants.wake {
            rule(queue == "outbox", &format!("`grants.wake` accepts only `outbox`, not `{queue}`"))?;
        }
        let secrets_max = limits::SECRETS_PER_HANDLER_MAX;
        rule(
            self.grants.secrets.len() <= secrets_max,
            &format!("`grants.secrets` names at most {secrets_max} secrets"),
        )?;
        for name in &self.grants.secrets {
            rule(
                is_secret_name(name),
                &format!(
                    "`grants.secrets` names `{name}`: a name has capital letters, digits and underscores"
                ),
            )?;
        }
        rule(
            self.grants.fetch.len() <= limits::FETCH_GRANTS_MAX,
            &format!("`grants.fetch` has at most {} grants", limits::FETCH_GRANTS_MAX),
        )?;
        for grant in &self.grants.fetch {
            grant.check(|key| self.has_setting(key)).map_err(Error::Manifest)?;
        }
        rule(
            self.public_settings.len() <= limits::PUBLIC_SETTINGS_MAX,
            &format!("`public_settings` names at most {} settings", limits::PUBLIC_SETTINGS_MAX),
        )?;
        if let Some(build) = &self.build {
            build.check().map_err(Error::Manifest)?;
        }
        self.check_settings()
    }

    /// A copy for display: placeholders replace the values of settings that are not public.
    pub fn to_show(&self) -> Self {
        let mut shown = self.clone();
        for (key, value) in shown.config.iter_mut().filter(|(key, _)| !self.public_settings.contains(key)) {
            *value = toml::Value::String(placeholder(key));
        }
        shown
    }

    /// The text of a setting that the guest reads.
    pub fn setting(value: &toml::Value) -> String {
        match value {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

/// The values of public settings only.
impl std::fmt::Debug for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.to_show();
        f.debug_struct("Manifest")
            .field("name", &shown.name)
            .field("on", &shown.on)
            .field("grants", &shown.grants)
            .field("limits", &shown.limits)
            .field("config", &shown.config)
            .finish_non_exhaustive()
    }
}

/// The prefix of Postgres roles, before the name in `grants.postgres`.
pub const ROLE_PREFIX: &str = "switchboard_";

/// The begin of every placeholder of a setting.
pub const PLACEHOLDER_PREFIX: &str = "[setting ";

/// The placeholder for the value of a setting that is not public.
pub fn placeholder(key: &str) -> String {
    format!("{PLACEHOLDER_PREFIX}{key}]")
}

/// The begin of every placeholder of a secret.
pub const SECRET_PLACEHOLDER_PREFIX: &str = "[secret ";

/// The placeholder for the value of a secret.
pub fn secret_placeholder(name: &str) -> String {
    format!("{SECRET_PLACEHOLDER_PREFIX}{name}]")
}

/// Whether a secret may have this name: A to Z, digits and underscores, beginning with a letter.
pub fn is_secret_name(name: &str) -> bool {
    (1..=limits::SECRET_NAME_BYTES_MAX).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// The milliseconds of a limit, as manifests count times.
fn ms(limit: Duration) -> u64 {
    limit.as_millis() as u64
}

/// Whether a handler may have this name.
pub fn is_name(name: &str) -> bool {
    (1..=limits::MANIFEST_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_role(role: &str) -> bool {
    (1..=limits::ROLE_NAME_BYTES_MAX).contains(&role.len())
        && role.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Whether a handler may bind the name as a frame type. The host answers `auth`, `auth.refresh` and `ping`
/// itself.
fn is_frame_type(name: &str) -> bool {
    const OF_THE_HOST: [&str; 4] = ["auth", "auth.refresh", "ping", "heartbeat"];
    (1..=limits::FRAME_TYPE_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-:".contains(&b))
        && !OF_THE_HOST.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEND: &str = r#"
        name = "send-message"
        on.http = [{ method = "POST", path = "/api/v1/conversations/{conversation_id}/messages" }]
        on.frame = [{ type = "message.send", aliases = ["chat:send-message"] }]
        [grants]
        postgres = "send_message"
        redis = ["rate:*"]
        wake = ["outbox"]
        [limits]
        deadline_ms = 1000
        [config]
        messages_per_minute = 25
    "#;

    #[test]
    fn reads_what_a_handler_declares() {
        let manifest = Manifest::parse(SEND).unwrap();
        assert_eq!(manifest.on.frame[0].aliases, ["chat:send-message"]);
        assert!(manifest.grants.redis[0].matches("rate:ana"));
        assert_eq!(manifest.limits.cpu_ms, Limits::default().cpu_ms);
        assert_eq!(Manifest::setting(&manifest.config["messages_per_minute"]), "25");
    }

    #[test]
    fn connections_are_bound_one_by_one_or_in_batches() {
        let binding = |text: &str| {
            Manifest::parse(&format!("name = \"x\"\non.connection = {{ {text} }}")).map(|it| it.on.connection)
        };
        let both = binding(r#"opened = "batch", closed = true, touched = true"#).unwrap();
        assert_eq!((both.opened, both.closed), (Lifecycle::Batch, Lifecycle::Single));
        assert!(both.binds_single() && both.binds_batches());
        let batches = binding(r#"opened = "batch", closed = false"#).unwrap();
        assert!(!batches.binds_single() && batches.binds_batches() && !batches.closed.is_bound());
        assert!(!binding("missed = [\"conv:*\"]").unwrap().binds_batches());
        let refusal = binding(r#"opened = "batches""#).unwrap_err().to_string();
        assert!(refusal.contains(r#"expected true, false or "batch""#), "{refusal}");
        // A release file, and the answer of the admin API, keep the words.
        let json = serde_json::to_value(&both).unwrap();
        assert_eq!(json["opened"], "batch");
        assert_eq!(serde_json::from_value::<ConnectionBinding>(json).unwrap(), both);
    }

    #[test]
    fn refuses_with_the_field_and_the_rule() {
        for (change, complaint) in [
            (SEND.replace("send-message\"\n", "Send Message\"\n"), "`name`"),
            (SEND.replace("POST", "TRACE"), "`on.http` method `TRACE`"),
            (SEND.replace("message.send", "ping"), "`on.frame` type `ping`"),
            (
                SEND.replace(
                    "\"/api/v1/conversations/{conversation_id}/messages\"",
                    "\"/admin/v1/x\", public = true",
                ),
                "cannot be public",
            ),
            (SEND.replace("1000", "0"), "`limits.deadline_ms`"),
            (SEND.replace("[limits]", "[limits]\ncolour = 1"), "colour"),
            (SEND.replace("\"outbox\"", "\"mail\""), "`grants.wake`"),
            (SEND.replace("[limits]", "secrets = [\"TOKEN\", \"Token\"]\n[limits]"), "`Token`"),
            (SEND.replace("[limits]", "secrets = [\"1ST\"]\n[limits]"), "`1ST`"),
            (SEND.replace("[config]", "[canary]\nfailures = 51\n[config]"), "`canary.failures`"),
            (SEND.replace("[config]", "[canary]\nlatency = 3\n[config]"), "latency"),
            (SEND.replace("[config]", "[needs]\nmigrations = [\"2900\"]\n[config]"), "migrations"),
            ("name = \"x\"".to_owned(), "binds nothing"),
            (SEND.replace("[limits]", "timers = true\n[limits]"), "`grants.timers` needs `on.timer`"),
            ("name = \"x\"\non.timer = { attempts = 0 }".to_owned(), "`on.timer` attempts"),
        ] {
            let refusal = Manifest::parse(&change).unwrap_err().to_string();
            assert!(refusal.contains(complaint), "{refusal}");
        }
    }

    #[test]
    fn only_public_settings_are_shown() {
        let text = SEND.replace("[grants]", "public_settings = [\"messages_per_minute\"]\n[grants]")
            + "key = \"s3cret\"";
        let manifest = Manifest::parse(&text).unwrap();
        let shown = format!("{manifest:?} {}", serde_json::to_string(&manifest.to_show()).unwrap());
        assert!(
            !shown.contains("s3cret") && shown.contains("[setting key]") && shown.contains("25"),
            "{shown}"
        );
    }

    #[test]
    fn patterns_match_exactly_or_by_prefix() {
        let (all, one) = (Pattern("conv:*".into()), Pattern("conv:1".into()));
        assert!(all.matches("conv:1") && one.matches("conv:1") && !one.matches("conv:12"));
        assert!(all.overlaps(&one) && one.overlaps(&all));
        assert!(!all.overlaps(&Pattern("user:*".into())));
    }
}
