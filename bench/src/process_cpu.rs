//! The processor time that a process has used, from `/proc`.

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
    fn this_process_can_be_read() {
        assert!(of(std::process::id()).is_ok());
        assert!(resident_bytes(std::process::id()).is_ok_and(|bytes| bytes > 1 << 16));
    }
}
