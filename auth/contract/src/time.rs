//! Wall-clock instants as tokens and entries carry them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The largest clock leeway that an issuer may be configured with.
pub const MAX_LEEWAY: Duration = Duration::from_secs(60);

/// How long an entry outlives the last credential that it covers: twice the largest leeway, so
/// that two clocks that err in opposite directions do not resurrect a revoked credential.
pub const RETENTION_SLACK: Duration = Duration::from_secs(2 * MAX_LEEWAY.as_secs());

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
