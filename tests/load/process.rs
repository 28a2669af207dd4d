//! Processor time and resident memory of a process, from the operating system.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Ticks per second in /proc; the same on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// User and system time of all its threads so far.
pub(crate) fn cpu(pid: u32) -> Duration {
    Stat::of(pid).map_or(Duration::ZERO, |stat| stat.own)
}

/// The same of a process and its children, also of those that have ended: Postgres has a process for each
/// connection.
fn cpu_with_children(pid: u32) -> Duration {
    let Some(stat) = Stat::of(pid) else { return Duration::ZERO };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let children = pids.filter_map(Stat::of).filter(|child| child.parent == pid);
    children.fold(stat.own + stat.ended_children, |sum, child| sum + child.own + child.ended_children)
}

/// Whether this process, a child of ours, has ended.
pub(crate) fn has_ended(pid: u32) -> bool {
    Stat::of(pid).is_none_or(|stat| matches!(stat.state, 'Z' | 'X'))
}

/// The measured part of /proc/PID/stat.
struct Stat {
    state: char,
    parent: u32,
    own: Duration,
    /// Of the children that have ended and whose end the process has noticed.
    ended_children: Duration,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The program's name may hold anything, so fields are counted from the parenthesis behind it.
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |place: usize| fields.get(place)?.parse::<u64>().ok();
        let time = |user, system| {
            Some(Duration::from_millis((ticks(user)? + ticks(system)?) * 1000 / TICKS_PER_SECOND))
        };
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            own: time(11, 12)?,
            ended_children: time(13, 14)?,
        })
    }
}

/// Measures the processor time of a server, and of the Postgres behind it, from now on.
pub(crate) struct Meter {
    server: u32,
    postgres: Option<u32>,
    before: Cpu,
}

/// Processor time of both. That of Postgres includes what it does by itself, and for the idle node while a
/// peer is measured.
#[derive(Clone, Copy)]
pub(crate) struct Cpu {
    server: Duration,
    postgres: Option<Duration>,
}

impl Meter {
    pub(crate) fn start(server: u32, postgres: Option<u32>) -> Self {
        Self { server, postgres, before: Cpu::so_far(server, postgres) }
    }

    pub(crate) fn read(&self) -> Cpu {
        let now = Cpu::so_far(self.server, self.postgres);
        let postgres = now.postgres.zip(self.before.postgres);
        Cpu {
            server: now.server.saturating_sub(self.before.server),
            postgres: postgres.map(|(now, before)| now.saturating_sub(before)),
        }
    }
}

impl Cpu {
    fn so_far(server: u32, postgres: Option<u32>) -> Self {
        Self { server: cpu(server), postgres: postgres.map(cpu_with_children) }
    }

    /// Microseconds of the server for each operation.
    pub(crate) fn server_us(&self, operations: f64) -> Option<f64> {
        Some(self.server.as_micros() as f64 / operations)
    }

    /// Microseconds of Postgres for each operation. `None` if the server has no Postgres.
    pub(crate) fn postgres_us(&self, operations: f64) -> Option<f64> {
        self.postgres.map(|cpu| cpu.as_micros() as f64 / operations)
    }
}

pub(crate) fn resident_kib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

/// Open files and sockets.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Raises the bound of open files to the wanted number, or to the allowed maximum. Child processes inherit
/// it.
pub(crate) fn raise_descriptors(wanted: u64) {
    let now = getrlimit(Resource::Nofile);
    let most = now.maximum.map_or(wanted, |most| most.max(wanted));
    // Only a privileged process can raise its hard bound; others use theirs.
    let tries = [most, now.maximum.unwrap_or(wanted)];
    let raised = tries.into_iter().find(|most| {
        let limit = Rlimit { current: Some(wanted.min(*most)), maximum: Some(*most) };
        setrlimit(Resource::Nofile, limit).is_ok()
    });
    if raised.is_none_or(|most| most < wanted) {
        println!("  no more than {raised:?} open files: rows with many sockets will be short of them");
    }
}
