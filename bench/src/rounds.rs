//! Interleaved rounds of several variants, and what they say.

use std::time::Duration;

use crate::load::LoadReport;
use crate::statistics::{median, range};

/// The measurements of one variant, round by round.
#[derive(Clone, Debug)]
pub struct Series {
    /// The variant.
    pub name: String,
    /// One report a round.
    pub rounds: Vec<LoadReport>,
}

/// The order of `variants` in a round: as they are in the first, and beginning one later in each
/// after it, so that none is always measured right after the same other one.
pub fn order(variants: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..variants).map(move |position| (position + round) % variants)
}

impl Series {
    /// Medians over the rounds: answers a second, processor microseconds an answer, p50, p99, and
    /// processors used.
    pub fn medians(&self) -> Medians {
        let over =
            |figure: fn(&LoadReport) -> f64| median(&self.rounds.iter().map(figure).collect::<Vec<_>>());
        Medians {
            rate: over(LoadReport::rate),
            cpu_micros: over(LoadReport::cpu_micros_per_answer),
            p50: over(|round| micros(round.p50)),
            p99: over(|round| micros(round.p99)),
            processors: over(LoadReport::processors),
        }
    }

    /// Processor time an answer over another variant's in the same round.
    pub fn cpu_ratio(&self, base: &Self) -> Ratio {
        let pairs = self.rounds.iter().zip(&base.rounds);
        let ratios: Vec<_> = pairs
            .map(|(own, base)| own.cpu_micros_per_answer() / base.cpu_micros_per_answer())
            .collect();
        let (lowest, highest) = range(&ratios);
        Ratio {
            median: median(&ratios),
            lowest,
            highest,
        }
    }

    /// Processor microseconds an answer beyond another variant's in the same round, as a median.
    pub fn cpu_beyond(&self, base: &Self) -> f64 {
        let pairs = self.rounds.iter().zip(&base.rounds);
        let beyond: Vec<_> = pairs
            .map(|(own, base)| own.cpu_micros_per_answer() - base.cpu_micros_per_answer())
            .collect();
        median(&beyond)
    }
}

/// Medians over the rounds of a variant.
#[derive(Clone, Copy, Debug)]
pub struct Medians {
    /// Answers a second.
    pub rate: f64,
    /// Processor microseconds an answer.
    pub cpu_micros: f64,
    /// Median latency in microseconds.
    pub p50: f64,
    /// 99th percentile in microseconds.
    pub p99: f64,
    /// Processors used by the proxy.
    pub processors: f64,
}

/// A ratio over the rounds.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    /// The median.
    pub median: f64,
    /// The lowest of a round.
    pub lowest: f64,
    /// The highest of a round.
    pub highest: f64,
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, cpu_millis: &[u64]) -> Series {
        let round = |millis: &u64| LoadReport {
            answers: 1000,
            elapsed: Duration::from_secs(1),
            cpu: Duration::from_millis(*millis),
            p50: Duration::ZERO,
            p99: Duration::ZERO,
            max: Duration::ZERO,
            sent: 1000,
        };
        Series {
            name: name.into(),
            rounds: cpu_millis.iter().map(round).collect(),
        }
    }

    #[test]
    fn rounds_are_compared_with_their_own_neighbours() {
        // The machine is twice as slow in the second round: that is nobody's overhead.
        let (base, own) = (series("base", &[100, 200, 100]), series("own", &[110, 220, 110]));
        let ratio = own.cpu_ratio(&base);
        assert!((ratio.median - 1.1).abs() < 1e-9 && (ratio.highest - 1.1).abs() < 1e-9);
        assert!((own.cpu_beyond(&base) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn every_variant_has_its_turn_in_every_round() {
        assert_eq!(order(3, 0).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(order(3, 4).collect::<Vec<_>>(), [1, 2, 0]);
    }
}
