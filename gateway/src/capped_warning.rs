//! A warning that clients can cause as often as they like, said once a second at most.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The time between two warnings of a kind.
const INTERVAL: Duration = Duration::from_secs(1);

/// When it was said last, and how often not.
#[derive(Debug)]
pub(crate) struct CappedWarning {
    started: Instant,
    /// Nanoseconds since `started` at which it may be said again.
    next: AtomicU64,
    unsaid: AtomicU64,
}

impl Default for CappedWarning {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            next: AtomicU64::new(0),
            unsaid: AtomicU64::new(0),
        }
    }
}

impl CappedWarning {
    /// Whether to say it at `now`; then with how often it was not said before.
    pub(crate) fn occurred(&self, now: Instant) -> Option<u64> {
        let since = now.saturating_duration_since(self.started);
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let next = self.next.load(Ordering::Relaxed);
        let is_ours = nanoseconds(since) >= next
            && self
                .next
                .compare_exchange(
                    next,
                    nanoseconds(since + INTERVAL),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok();
        if is_ours {
            return Some(self.unsaid.swap(0, Ordering::Relaxed));
        }
        self.unsaid.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_a_second_with_how_often_it_was_not() {
        let warning = CappedWarning::default();
        let now = Instant::now();
        assert_eq!(warning.occurred(now), Some(0));
        for _ in 0..5 {
            assert_eq!(warning.occurred(now + INTERVAL / 2), None);
        }
        assert_eq!(warning.occurred(now + 2 * INTERVAL), Some(5));
        assert_eq!(warning.occurred(now + 2 * INTERVAL), None);
    }
}
