//! The follower's handle: what a gateway holds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use durward_contract::{Follower, Sequence};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::connection::{Connector, Timeouts};
use crate::following::Following;
use crate::store_error::StoreFault;

/// The longest name of a gateway, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// How a follower works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowerOptions {
    /// About how long between two looks at how things stand.
    pub pulse: Duration,
    /// How long Redis may take.
    pub timeouts: Timeouts,
    /// How long one wait for news lasts.
    pub block: Duration,
    /// The longest wait after a failure.
    pub longest_wait: Duration,
    /// Over which time the gateways spread a reload.
    pub reload_spread: Duration,
    /// How many gateways load at the same time. The others wait for their turn.
    pub loads_at_once: u32,
    /// How long news may be missing before all is loaded again.
    pub longest_lag: Duration,
    /// After how long all is loaded again where an entry could not be read.
    pub reload_unreadable: Duration,
}

impl Default for FollowerOptions {
    fn default() -> Self {
        Self {
            pulse: Duration::from_millis(250),
            timeouts: Timeouts::default(),
            block: Duration::from_secs(5),
            longest_wait: Duration::from_millis(1500),
            reload_spread: Duration::from_millis(500),
            loads_at_once: 4,
            longest_lag: Duration::from_secs(1),
            reload_unreadable: Duration::from_secs(60),
        }
    }
}

/// How following stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FollowerStatus {
    /// Whether Redis answers.
    pub connected: bool,
    /// What is followed, once it was loaded.
    pub epoch: Option<String>,
    /// The highest number that was applied.
    pub applied: Sequence,
    /// Redis has less than was applied, and is not believed.
    pub behind: bool,
    /// An entry could not be read: nothing is attested until all is loaded without one.
    pub unreadable: bool,
    /// How often all was loaded.
    pub loads: u64,
    /// How many attestations were passed on.
    pub attestations: u64,
    pub(crate) errors: [u64; StoreFault::ALL.len()],
}

impl FollowerStatus {
    /// How many errors there were of each kind.
    pub fn errors(&self) -> impl Iterator<Item = (StoreFault, u64)> + '_ {
        StoreFault::ALL.into_iter().zip(self.errors)
    }
}

/// Follows the log for one gateway.
pub struct FollowerTask {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What the handle and the task share.
pub(crate) struct Shared {
    pub connector: Connector,
    pub options: FollowerOptions,
    pub name: String,
    pub stop: watch::Sender<bool>,
    pub status: Mutex<FollowerStatus>,
}

impl FollowerTask {
    /// Starts to follow. Redis need not be there: it is tried until it is. `name` is what people
    /// read when they ask how far an entry has come; it need not be unique.
    pub fn start(
        connector: Connector,
        follower: Arc<dyn Follower>,
        name: &str,
        options: FollowerOptions,
    ) -> Self {
        let shared = Arc::new(Shared {
            connector,
            options,
            name: printable(name),
            stop: watch::Sender::new(false),
            status: Mutex::default(),
        });
        let following = Following::new(Arc::clone(&shared), follower);
        let task = Mutex::new(Some(tokio::spawn(following.run())));
        Self { shared, task }
    }

    /// How following stands.
    pub fn status(&self) -> FollowerStatus {
        self.shared.status.lock().clone()
    }

    /// Stops, and says so in Redis: nobody waits for this gateway any longer.
    pub async fn stop(&self) {
        self.shared.stop.send_replace(true);
        let task = self.task.lock().take();
        if let Some(task) = task {
            drop(task.await);
        }
    }
}

impl Drop for FollowerTask {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl fmt::Debug for FollowerTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowerTask")
            .field("name", &self.shared.name)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

fn printable(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars().map(|c| if c.is_control() { '?' } else { c }) {
        if text.len() + c.len_utf8() > MAX_NAME_BYTES {
            break;
        }
        text.push(c);
    }
    if text.trim().is_empty() {
        "gateway".to_owned()
    } else {
        text
    }
}
