//! The processor time that processes, and all of them together, have used, from `/proc`.

use std::fs;
use std::time::Duration;

use crate::Fallible;

/// The unit of the times in `/proc/PID/stat` is 1/100 s on every Linux architecture (`USER_HZ`; proc(5)).
const TICKS_PER_SECOND: u32 = 100;

/// User and system time of all threads of a process, ended ones included.
pub fn of(pid: u32) -> Fallible<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    parse(&text).ok_or_else(|| format!("cannot understand {path}").into())
}

/// Fields 14 and 15. The second field is the program's name in parentheses and may hold anything,
/// so the count begins behind its last parenthesis.
fn parse(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11);
    let user: u32 = times.next()?.parse().ok()?;
    let system: u32 = times.next()?.parse().ok()?;
    Some(Duration::from_secs(1) * (user + system) / TICKS_PER_SECOND)
}

/// The same in nanoseconds, of the threads that live: what a few bans cost is less than a tick.
pub fn of_live_threads(pid: u32) -> Fallible<Duration> {
    let folder = format!("/proc/{pid}/task");
    let threads = fs::read_dir(&folder).map_err(|error| format!("cannot read {folder}: {error}"))?;
    let mut total = Duration::ZERO;
    for thread in threads {
        // A thread may end between the listing and the look at it.
        if let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) {
            let nanoseconds = text
                .split_ascii_whitespace()
                .next()
                .and_then(|field| field.parse().ok());
            total += Duration::from_nanos(nanoseconds.ok_or("cannot understand a schedstat")?);
        }
    }
    Ok(total)
}

/// [`of_live_threads`] of a process and of its children: a server that forks for each connection.
pub fn of_family(pid: u32) -> Fallible<Duration> {
    let mut total = of_live_threads(pid)?;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(other) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(format!("/proc/{other}/stat")).unwrap_or_default();
        if parent(&stat) == Some(pid) {
            // It may end in between.
            total += of_live_threads(other).unwrap_or_default();
        }
    }
    Ok(total)
}

/// Field 4 of `/proc/PID/stat`.
fn parent(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// What all processors have done since the machine started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineTime {
    busy: u64,
    all: u64,
}

impl MachineTime {
    /// Now, of every process.
    pub fn now() -> Fallible<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        Self::parse(&text).ok_or_else(|| "cannot understand /proc/stat".into())
    }

    /// The first line: user, nice, system, idle, iowait, irq, softirq, steal; the guests after them
    /// are counted in the first two.
    fn parse(stat: &str) -> Option<Self> {
        let times = stat.lines().next()?.strip_prefix("cpu ")?;
        let times: Vec<u64> = times
            .split_ascii_whitespace()
            .take(8)
            .map(|field| field.parse().ok())
            .collect::<Option<_>>()?;
        let all = times.iter().sum();
        let idle: u64 = times.get(3..5)?.iter().sum();
        Some(Self {
            busy: all - idle,
            all,
        })
    }

    /// The share of all processors that was in use between then and this; 0 to 1.
    pub fn share_since(self, then: Self) -> f64 {
        let all = self.all.saturating_sub(then.all);
        self.busy.saturating_sub(then.busy) as f64 / (all.max(1)) as f64
    }
}

/// The resident memory of a process, in bytes.
pub fn resident_bytes(pid: u32) -> Fallible<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: Option<u64> = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    Ok(kilobytes.ok_or_else(|| format!("{path} does not tell the resident memory"))? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 150 25 7 8 20 0 3 0 100 1 1";
        assert_eq!(parse(stat), Some(Duration::from_millis(1750)));
        assert_eq!(parse("42 (a) S 1"), None);
    }

    #[test]
    fn what_waits_is_not_busy() {
        let then = MachineTime::parse("cpu  10 0 10 100 20 0 0 0 7 7\ncpu0 1\n").unwrap();
        let now = MachineTime::parse("cpu  30 5 20 150 30 0 5 0 9 9\n").unwrap();
        assert!((now.share_since(then) - 40.0 / 100.0).abs() < 1e-9);
        assert_eq!(MachineTime::parse("cpu  1 2\n"), None);
    }

    #[test]
    fn parents_are_found() {
        assert_eq!(parent("43 (postgres: a) S 42 43"), Some(42));
    }

    #[test]
    fn this_process_can_be_read() {
        assert!(of(std::process::id()).is_ok());
        assert!(of_live_threads(std::process::id()).is_ok_and(|time| !time.is_zero()));
        assert!(of_family(std::process::id()).is_ok());
        assert!(MachineTime::now().is_ok());
        assert!(resident_bytes(std::process::id()).is_ok_and(|bytes| bytes > 1 << 16));
    }
}
