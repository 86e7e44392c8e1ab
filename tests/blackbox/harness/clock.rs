//! The wall clock for tokens, and waiting for what has no event of its own.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::PATIENCE;

const POLL_EVERY: Duration = Duration::from_millis(5);

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "tokens need the time of day")]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// Asks again and again until there is an answer.
#[track_caller]
pub fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = found() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(POLL_EVERY);
    }
}
