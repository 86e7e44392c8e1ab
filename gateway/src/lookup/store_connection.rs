//! The one connection to the store: made, watched and made again.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use durward_news::{Connection, Connector, RedisTarget, StoreError, Timeouts};
use durward_policy::Lookup;
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

/// The connection that all requests share, while there is one.
pub(super) struct StoreConnection {
    connector: Connector,
    /// One for each template: whether this user may ask for such keys is known before a request is.
    probe_keys: Vec<String>,
    current: ArcSwapOption<Connection>,
    doubted: Notify,
}

impl StoreConnection {
    pub(super) fn new(lookup: &Lookup, target: &RedisTarget) -> Self {
        Self {
            connector: Connector::new(target),
            probe_keys: lookup.probe_keys(),
            current: ArcSwapOption::empty(),
            doubted: Notify::new(),
        }
    }

    /// The connection, where it is known to work.
    pub(super) fn get(&self) -> Option<Connection> {
        self.current.load().as_deref().cloned()
    }

    /// Has the connection looked at: a question on it failed.
    pub(super) fn doubt(&self, why: &dyn Display) {
        tracing::debug!(why = %why, "a lookup failed");
        self.doubted.notify_one();
    }

    /// Connects and connects again, for ever. `answered` is called whenever the store has shown that
    /// it answers what requests will ask.
    pub(super) async fn keep(&self, answered: impl Fn()) {
        let mut pause = FIRST_PAUSE;
        let mut told = false;
        loop {
            let lost = match self.connect().await {
                Ok(connection) => {
                    tracing::info!("the revocation store answers");
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
                tracing::error!(cause = lost, "the revocation store cannot be asked");
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
            exist(connection.clone(), self.probe_keys.iter().map(String::as_str)).await
        };
        match timeout(PROBE_TIMEOUT, probing).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}

/// For each key, whether the store has it, by one command a key in one write. What is not exactly
/// that is an error.
pub(super) async fn exist(
    mut connection: Connection,
    keys: impl ExactSizeIterator<Item = &str>,
) -> Result<Vec<bool>, String> {
    let count = keys.len();
    let mut pipeline = redis::Pipeline::with_capacity(count);
    for key in keys {
        pipeline.cmd("EXISTS").arg(key);
    }
    let replies = connection
        .req_packed_commands(&pipeline, 0, count)
        .await
        .map_err(said)?;
    if replies.len() != count {
        return Err(format!("{} replies to {count} commands", replies.len()));
    }
    replies
        .iter()
        .map(|reply| match reply {
            Value::Int(0) => Ok(false),
            Value::Int(1) => Ok(true),
            Value::ServerError(error) => Err(said(error.clone().into())),
            _ => Err("the reply to EXISTS is neither 0 nor 1".to_owned()),
        })
        .collect()
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
fn said(error: redis::RedisError) -> String {
    StoreError::from(error).to_string()
}

/// Between half of a pause and all of it, so that gateways do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8);
    let half = pause / 2;
    half + half.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}
