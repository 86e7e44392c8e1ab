//! The one connection to a store that requests ask: made, watched and made again, and how it is asked.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use durward_news::{Connection, Connector, RedisTarget, StoreError, Timeouts};
use redis::Value;
use redis::aio::ConnectionLike;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// Each question has a deadline of its own, which is shorter.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(1),
    response: Duration::from_secs(1),
};
/// How often a connection that works is looked at.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a look may take; longer than any deadline that is worth having.
const PROBE_TIMEOUT: Duration = Duration::from_millis(250);
/// How long a connection is left alone after a look, whatever questions fail meanwhile.
const PROBE_PAUSE: Duration = Duration::from_millis(20);
/// The pause after a connection was lost, doubled with each attempt that fails.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The most requests that ask at the same time; whoever comes then is not answered for.
const MAX_IN_FLIGHT: usize = 1024;

/// What shows that a store answers what requests will ask.
pub(crate) trait Probe: Send + Sync {
    /// Asks it; an error says what is wrong.
    fn probe(&self, connection: Connection) -> impl Future<Output = Result<(), String>> + Send;
}

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
    pub(crate) const ALL: [Self; 5] = [
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

/// The connection that all requests share, while there is one.
pub(crate) struct StoreConnection<P> {
    /// What the log calls the store.
    name: &'static str,
    connector: Connector,
    probe: P,
    current: ArcSwapOption<Connection>,
    doubted: Notify,
    in_flight: AtomicUsize,
}

impl<P: Probe> StoreConnection<P> {
    /// To `target`, which is asked by `probe` whether it works.
    pub(crate) fn new(name: &'static str, probe: P, target: &RedisTarget) -> Self {
        Self {
            name,
            connector: Connector::new(target),
            probe,
            current: ArcSwapOption::empty(),
            doubted: Notify::new(),
            in_flight: AtomicUsize::new(0),
        }
    }

    /// The connection, where it is known to work.
    pub(crate) fn get(&self) -> Option<Connection> {
        self.current.load().as_deref().cloned()
    }

    /// How many are asking.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Asks for a request, within `deadline`; whoever comes when too many ask is not answered for.
    pub(crate) async fn ask<T, E: Display, F: Future<Output = Result<T, E>>>(
        &self,
        deadline: Duration,
        question: impl FnOnce(Connection) -> F,
    ) -> Result<T, Outcome> {
        let _slot = Slot::take(&self.in_flight).ok_or(Outcome::Overloaded)?;
        self.ask_besides(deadline, question).await
    }

    /// Asks for somebody who is no request and takes no request's place.
    pub(crate) async fn ask_besides<T, E: Display, F: Future<Output = Result<T, E>>>(
        &self,
        deadline: Duration,
        question: impl FnOnce(Connection) -> F,
    ) -> Result<T, Outcome> {
        let connection = self.get().ok_or(Outcome::Down)?;
        match timeout(deadline, question(connection)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.doubt(&error);
                Err(Outcome::Failed)
            }
            Err(_) => {
                self.doubt(&"no answer within the deadline");
                Err(Outcome::Late)
            }
        }
    }

    /// Has the connection looked at: a question on it failed.
    fn doubt(&self, why: &dyn Display) {
        tracing::debug!(store = self.name, why = %why, "a question failed");
        self.doubted.notify_one();
    }

    /// Connects before anybody keeps the connection, within `within`; an error says why that failed last.
    pub(crate) async fn prepare(&self, within: Duration, answered: impl Fn()) -> Result<(), String> {
        let start = Instant::now();
        loop {
            match self.connect().await {
                Ok(connection) => {
                    self.current.store(Some(Arc::new(connection)));
                    answered();
                    return Ok(());
                }
                Err(error) if start.elapsed() > within => return Err(error),
                Err(_) => sleep(FIRST_PAUSE).await,
            }
        }
    }

    /// Connects and connects again, for ever. `answered` is called whenever the store has shown that
    /// it answers what requests will ask.
    pub(crate) async fn keep(&self, answered: impl Fn()) {
        let mut pause = FIRST_PAUSE;
        let mut told = false;
        loop {
            let connected = match self.get() {
                Some(prepared) => Ok(prepared),
                None => self.connect().await,
            };
            let lost = match connected {
                Ok(connection) => {
                    tracing::info!("the {} answers", self.name);
                    (pause, told) = (FIRST_PAUSE, false);
                    self.current.store(Some(Arc::new(connection.clone())));
                    answered();
                    let lost = self.watch(&connection, &answered).await;
                    self.current.store(None);
                    lost
                }
                Err(error) => error,
            };
            if !told {
                tracing::error!(cause = lost, "the {} cannot be asked", self.name);
                told = true;
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect(&self) -> Result<Connection, String> {
        let connection = self.connector.connect(TIMEOUTS).await;
        let connection = connection.map_err(|error| error.to_string())?;
        self.probe(&connection).await?;
        Ok(connection)
    }

    /// Looks at the connection now and then until it no longer works; says why.
    async fn watch(&self, connection: &Connection, answered: &impl Fn()) -> String {
        loop {
            sleep(PROBE_PAUSE).await;
            let _ = timeout(PROBE_INTERVAL, self.doubted.notified()).await;
            match self.probe(connection).await {
                Ok(()) => answered(),
                Err(problem) => return problem,
            }
        }
    }

    /// Whether this is a primary, which alone has what was just written, and answers for such keys as
    /// requests will ask for.
    async fn probe(&self, connection: &Connection) -> Result<(), String> {
        let probing = async {
            check_role(connection.clone()).await?;
            self.probe.probe(connection.clone()).await
        };
        match timeout(PROBE_TIMEOUT, probing).await {
            Ok(answer) => answer,
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}

async fn check_role(mut connection: Connection) -> Result<(), String> {
    let reply = connection
        .req_packed_command(&redis::cmd("ROLE"))
        .await
        .map_err(said)?;
    let role = match &reply {
        Value::Array(items) => items.first(),
        _ => None,
    };
    match role {
        Some(Value::BulkString(role)) if role == b"master" => Ok(()),
        Some(Value::BulkString(_)) => Err("it is a replica, which lags behind: name the primary".to_owned()),
        _ => Err("the reply to ROLE is none".to_owned()),
    }
}

/// For the log, bounded.
pub(crate) fn said(error: redis::RedisError) -> String {
    StoreError::from(error).to_string()
}

/// Between half of a pause and all of it, so that gateways do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8);
    let half = pause / 2;
    half + half.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
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
