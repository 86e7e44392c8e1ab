//! Lookup mode: asking the application's own store whether a token is listed.
//!
//! All requests share one connection, on which their questions are pipelined; it lives on a thread
//! of its own. What cannot be asked is unknown at once, and what is not answered within the deadline
//! is unknown then: no question waits in a queue, and no error is ever read as "not listed".

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use durward_news::RedisTarget;
use durward_policy::{Lookup, LookupAnswer, LookupKeys};

use crate::sharded::{Histograms, Reading};
use crate::store_connection::StoreConnection;

mod exist;
mod recheck;

use exist::{ListProbe, exist};

/// The most requests that ask at the same time; whoever comes then is not answered for.
const MAX_IN_FLIGHT: usize = 1024;

/// From 10 us to 1.3 s.
type LookupTimes = Histograms<10_000, 18>;

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The store said for every key whether it has it.
    Answered,
    /// The deadline passed.
    Late,
    /// The store's answer was an error, or is none.
    Failed,
    /// There is no connection.
    Down,
    /// Too many were asking.
    Overloaded,
}

impl Outcome {
    const ALL: [Self; 5] = [
        Self::Answered,
        Self::Late,
        Self::Failed,
        Self::Down,
        Self::Overloaded,
    ];

    /// The word for it in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Late => "late",
            Self::Failed => "failed",
            Self::Down => "down",
            Self::Overloaded => "overloaded",
        }
    }
}

/// Asks the store.
pub(crate) struct Lookups {
    store: StoreConnection<ListProbe>,
    deadline: Duration,
    recheck: Duration,
    in_flight: AtomicUsize,
    started: Instant,
    /// When the store last answered, in nanoseconds since `started`; 0 where it never has.
    answered: AtomicU64,
    times: LookupTimes,
}

impl Lookups {
    /// Connects to nothing yet.
    pub(crate) fn new(lookup: &Lookup, target: &RedisTarget) -> Arc<Self> {
        Arc::new(Self {
            store: StoreConnection::new("revocation store", ListProbe::new(lookup), target),
            deadline: lookup.deadline(),
            recheck: lookup.recheck(),
            in_flight: AtomicUsize::new(0),
            started: Instant::now(),
            answered: AtomicU64::new(0),
            times: LookupTimes::new(Outcome::ALL.len()),
        })
    }

    /// Asks for the keys of one token.
    pub(crate) async fn ask(&self, keys: &LookupKeys) -> LookupAnswer {
        let started = Instant::now();
        let asked = match Slot::take(&self.in_flight) {
            Some(_slot) => self.fetch(keys.iter()).await,
            None => Err(Outcome::Overloaded),
        };
        let outcome = asked.as_ref().err().copied().unwrap_or(Outcome::Answered);
        let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.times.observe(outcome as usize, took);
        match asked {
            Ok(found) => LookupAnswer::Found(found),
            Err(_) => LookupAnswer::Unknown {
                stale_for: self.stale_for(),
            },
        }
    }

    /// Since the store last answered; nothing where it never has.
    pub(crate) fn stale_for(&self) -> Option<Duration> {
        match self.answered.load(Ordering::Relaxed) {
            0 => None,
            at => Some(self.started.elapsed().saturating_sub(Duration::from_nanos(at))),
        }
    }

    /// Whether the store can be asked.
    pub(crate) fn is_up(&self) -> bool {
        self.store.get().is_some()
    }

    /// How many are asking.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// How long questions took, by what came of them.
    pub(crate) fn times(&self) -> impl Iterator<Item = (Outcome, Reading)> {
        Outcome::ALL
            .into_iter()
            .filter_map(|outcome| Some((outcome, self.times.read(outcome as usize)?)))
    }

    /// For each key, whether the store has it; within the deadline.
    async fn fetch(&self, keys: impl ExactSizeIterator<Item = &str>) -> Result<Vec<bool>, Outcome> {
        let connection = self.store.get().ok_or(Outcome::Down)?;
        let answer = tokio::time::timeout(self.deadline, exist(connection, keys)).await;
        let found = match answer {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                self.store.doubt(&error);
                return Err(Outcome::Failed);
            }
            Err(_) => {
                self.store.doubt(&"no answer within the deadline");
                return Err(Outcome::Late);
            }
        };
        self.note_answer();
        Ok(found)
    }

    fn note_answer(&self) {
        let at = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.answered.store(at.max(1), Ordering::Relaxed);
    }
}

/// A place among those who ask; given back when dropped, as a request may be at any time.
struct Slot<'l>(&'l AtomicUsize);

impl<'l> Slot<'l> {
    fn take(taken: &'l AtomicUsize) -> Option<Self> {
        let before = taken.fetch_add(1, Ordering::Relaxed);
        let slot = Self(taken);
        (before < MAX_IN_FLIGHT).then_some(slot)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_slots_than_the_bound_and_each_comes_back() {
        let taken = AtomicUsize::new(0);
        let slots: Vec<_> = (0..MAX_IN_FLIGHT).map(|_| Slot::take(&taken).unwrap()).collect();
        assert!(Slot::take(&taken).is_none());
        assert!(Slot::take(&taken).is_none(), "a refusal takes nothing");
        drop(slots);
        assert_eq!(taken.load(Ordering::Relaxed), 0);
        assert!(Slot::take(&taken).is_some());
    }
}
