//! Replacing all that is known by what Redis holds.

use tokio::time::sleep;

use super::{Following, Loaded};
use crate::entry_scan::EntryScan;
use crate::protocol::EpochKeys;
use crate::random::{self, Backoff};
use crate::snapshot;
use crate::store_error::StoreError;

/// What became of loading.
pub(super) enum Load {
    Done,
    /// Another epoch has become current.
    Outdated,
}

impl Following {
    /// Loads all of this epoch when it is this gateway's turn.
    pub(super) async fn load(&self, epoch: &EpochKeys) -> Result<Load, StoreError> {
        let options = &self.shared.options;
        if self.state.lock().loaded.is_some() {
            // A thousand gateways notice the same thing at the same time.
            sleep(random::up_to(options.reload_spread)).await;
        }
        let mut scan = self.shared.connector.connect_scan(options.timeouts).await?;
        if !self.wait_for_place(&mut scan, epoch).await? {
            return Ok(Load::Outdated);
        }
        self.replace(&mut scan, epoch).await?;
        // What was loaded stands, whatever becomes of the place.
        drop(self.place.give_back(&mut scan, &self.keys).await);
        Ok(Load::Done)
    }

    /// Waits for its turn; false where another epoch has become current meanwhile.
    async fn wait_for_place(&self, scan: &mut EntryScan, epoch: &EpochKeys) -> Result<bool, StoreError> {
        let mut backoff = Backoff::new(self.shared.options.longest_wait);
        loop {
            let asked = self.place.take(scan, &self.keys).await?;
            if asked.epoch != epoch.epoch {
                drop(self.place.give_back(scan, &self.keys).await);
                return Ok(false);
            }
            if asked.granted {
                return Ok(true);
            }
            sleep(backoff.next()).await;
        }
    }

    async fn replace(&self, scan: &mut EntryScan, epoch: &EpochKeys) -> Result<(), StoreError> {
        let (at_least, again, doubted) = {
            let state = self.state.lock();
            (state.applied, state.loaded.is_some(), state.doubted)
        };
        let follower = self.follower.as_ref();
        let known = match (again, doubted) {
            (false, _) => snapshot::Known::Nothing,
            (true, false) => snapshot::Known::Replaceable,
            (true, true) => snapshot::Known::Kept,
        };
        let loaded = snapshot::load(scan, &self.keys, epoch, follower, at_least, known).await?;
        let mut state = self.state.lock();
        state.loaded = Some(Loaded {
            epoch: epoch.epoch.clone(),
            log: loaded.log,
        });
        state.applied = loaded.head;
        state.reload = false;
        state.unreadable_since = None;
        if loaded.unreadable > 0 {
            self.say_unreadable(&mut state, loaded.unreadable);
        }
        let mut status = self.shared.status.lock();
        status.epoch = Some(epoch.epoch.clone());
        status.applied = loaded.head;
        status.unreadable = state.unreadable_since.is_some();
        status.loads += 1;
        drop(status);
        tracing::info!(
            head = loaded.head.0,
            epoch = epoch.epoch,
            "news of revocations is loaded"
        );
        Ok(())
    }
}
