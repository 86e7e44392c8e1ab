//! How many requests may be offered to another server: a share of all, so that an outage does not
//! multiply the load of what is left.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::upstream_config::RetryConfig;

/// Retries and requests are compared over this time.
const WINDOW: Duration = Duration::from_secs(10);
/// Retries of a window that need no requests to go with them.
const LEAST: u64 = 10;

#[derive(Debug)]
pub(super) struct RetryBudget {
    config: RetryConfig,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    /// The requests before it.
    requests: u64,
    retries: u64,
}

impl RetryBudget {
    pub(super) fn new(config: RetryConfig) -> Self {
        Self {
            config,
            window: Mutex::default(),
        }
    }

    /// The most servers that a request is offered to.
    pub(super) fn attempts(&self) -> usize {
        self.config.attempts
    }

    /// Takes a retry, if there is one. `requests` is the number of all requests so far.
    pub(super) fn take(&self, now: Instant, requests: u64) -> bool {
        if self.config.budget == 0 {
            return false;
        }
        let mut window = self.window.lock();
        if window
            .began
            .is_none_or(|began| now.saturating_duration_since(began) >= WINDOW)
        {
            *window = Window {
                began: Some(now),
                requests,
                retries: 0,
            };
        }
        let share = (requests - window.requests.min(requests)) * u64::from(self.config.budget) / 100;
        let within = window.retries < LEAST + share;
        window.retries += u64::from(within);
        within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_requests() {
        let budget = RetryBudget::new(RetryConfig {
            attempts: 4,
            budget: 20,
        });
        let start = Instant::now();
        let taken = |requests, at| (0..1000).filter(|_| budget.take(at, requests)).count();
        assert_eq!(taken(500, start), 10);
        assert_eq!(taken(600, start), 20);
        assert_eq!(taken(600, start + WINDOW), 10);
        let none = RetryBudget::new(RetryConfig {
            attempts: 4,
            budget: 0,
        });
        assert!(!none.take(start, 1000));
    }
}
