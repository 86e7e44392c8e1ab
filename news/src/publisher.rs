//! The publisher's handle: what the auth service holds.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use durward_contract::{News, Sequence};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::connection::{Connector, Timeouts};
use crate::dial::Node;
use crate::fresh_news::FreshNews;
use crate::log::Log;
use crate::protocol::Keys;
use crate::publishing::Publishing;
use crate::reach::{self, Reach};
use crate::roster::Roster;
use crate::store_error::{StoreError, StoreFault};

/// The pause before `reach` asks again where Redis did not answer.
const REACH_PAUSE: Duration = Duration::from_millis(50);

/// How a publisher works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublisherOptions {
    /// Between two attestations.
    pub tick: Duration,
    /// Between two questions whether Redis keeps what it is given.
    pub health_check: Duration,
    /// How long Redis may take.
    pub timeouts: Timeouts,
    /// How long one reading of SQL may take.
    pub log_timeout: Duration,
    /// The longest wait after a failure.
    pub longest_wait: Duration,
    /// About how many of the last entries stay readable for followers that are behind. By entries and
    /// not by batches, so that a revocation of many at once does not fill Redis.
    pub stream_entries: u32,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self {
            tick: Duration::from_secs(1),
            health_check: Duration::from_secs(5),
            timeouts: Timeouts::default(),
            log_timeout: Duration::from_secs(2),
            longest_wait: Duration::from_secs(1),
            stream_entries: 100_000,
        }
    }
}

/// Why news is not delivered, or not attested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublishFault {
    /// Redis failed.
    Store(StoreFault),
    /// SQL failed.
    Log,
    /// SQL has less than Redis: an older database was restored.
    LogWentBack,
    /// Another database is published under the same namespace right now.
    AnotherLog,
}

impl PublishFault {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let beside = [Self::Log, Self::LogWentBack, Self::AnotherLog];
        StoreFault::ALL.into_iter().map(Self::Store).chain(beside)
    }

    /// Its word in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Store(fault) => fault.as_str(),
            Self::Log => "log",
            Self::LogWentBack => "log_went_back",
            Self::AnotherLog => "another_log",
        }
    }
}

/// How publishing stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublisherStatus {
    /// The highest number that is in Redis.
    pub published: Sequence,
    /// The log's id, once it was read.
    pub log: Option<String>,
    /// Whether the last attempt delivered all and attested it.
    pub healthy: bool,
    /// Why not.
    pub fault: Option<PublishFault>,
    /// How many attestations Redis accepted.
    pub attestations: u64,
    /// How often this publisher has built Redis anew.
    pub rebuilds: u64,
    /// How many writes Redis refused, for whatever reason it gave: each is tried again.
    pub refused_writes: u64,
    /// How many evictions were seen.
    pub evictions: u64,
}

/// Publishes a log. Any number of replicas may, at any time; there is no leader.
pub struct Publisher {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What the handle and the task share.
pub(crate) struct Shared {
    pub connector: Connector,
    pub keys: Keys,
    pub options: PublisherOptions,
    pub wake: Notify,
    /// What was committed since the last step.
    pub fresh: FreshNews,
    pub stop: watch::Sender<bool>,
    pub status: Mutex<PublisherStatus>,
    /// The connection that works, to be shared with `reach`.
    pub node: Mutex<Option<Node>>,
    /// The gateways that were heard of.
    pub roster: Mutex<Roster>,
}

impl Publisher {
    /// Starts to publish. Redis need not be there: it is tried until it is.
    pub fn start(connector: Connector, log: Arc<dyn Log>, options: PublisherOptions) -> Self {
        let shared = Arc::new(Shared {
            keys: Keys::new(connector.namespace()),
            connector,
            options,
            wake: Notify::new(),
            fresh: FreshNews::default(),
            stop: watch::Sender::new(false),
            status: Mutex::default(),
            node: Mutex::default(),
            roster: Mutex::default(),
        });
        let publishing = Publishing::new(Arc::clone(&shared), log);
        let task = Mutex::new(Some(tokio::spawn(publishing.run())));
        Self { shared, task }
    }

    /// Something was committed, by whomever: SQL is asked for it, and it is published at once. Returns
    /// at once, and may be called as often as one likes.
    pub fn wake(&self) {
        self.wake_with(&[]);
    }

    /// The same where it is known what was committed: SQL is asked only if Redis lacks what came before.
    pub fn wake_with(&self, news: &[News]) {
        self.shared.fresh.add(news);
        self.shared.wake.notify_one();
    }

    /// How publishing stands.
    pub fn status(&self) -> PublisherStatus {
        self.shared.status.lock().clone()
    }

    /// Waits until every gateway that was heard of lately has applied `sequence`, or for `timeout`.
    ///
    /// A connection that fails is tried again until then. Where the log went back, or another one is
    /// published, numbers say nothing of who has what, and the answer is an error.
    pub async fn reach(&self, sequence: Sequence, timeout: Duration) -> Result<Reach, StoreError> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match self.try_reach(sequence, left).await {
                Ok(reach) => return Ok(reach),
                Err(error) => error,
            };
            if deadline.saturating_duration_since(Instant::now()) < REACH_PAUSE {
                return Err(error);
            }
            tokio::time::sleep(REACH_PAUSE).await;
        }
    }

    async fn try_reach(&self, sequence: Sequence, timeout: Duration) -> Result<Reach, StoreError> {
        let shared = &self.shared;
        let (log, fault) = {
            let status = shared.status.lock();
            (status.log.clone(), status.fault)
        };
        if let Some(PublishFault::LogWentBack | PublishFault::AnotherLog) = fault {
            return Err(StoreError::new(
                StoreFault::NotReady,
                "what is in Redis is not this log",
            ));
        }
        let Some(log) = log else {
            return Err(StoreError::new(
                StoreFault::NotReady,
                "the log has not been read yet",
            ));
        };
        let known = shared.node.lock().clone();
        let mut node = match known {
            Some(node) => node,
            None => shared.connector.connect_home(shared.options.timeouts).await?,
        };
        reach::wait(&mut node, &shared.keys, &shared.roster, &log, sequence, timeout).await
    }

    /// Stops. What is under way is left as it is: a replica, or the next start, goes on from there.
    pub async fn stop(&self) {
        self.shared.stop.send_replace(true);
        let task = self.task.lock().take();
        if let Some(task) = task {
            drop(task.await);
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
