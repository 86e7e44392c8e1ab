//! The one connection to a store that requests ask: made, watched and made again.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

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

/// What shows that a store answers what requests will ask.
pub(crate) trait Probe: Send + Sync {
    /// Asks it; an error says what is wrong.
    fn probe(&self, connection: Connection) -> impl Future<Output = Result<(), String>> + Send;
}

/// The connection that all requests share, while there is one.
pub(crate) struct StoreConnection<P> {
    /// What the log calls the store.
    name: &'static str,
    connector: Connector,
    probe: P,
    current: ArcSwapOption<Connection>,
    doubted: Notify,
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
        }
    }

    /// The connection, where it is known to work.
    pub(crate) fn get(&self) -> Option<Connection> {
        self.current.load().as_deref().cloned()
    }

    /// Has the connection looked at: a question on it failed.
    pub(crate) fn doubt(&self, why: &dyn Display) {
        tracing::debug!(store = self.name, why = %why, "a question failed");
        self.doubted.notify_one();
    }

    /// Connects and connects again, for ever. `answered` is called whenever the store has shown that
    /// it answers what requests will ask.
    pub(crate) async fn keep(&self, answered: impl Fn()) {
        let mut pause = FIRST_PAUSE;
        let mut told = false;
        loop {
            let lost = match self.connect().await {
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
