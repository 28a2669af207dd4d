//! The schedules of a manifest: at intervals (`every_ms`), or at the times of a cron expression.

use serde::{Deserialize, Serialize};

use super::cron::Cron;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct ScheduleBinding {
    pub name: String,
    pub timing: Timing,
    /// `fleet` (one node at a time, the default) or `node` (each node by itself).
    pub scope: Scope,
}

/// When a schedule is due.
#[derive(Clone, Debug, PartialEq)]
pub enum Timing {
    /// Each time after this many milliseconds.
    Every(u64),
    Cron(Cron),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    #[default]
    Fleet,
    Node,
}

/// A schedule as a manifest writes it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    every_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cron: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
    #[serde(default)]
    scope: Scope,
}

impl TryFrom<Written> for ScheduleBinding {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { name, every_ms, cron, time_zone, scope } = written;
        let timing = match (every_ms, cron, time_zone) {
            (Some(every_ms), None, None) => Timing::Every(every_ms),
            (None, Some(cron), zone) => Timing::Cron(
                Cron::parse(&cron, zone.as_deref()).map_err(|why| format!("schedule `{name}`: {why}"))?,
            ),
            (Some(_), None, Some(_)) => {
                return Err(format!("schedule `{name}`: `time_zone` belongs to `cron`, not to `every_ms`"));
            }
            _ => return Err(format!("schedule `{name}` needs `every_ms` or `cron`, and not both")),
        };
        Ok(Self { name, timing, scope })
    }
}

impl From<ScheduleBinding> for Written {
    fn from(binding: ScheduleBinding) -> Self {
        let (every_ms, cron, time_zone) = match binding.timing {
            Timing::Every(every_ms) => (Some(every_ms), None, None),
            Timing::Cron(cron) => {
                (None, Some(cron.expression().to_owned()), Some(cron.time_zone().to_owned()))
            }
        };
        Self { name: binding.name, every_ms, cron, time_zone, scope: binding.scope }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    fn schedule(text: &str) -> Result<ScheduleBinding, String> {
        Manifest::parse(&format!("name = \"x\"\non.schedule = [{{ name = \"a\", {text} }}]"))
            .map(|mut manifest| manifest.on.schedule.remove(0))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_schedule_has_a_period_or_a_cron_expression() {
        let period = schedule("every_ms = 1000, scope = \"node\"").unwrap();
        assert_eq!((&period.timing, period.scope), (&Timing::Every(1000), Scope::Node));
        let cron = schedule("cron = \"0 9 * * 1-5\", time_zone = \"Europe/Berlin\"").unwrap();
        assert_eq!(cron.scope, Scope::Fleet);
        // A release file in Postgres keeps the words of the manifest, and older nodes read the old ones.
        for (binding, json) in [
            (period, r#"{"name":"a","every_ms":1000,"scope":"node"}"#),
            (cron, r#"{"name":"a","cron":"0 9 * * 1-5","time_zone":"Europe/Berlin","scope":"fleet"}"#),
        ] {
            assert_eq!(serde_json::to_string(&binding).unwrap(), json);
            assert_eq!(serde_json::from_str::<ScheduleBinding>(json).unwrap(), binding);
        }
    }

    #[test]
    fn a_wrong_schedule_is_refused_with_its_name() {
        for (text, complaint) in [
            ("scope = \"node\"", "schedule `a` needs `every_ms` or `cron`"),
            ("every_ms = 1000, cron = \"0 9 * * *\"", "not both"),
            ("every_ms = 1000, time_zone = \"UTC\"", "`time_zone` belongs to `cron`"),
            ("every_ms = 1", "every_ms is under 100"),
            ("cron = \"0 25 * * *\"", "schedule `a`: `cron`, hour `25`"),
            ("cron = \"0 9 * * *\", time_zone = \"Berlin\"", "`Berlin`"),
            ("cron = \"0 9 * * *\", zone = \"UTC\"", "zone"),
        ] {
            let refusal = schedule(text).unwrap_err();
            assert!(refusal.contains(complaint), "{refusal}");
        }
    }
}
