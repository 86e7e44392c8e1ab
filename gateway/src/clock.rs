//! The clocks. Wall time decides on token times, monotonic time on the age of news; both are read
//! here only, and both can be set by a test.

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
        match self {
            Self::System(start) => start.elapsed(),
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
