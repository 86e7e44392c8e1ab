//! Connecting to whatever `store:` names: one server, the master that sentinels know, a cluster.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisFuture, Value, cmd};

use crate::cluster::{Cluster, home_of};
use crate::dial::{Ask, Node, dial, dial_scan};
use crate::entry_scan::EntryScan;
use crate::store_config::RedisTarget;
use crate::store_error::{StoreError, StoreFault};
use crate::store_url::{Endpoint, Topology};

/// How long Redis may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To accept a connection, TLS and login included.
    pub connect: Duration,
    /// To answer a command.
    pub response: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            response: Duration::from_secs(1),
        }
    }
}

/// Makes connections to a [`RedisTarget`]. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    target: Arc<RedisTarget>,
    /// The sentinel, or seed, that answered last.
    answered: Arc<AtomicUsize>,
}

impl Connector {
    /// Makes connections to this Redis.
    pub fn new(target: &RedisTarget) -> Self {
        Self {
            target: Arc::new(target.clone()),
            answered: Arc::default(),
        }
    }

    /// What every key of this installation begins with.
    pub fn namespace(&self) -> &str {
        self.target.namespace()
    }

    /// Connects anew. Sentinels are asked for the current master each time, and it has to say itself
    /// that it is one. To a cluster, commands are routed by their first key; those without a key go
    /// where the namespace's own keys are.
    pub async fn connect(&self, timeouts: Timeouts) -> Result<Connection, StoreError> {
        Ok(Connection(match &self.target.topology {
            Topology::Cluster(_) => Inner::Cluster(Cluster::connect(self.clone(), timeouts).await?),
            _ => Inner::Node(self.connect_home(timeouts).await?),
        }))
    }

    /// Connects to the one server that has the namespace's own keys. What moves away from it is an
    /// error there, and never followed: whoever compares two answers must know that they came from
    /// the same server.
    pub(crate) async fn connect_home(&self, timeouts: Timeouts) -> Result<Node, StoreError> {
        let endpoint = self.home(timeouts).await?;
        let mut node = self.dial(&endpoint, timeouts).await?;
        self.is_home(&mut node, &endpoint).await?;
        Ok(node)
    }

    /// The same for reading all that an epoch holds.
    pub(crate) async fn connect_scan(&self, timeouts: Timeouts) -> Result<EntryScan, StoreError> {
        let endpoint = self.home(timeouts).await?;
        let target = &self.target;
        let (tls, login) = (target.tls.as_ref(), &target.login);
        let mut scan = dial_scan(&endpoint, tls, login, target.database, timeouts).await?;
        self.is_home(&mut scan, &endpoint).await?;
        Ok(scan)
    }

    async fn home(&self, timeouts: Timeouts) -> Result<Endpoint, StoreError> {
        match &self.target.topology {
            Topology::Single(endpoint) => Ok(endpoint.clone()),
            Topology::Sentinel { sentinels, master } => self.ask_sentinels(sentinels, master, timeouts).await,
            Topology::Cluster(_) => home_of(self, timeouts).await,
        }
    }

    /// A sentinel may be wrong for a moment: the server itself has to say that it is the master.
    async fn is_home(&self, node: &mut impl Ask, endpoint: &Endpoint) -> Result<(), StoreError> {
        match &self.target.topology {
            Topology::Sentinel { .. } => is_master(node, endpoint).await,
            Topology::Single(_) | Topology::Cluster(_) => Ok(()),
        }
    }

    pub(crate) async fn dial(&self, endpoint: &Endpoint, timeouts: Timeouts) -> Result<Node, StoreError> {
        let target = &self.target;
        dial(
            endpoint,
            target.tls.as_ref(),
            &target.login,
            target.database,
            timeouts,
        )
        .await
    }

    /// The seeds of the cluster; none where it is no cluster.
    pub(crate) fn seeds(&self) -> &[Endpoint] {
        match &self.target.topology {
            Topology::Cluster(seeds) => seeds,
            _ => &[],
        }
    }

    /// Where to begin to ask, and the note of who answered.
    pub(crate) fn answered(&self) -> &AtomicUsize {
        &self.answered
    }

    async fn ask_sentinels(
        &self,
        sentinels: &[Endpoint],
        master: &str,
        timeouts: Timeouts,
    ) -> Result<Endpoint, StoreError> {
        let mut last = StoreError::new(StoreFault::NotMaster, "there is no sentinel");
        let start = self.answered.load(Ordering::Relaxed);
        for step in 0..sentinels.len() {
            let index = (start + step) % sentinels.len();
            match self.ask_sentinel(&sentinels[index], master, timeouts).await {
                Ok(endpoint) => {
                    self.answered.store(index, Ordering::Relaxed);
                    return Ok(endpoint);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask_sentinel(
        &self,
        sentinel: &Endpoint,
        master: &str,
        timeouts: Timeouts,
    ) -> Result<Endpoint, StoreError> {
        let target = &self.target;
        let mut node = dial(sentinel, target.tls.as_ref(), &target.sentinel_login, 0, timeouts).await?;
        let mut command = cmd("SENTINEL");
        command.arg("get-master-addr-by-name").arg(master);
        match node.ask(&command).await? {
            Value::Nil => Err(StoreError::new(
                StoreFault::NotMaster,
                format_args!("{sentinel} knows no master `{master}`"),
            )),
            reply => endpoint_of(&reply).ok_or_else(|| StoreError::unexpected("SENTINEL")),
        }
    }
}

async fn is_master(node: &mut impl Ask, endpoint: &Endpoint) -> Result<(), StoreError> {
    match node.ask(&cmd("ROLE")).await? {
        Value::Array(parts) if parts.first() == Some(&Value::BulkString(b"master".to_vec())) => Ok(()),
        Value::Array(_) => Err(StoreError::new(
            StoreFault::NotMaster,
            format_args!("{endpoint} is a replica"),
        )),
        _ => Err(StoreError::unexpected("ROLE")),
    }
}

/// `[host, port]`, the port as text.
fn endpoint_of(reply: &Value) -> Option<Endpoint> {
    let Value::Array(parts) = reply else { return None };
    let [Value::BulkString(host), Value::BulkString(port)] = parts.as_slice() else {
        return None;
    };
    let host = std::str::from_utf8(host).ok()?.to_owned();
    let port = std::str::from_utf8(port).ok()?.parse().ok()?;
    Some(Endpoint { host, port })
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connector").field(&self.target).finish()
    }
}

/// A connection. Clones share it, and their commands are pipelined. After an error of the
/// connection's own, drop it and connect again.
#[derive(Clone)]
pub struct Connection(Inner);

#[derive(Clone)]
enum Inner {
    Node(Node),
    Cluster(Cluster),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match &mut self.0 {
            Inner::Node(node) => node.connection.req_packed_command(command),
            Inner::Cluster(cluster) => Box::pin(cluster.command(command)),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.0 {
            Inner::Node(node) => node.connection.req_packed_commands(pipeline, offset, count),
            Inner::Cluster(cluster) => Box::pin(cluster.commands(pipeline, offset, count)),
        }
    }

    fn get_db(&self) -> i64 {
        match &self.0 {
            Inner::Node(node) => node.connection.get_db(),
            Inner::Cluster(_) => 0,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}
