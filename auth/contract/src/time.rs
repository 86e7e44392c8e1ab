//! Wall-clock instants as tokens and entries carry them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The largest clock leeway that an issuer may be configured with.
pub const MAX_LEEWAY: Duration = Duration::from_secs(60);

/// How long an entry outlives the last credential that it covers: twice the largest leeway, so
/// that two clocks that err in opposite directions do not resurrect a revoked credential.
pub const RETENTION_SLACK: Duration = Duration::from_secs(2 * MAX_LEEWAY.as_secs());

/// The longest that an access token of our own may live.
pub const MAX_ACCESS_TOKEN_TTL: Duration = Duration::from_secs(3600);

/// For how long after its start a process forgets nothing: as long as whatever was revoked before may
/// still be valid.
pub const FORGETS_NOTHING_FOR: Duration =
    Duration::from_secs(MAX_ACCESS_TOKEN_TTL.as_secs() + RETENTION_SLACK.as_secs());

/// By when a process may forget what it was told to refuse.
///
/// Its wall clock may be wrong: set ahead by mistake while it runs, or not set yet when it starts. So
/// nothing is forgotten in the beginning, and later never more than has really passed since the start.
#[derive(Clone, Copy, Debug)]
pub struct Forgetting {
    started: UnixSeconds,
}

impl Forgetting {
    /// Of a process that starts when its wall clock says this.
    pub const fn since(started: UnixSeconds) -> Self {
        Self { started }
    }

    /// What ends by this instant may be forgotten, when the wall clock says `now` and `elapsed` has
    /// passed since the start by a clock that nobody sets.
    pub fn until(self, now: UnixSeconds, elapsed: Duration) -> UnixSeconds {
        if elapsed < FORGETS_NOTHING_FOR {
            return UnixSeconds(i64::MIN);
        }
        now.min(self.started.plus(elapsed))
    }
}

/// Seconds since 1970-01-01T00:00:00Z, leap seconds not counted (RFC 7519 NumericDate).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixSeconds(pub i64);

impl UnixSeconds {
    /// This instant moved later; saturates.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)),
        )
    }

    /// This instant moved earlier; saturates.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: UnixSeconds = UnixSeconds(i64::MIN);
    const HOUR: i64 = 3600;

    #[test]
    fn what_is_forgotten_ended_by_both_clocks_and_not_in_the_beginning() {
        let forgetting = Forgetting::since(UnixSeconds(1000));
        let until = |now: i64, elapsed: i64| {
            forgetting.until(UnixSeconds(now), Duration::from_secs(elapsed.try_into().unwrap()))
        };
        assert_eq!(until(1000, 0), NOTHING);
        assert_eq!(until(1000 + HOUR, HOUR), NOTHING);
        assert_eq!(until(1000 + 2 * HOUR, 2 * HOUR), UnixSeconds(1000 + 2 * HOUR));
        assert_eq!(
            until(1000 + 90 * HOUR, 2 * HOUR),
            UnixSeconds(1000 + 2 * HOUR),
            "the clock was set ahead"
        );
        assert_eq!(
            until(500, 2 * HOUR),
            UnixSeconds(500),
            "it was ahead at the start"
        );
        assert!(
            until(90 * HOUR, 10) == NOTHING,
            "it is ahead, and will be set back"
        );
    }
}
