//! Whether a server is fit to be asked: what health checks say of it, and what its requests do.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::upstream_config::EjectionConfig;

/// What is known of a server. Times are those since the upstream's epoch.
#[derive(Debug, Default)]
pub(super) struct ServerHealth {
    /// The health checks have found it down.
    down: AtomicBool,
    /// Until when it is left out, in milliseconds; 0 where it never was.
    out_until: AtomicU64,
    /// Requests that failed in a row.
    failures: AtomicU32,
    ejected: Mutex<Ejected>,
    checked: Mutex<Checked>,
}

/// How it was left out before.
#[derive(Clone, Copy, Debug, Default)]
struct Ejected {
    times: u32,
    last: Duration,
}

/// The health checks so far.
#[derive(Clone, Copy, Debug, Default)]
struct Checked {
    any: bool,
    in_a_row: u32,
}

/// That a server is left out.
pub(super) struct Ejection {
    pub(super) until: Duration,
    pub(super) for_: Duration,
}

impl ServerHealth {
    /// Whether it is neither down nor left out. The time is asked for where it matters.
    #[inline]
    pub(super) fn is_fit(&self, now: impl FnOnce() -> Duration) -> bool {
        if self.down.load(Ordering::Relaxed) {
            return false;
        }
        let until = self.out_until.load(Ordering::Relaxed);
        until == 0 || until <= milliseconds(now())
    }

    /// Whether it is not left out.
    pub(super) fn is_in(&self, now: Duration) -> bool {
        self.out_until.load(Ordering::Relaxed) <= milliseconds(now)
    }

    /// A request was answered.
    pub(super) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// A request failed; whether that makes `enough` in a row.
    pub(super) fn failed(&self, enough: u32) -> bool {
        self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= enough
    }

    /// Leaves it out, for twice as long as the last time; for the shortest time where it was in for as
    /// long as it was out before.
    pub(super) fn eject(&self, now: Duration, config: &EjectionConfig) -> Ejection {
        let mut ejected = self.ejected.lock();
        let back = Duration::from_millis(self.out_until.load(Ordering::Relaxed));
        let recovered = now.saturating_sub(back) >= ejected.last;
        ejected.times = if recovered { 1 } else { ejected.times + 1 };
        let factor = 1_u32.checked_shl(ejected.times - 1).unwrap_or(u32::MAX);
        ejected.last = config.shortest.saturating_mul(factor).min(config.longest);
        let until = now + ejected.last;
        self.failures.store(0, Ordering::Relaxed);
        self.out_until
            .store(milliseconds(until).max(1), Ordering::Relaxed);
        Ejection {
            until,
            for_: ejected.last,
        }
    }

    /// A health check has ended; whether it changes what is known. The first decides alone.
    pub(super) fn checked(&self, well: bool, unhealthy_after: u32, healthy_after: u32) -> bool {
        let mut checked = self.checked.lock();
        let was_well = !self.down.load(Ordering::Relaxed);
        let first = !std::mem::replace(&mut checked.any, true);
        if well == was_well {
            checked.in_a_row = 0;
            return false;
        }
        checked.in_a_row += 1;
        let enough = if well { healthy_after } else { unhealthy_after };
        if !first && checked.in_a_row < enough {
            return false;
        }
        checked.in_a_row = 0;
        self.down.store(!well, Ordering::Relaxed);
        true
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_time_it_is_left_out_for_twice_as_long() {
        let config = EjectionConfig {
            failures: 2,
            shortest: 10 * SECOND,
            longest: 35 * SECOND,
        };
        let health = ServerHealth::default();
        assert!(!health.failed(2));
        assert!(health.failed(2));
        health.succeeded();
        assert!(!health.failed(2), "not in a row");
        let mut now = 100 * SECOND;
        for expected in [10, 20, 35, 35] {
            let ejection = health.eject(now, &config);
            assert_eq!(ejection.for_, expected * SECOND);
            assert!(!health.is_fit(|| now) && !health.is_in(now));
            now = ejection.until;
            assert!(health.is_fit(|| now));
            now += SECOND;
        }
        now += 40 * SECOND;
        assert_eq!(health.eject(now, &config).for_, 10 * SECOND, "it had recovered");
    }

    #[test]
    fn checks_have_thresholds_and_the_first_decides() {
        let health = ServerHealth::default();
        assert!(health.checked(false, 3, 2), "the first");
        assert!(!health.is_fit(Duration::default));
        assert!(!health.checked(true, 3, 2));
        assert!(!health.checked(false, 3, 2));
        assert!(!health.checked(true, 3, 2), "not in a row");
        assert!(health.checked(true, 3, 2));
        assert!(health.is_fit(Duration::default));
        assert!(!health.checked(false, 3, 2));
        assert!(!health.checked(false, 3, 2));
        assert!(health.checked(false, 3, 2));
    }
}
