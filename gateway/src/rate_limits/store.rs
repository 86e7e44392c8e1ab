//! Rate limits that gateways share: quotas in Redis, taken from by one script in one round trip.
//!
//! All requests share one connection. What cannot be asked is not waited for, and what is not answered
//! within the deadline is given up; the definition says what then.

use std::sync::LazyLock;
use std::time::Duration;

use durward_news::{Connection, RedisTarget};
use durward_policy::{Quota, Spent, Taken};
use redis::aio::ConnectionLike;
use redis::{Cmd, ErrorKind, ServerErrorKind, Value};

use crate::sharded::Counters;
use crate::store_connection::{Outcome, Probe, StoreConnection, said};

const SCRIPT: &str = include_str!("take.lua");
/// Follows the namespace in every key.
const KEY: &str = "rate";

static HASH: LazyLock<String> = LazyLock::new(|| redis::Script::new(SCRIPT).get_hash().to_owned());

/// Where shared quotas are.
#[derive(Clone, Debug)]
pub struct RateLimitStore {
    pub(super) target: RedisTarget,
    pub(super) deadline: Duration,
}

/// The quotas in the store.
pub(crate) struct SharedQuotas {
    connection: StoreConnection<ScriptProbe>,
    namespace: String,
    deadline: Duration,
    outcomes: Counters,
}

/// Runs the script as requests will, on a key of its own.
struct ScriptProbe {
    key: String,
}

impl SharedQuotas {
    /// Connects to nothing yet.
    pub(crate) fn new(store: &RateLimitStore) -> Self {
        let namespace = store.target.namespace().to_owned();
        let probe = ScriptProbe {
            key: format!("{namespace}:{KEY}::probe"),
        };
        Self {
            connection: StoreConnection::new("rate limit store", probe, &store.target),
            namespace,
            deadline: store.deadline,
            outcomes: Counters::new(Outcome::ALL.len()),
        }
    }

    /// Takes one from the quota of a client of a definition; nothing where the store does not say.
    pub(crate) async fn take(&self, limit: &str, client: &str, quota: Quota) -> Option<Result<Taken, Spent>> {
        let key = format!("{}:{KEY}:{limit}:{client}", self.namespace);
        let asked = self
            .connection
            .ask(self.deadline, |connection| take(connection, &key, quota))
            .await;
        let outcome = asked.as_ref().err().copied().unwrap_or(Outcome::Answered);
        self.outcomes.add(outcome as usize, 1);
        asked.ok()
    }

    /// Connects before requests come.
    pub(crate) async fn prepare(&self, within: Duration) -> Result<(), String> {
        self.connection.prepare(within, || {}).await
    }

    /// Keeps the connection, for ever.
    pub(crate) async fn keep(&self) {
        self.connection.keep(|| {}).await;
    }

    /// Whether the store can be asked.
    pub(crate) fn is_up(&self) -> bool {
        self.connection.get().is_some()
    }

    /// How often what came of asking.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL
            .into_iter()
            .map(|outcome| (outcome, self.outcomes.get(outcome as usize)))
    }
}

impl Probe for ScriptProbe {
    async fn probe(&self, connection: Connection) -> Result<(), String> {
        let quota = Quota::new(durward_policy::Rate::new(1000, Duration::from_secs(1)), 1000);
        take(connection, &self.key, quota).await.map(drop)
    }
}

/// One round trip, and a second one where the server does not know the script yet.
async fn take(mut connection: Connection, key: &str, quota: Quota) -> Result<Result<Taken, Spent>, String> {
    let known = connection
        .req_packed_command(&call("EVALSHA", &HASH, key, quota))
        .await;
    let reply = match known {
        reply if is_unknown(&reply) => {
            connection
                .req_packed_command(&call("EVAL", SCRIPT, key, quota))
                .await
        }
        known => known,
    };
    let none = || "the reply to the script is none".to_owned();
    match reply.map_err(said)? {
        Value::Array(parts) => match parts.as_slice() {
            [Value::Int(taken @ (0 | 1)), Value::Int(owed)] => {
                let owed = Duration::from_micros(u64::try_from(*owed).unwrap_or_default());
                Ok(quota.told(*taken == 1, owed))
            }
            _ => Err(none()),
        },
        Value::ServerError(error) => Err(said(error.into())),
        _ => Err(none()),
    }
}

/// A server's error is a reply on a connection, and an error through a cluster's.
fn is_unknown(reply: &Result<Value, redis::RedisError>) -> bool {
    const UNKNOWN: ServerErrorKind = ServerErrorKind::NoScript;
    match reply {
        Ok(Value::ServerError(error)) => error.kind() == Some(UNKNOWN),
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::Server(UNKNOWN),
    }
}

fn call(command: &str, script: &str, key: &str, quota: Quota) -> Cmd {
    let (interval, tolerance) = quota.microseconds();
    let mut call = redis::cmd(command);
    call.arg(script).arg(1).arg(key).arg(interval).arg(tolerance);
    call
}
