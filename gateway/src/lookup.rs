//! Lookup mode: asking the application's own store whether a token is listed.
//!
//! All requests share one connection, on which their questions are pipelined; it lives on a thread
//! of its own. What cannot be asked is unknown at once, and what is not answered within the deadline
//! is unknown then: no question waits in a queue, and no error is ever read as "not listed".

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use durward_news::RedisTarget;
use durward_policy::{Lookup, LookupAnswer, LookupKeys};

use crate::sharded::{Histograms, Reading};
use crate::store_connection::{Outcome, StoreConnection};

mod exist;
mod recheck;

use exist::{ListProbe, exist};

/// From 10 us to 1.3 s.
type LookupTimes = Histograms<10_000, 18>;

/// Asks the store.
pub(crate) struct Lookups {
    store: StoreConnection<ListProbe>,
    deadline: Duration,
    recheck: Duration,
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
            started: Instant::now(),
            answered: AtomicU64::new(0),
            times: LookupTimes::new(Outcome::ALL.len()),
        })
    }

    /// Connects before requests come.
    pub(crate) async fn prepare(&self, within: Duration) -> Result<(), String> {
        self.store.prepare(within, || self.note_answer()).await
    }

    /// Asks for the keys of one token.
    pub(crate) async fn ask(&self, keys: &LookupKeys) -> LookupAnswer {
        let started = Instant::now();
        let keys = keys.iter();
        let asked = self
            .store
            .ask(self.deadline, |connection| exist(connection, keys))
            .await
            .inspect(|_| self.note_answer());
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
        self.store.in_flight()
    }

    /// How long questions took, by what came of them.
    pub(crate) fn times(&self) -> impl Iterator<Item = (Outcome, Reading)> {
        Outcome::ALL
            .into_iter()
            .filter_map(|outcome| Some((outcome, self.times.read(outcome as usize)?)))
    }

    fn note_answer(&self) {
        let at = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.answered.store(at.max(1), Ordering::Relaxed);
    }
}
