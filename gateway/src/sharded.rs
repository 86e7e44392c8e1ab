//! Counters and histograms that many threads write at once: a copy for each few threads, added up
//! only when somebody reads. A count costs one uncontended atomic addition.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many copies there are.
pub(crate) const SHARDS: usize = 8;

/// This thread's copy.
pub(crate) fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    MINE.with(|mine| *mine)
}

/// Keeps neighbours out of each other's cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// A fixed number of counters.
#[derive(Debug)]
pub(crate) struct Counters {
    shards: [Padded<Box<[AtomicU64]>>; SHARDS],
}

impl Counters {
    pub(crate) fn new(cells: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Padded((0..cells).map(|_| AtomicU64::new(0)).collect())),
        }
    }

    pub(crate) fn add(&self, cell: usize, count: u64) {
        self.shards[shard()].0[cell].fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self, cell: usize) -> u64 {
        self.shards
            .iter()
            .map(|shard| shard.0[cell].load(Ordering::Relaxed))
            .sum()
    }
}

/// A fixed number of histograms over durations. The first bucket ends at `FIRST` nanoseconds, each
/// further one at twice the one before it.
#[derive(Debug)]
pub(crate) struct Histograms<const FIRST: u64, const BUCKETS: usize> {
    counters: Counters,
}

/// One histogram, read out.
#[derive(Debug, PartialEq)]
pub(crate) struct Reading {
    /// Upper bounds in seconds with cumulative counts, without the last (+Inf).
    pub(crate) buckets: Vec<(f64, u64)>,
    pub(crate) count: u64,
    pub(crate) sum_seconds: f64,
}

impl<const FIRST: u64, const BUCKETS: usize> Histograms<FIRST, BUCKETS> {
    /// Buckets, the one beyond all bounds, and the sum.
    const WIDTH: usize = BUCKETS + 2;

    pub(crate) fn new(cells: usize) -> Self {
        Self {
            counters: Counters::new(cells * Self::WIDTH),
        }
    }

    pub(crate) fn observe(&self, cell: usize, nanoseconds: u64) {
        let first = cell * Self::WIDTH;
        self.counters.add(first + Self::bucket(nanoseconds), 1);
        self.counters.add(first + BUCKETS + 1, nanoseconds);
    }

    /// What a histogram holds, or nothing if nothing was observed.
    pub(crate) fn read(&self, cell: usize) -> Option<Reading> {
        let first = cell * Self::WIDTH;
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BUCKETS);
        let mut bound = FIRST;
        for bucket in 0..BUCKETS {
            count += self.counters.get(first + bucket);
            buckets.push((seconds(bound), count));
            bound *= 2;
        }
        count += self.counters.get(first + BUCKETS);
        (count > 0).then(|| Reading {
            buckets,
            count,
            sum_seconds: seconds(self.counters.get(first + BUCKETS + 1)),
        })
    }

    fn bucket(nanoseconds: u64) -> usize {
        let times = nanoseconds.saturating_sub(1) / FIRST;
        ((u64::BITS - times.leading_zeros()) as usize).min(BUCKETS)
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_is_below_it() {
        type H = Histograms<250, 4>;
        for (nanoseconds, bucket) in [
            (0, 0),
            (1, 0),
            (250, 0),
            (251, 1),
            (500, 1),
            (501, 2),
            (1000, 2),
            (1001, 3),
            (2000, 3),
            (2001, 4),
            (u64::MAX, 4),
        ] {
            assert_eq!(H::bucket(nanoseconds), bucket, "{nanoseconds}");
        }
    }

    #[test]
    fn threads_add_up() {
        let histograms = Histograms::<250, 4>::new(2);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| histograms.observe(1, 300)));
            }
        });
        assert_eq!(histograms.read(0), None);
        let reading = histograms.read(1).unwrap();
        assert_eq!(
            (reading.count, reading.buckets[0].1, reading.buckets[1].1),
            (4000, 0, 4000)
        );
        assert!((reading.sum_seconds - 0.0012).abs() < 1e-9);
    }
}
