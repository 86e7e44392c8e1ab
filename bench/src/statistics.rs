//! Medians, percentiles and straight lines.

use std::time::Duration;

/// The middle of some numbers; the mean of the middle two where their number is even. Zero of none.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The smallest and the largest.
pub fn range(numbers: &[f64]) -> (f64, f64) {
    let smallest = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    (
        smallest,
        numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    )
}

/// The number that `share` of the sorted numbers do not exceed (nearest rank). Zero of none.
pub fn percentile(sorted: &[u64], share: f64) -> u64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .or(sorted.last())
        .copied()
        .unwrap_or_default()
}

/// Nanoseconds, in order, as [`percentile`] takes them.
pub fn sorted_nanos(durations: impl IntoIterator<Item = Duration>) -> Vec<u64> {
    let mut sorted: Vec<_> = durations.into_iter().map(nanos).collect();
    sorted.sort_unstable();
    sorted
}

/// A duration in nanoseconds.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The straight line through points with the least squares of vertical distances: what it is at
/// zero, and how much it rises by one. Flat where all points stand above each other.
pub fn line_through(points: &[(f64, f64)]) -> (f64, f64) {
    let number = points.len().max(1) as f64;
    let (x, y) = points
        .iter()
        .fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    let (x, y) = (x / number, y / number);
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let together: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let slope = if spread > 0.0 { together / spread } else { 0.0 };
    (y - slope * x, slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn the_line_through_points() {
        assert_eq!(line_through(&[(1.0, 5.0), (3.0, 9.0)]), (3.0, 2.0));
        assert_eq!(line_through(&[(2.0, 5.0), (2.0, 7.0)]), (6.0, 0.0));
        assert_eq!(line_through(&[]), (0.0, 0.0));
    }

    #[test]
    fn the_nearest_rank() {
        let numbers: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&numbers, 0.5), 50);
        assert_eq!(percentile(&numbers, 0.99), 99);
        assert_eq!(percentile(&numbers, 1.0), 100);
        assert_eq!(percentile(&[7], 0.99), 7);
        assert_eq!(percentile(&[], 0.99), 0);
    }
}
