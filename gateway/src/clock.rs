//! The clocks. Wall time decides on token times, monotonic time on the age of news; both are read
//! here only, and both can be set by a test.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use durward_contract::UnixSeconds;

/// The wall clock, since 1970.
pub(crate) fn wall() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "this is clock.rs")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// For how long the wall clock is not read again.
const WALL_AGE: Duration = Duration::from_millis(1);

/// The wall clock at `now`, which was read just now. Read again after [`WALL_AGE`]; meanwhile the
/// monotonic clock carries it on.
pub(crate) fn wall_at(now: Instant) -> Duration {
    thread_local! {
        static READ: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
    }
    if let Some((at, wall)) = READ.get()
        && let Some(since) = now.checked_duration_since(at)
        && since < WALL_AGE
    {
        return wall + since;
    }
    let wall = wall();
    READ.set(Some((now, wall)));
    wall
}

thread_local! {
    static LATEST: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The monotonic clock.
pub(crate) fn now() -> Instant {
    let now = Instant::now();
    LATEST.set(Some(now));
    now
}

/// What [`now`] said last on this thread.
pub(crate) fn latest() -> Instant {
    LATEST.get().unwrap_or_else(now)
}

/// A wall instant in whole seconds, rounded down.
pub(crate) fn unix_seconds(wall: Duration) -> UnixSeconds {
    UnixSeconds(i64::try_from(wall.as_secs()).unwrap_or(i64::MAX))
}

/// A clock that never goes backwards, read as the time since it was made.
#[derive(Clone, Debug)]
pub(crate) enum Monotonic {
    /// The machine's.
    System(Instant),
    /// A test's, in nanoseconds.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests advance it"))]
    Manual(Arc<AtomicU64>),
}

impl Monotonic {
    pub(crate) fn system() -> Self {
        Self::System(Instant::now())
    }

    pub(crate) fn now(&self) -> Duration {
        self.at(Instant::now())
    }

    /// What it says at `now`, which was read just now.
    pub(crate) fn at(&self, now: Instant) -> Duration {
        match self {
            Self::System(start) => now.saturating_duration_since(*start),
            Self::Manual(nanoseconds) => Duration::from_nanos(nanoseconds.load(Ordering::SeqCst)),
        }
    }
}

#[cfg(test)]
impl Monotonic {
    /// A clock at zero and its handle.
    pub(crate) fn manual() -> (Self, ManualClock) {
        let nanoseconds = Arc::new(AtomicU64::new(0));
        (Self::Manual(Arc::clone(&nanoseconds)), ManualClock(nanoseconds))
    }
}

/// Moves a manual clock.
#[cfg(test)]
pub(crate) struct ManualClock(Arc<AtomicU64>);

#[cfg(test)]
impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0
            .fetch_add(u64::try_from(by.as_nanos()).unwrap(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_goes_on_between_its_readings() {
        let start = Instant::now();
        let wall = wall_at(start);
        let soon = WALL_AGE / 2;
        assert_eq!(wall_at(start + soon), wall + soon);
        let again = wall_at(start + WALL_AGE);
        assert!(again >= wall && again <= super::wall(), "read again");
    }
}
