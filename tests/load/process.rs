//! Processor time and resident memory of a process, from the operating system.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Ticks per second in /proc; the same on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// User and system time of all its threads so far.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The program's name may hold anything, so fields are counted from the parenthesis behind it.
    let fields: Vec<_> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 1000 / TICKS_PER_SECOND)
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
