//! How reloads went, for the metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto::{MetricFamily, MetricType};

use crate::clock;
use crate::metrics::{counter, family, single_gauge};

/// Counts reloads by what came of them.
#[derive(Debug)]
pub(crate) struct Reloads {
    taken_over: AtomicU64,
    refused: AtomicU64,
    last_was_good: AtomicBool,
    /// Wall time of the last that was taken over, or of the start, in milliseconds.
    good_at: AtomicU64,
}

impl Default for Reloads {
    fn default() -> Self {
        Self {
            taken_over: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            last_was_good: AtomicBool::new(true),
            good_at: AtomicU64::new(milliseconds(clock::wall())),
        }
    }
}

impl Reloads {
    pub(crate) fn note(&self, taken_over: bool) {
        self.last_was_good.store(taken_over, Ordering::Relaxed);
        if taken_over {
            self.good_at.store(milliseconds(clock::wall()), Ordering::Relaxed);
        }
        let count = if taken_over {
            &self.taken_over
        } else {
            &self.refused
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn families(&self) -> Vec<MetricFamily> {
        let results = [("success", &self.taken_over), ("failure", &self.refused)];
        let results =
            results.map(|(result, count)| counter(&[("result", result)], count.load(Ordering::Relaxed)));
        let good_at = Duration::from_millis(self.good_at.load(Ordering::Relaxed));
        vec![
            family(
                "durward_config_reloads_total",
                "Reloads of the configuration",
                MetricType::COUNTER,
                results.into(),
            ),
            single_gauge(
                "durward_config_last_reload_successful",
                "0 where the last reload was refused, and the configuration before it runs on",
                f64::from(u8::from(self.last_was_good.load(Ordering::Relaxed))),
            ),
            single_gauge(
                "durward_config_last_reload_timestamp_seconds",
                "When the configuration that runs was taken over",
                good_at.as_secs_f64(),
            ),
        ]
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
