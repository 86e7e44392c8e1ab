//! The one place that reads the wall clock. Everything else is handed a [`Clock`], so that tests
//! move time instead of waiting for it.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use durward_contract::UnixSeconds;

/// Where the service learns what time it is.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The wall clock, which may be stepped.
    fn now(&self) -> UnixSeconds;

    /// Time since some fixed instant; never goes backwards.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> UnixSeconds {
        // A machine whose clock stands before 1970 is at 1970: its tokens have expired everywhere.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixSeconds(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}
