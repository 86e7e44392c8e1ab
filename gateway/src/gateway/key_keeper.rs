//! Keeping the issuers' keys current, and ending what was opened with keys that are gone.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::task::{AbortHandle, JoinSet};

use super::OwnKeys;
use crate::decision::Known;
use crate::issuer_keys::{IssuerKeys, Slot};
use crate::judged_again::judge_again;
use crate::live_streams::{Cut, Which};
use crate::proxy::Shared;

/// A request whose credential was proved with a set of keys just before it was replaced is open by then.
const DECIDED_BY_THEN: Duration = Duration::from_secs(1);

pub(super) struct KeyKeeper {
    shared: Arc<Shared>,
    own_keys: OwnKeys,
}

impl KeyKeeper {
    pub(super) fn new(shared: &Arc<Shared>, own_keys: OwnKeys) -> Self {
        Self {
            shared: Arc::clone(shared),
            own_keys,
        }
    }

    async fn follow_own(&self) {
        let Some(mut own_keys) = self.own_keys.clone() else {
            return;
        };
        loop {
            own_keys.mark_unchanged();
            self.shared.current().proofs.keys().catch_up_with_own();
            if own_keys.changed().await.is_err() {
                return;
            }
        }
    }

    /// Keeps the keys of the current generation current. An issuer's keys that the next generation has
    /// too are followed on, without a gap.
    async fn keep_current(&self) {
        let mut changes = self.shared.changes();
        let mut tasks = JoinSet::new();
        let mut followed: Vec<(Arc<Slot>, AbortHandle)> = Vec::new();
        loop {
            changes.mark_unchanged();
            let keys = Arc::clone(self.shared.current().proofs.keys());
            followed.retain(|(slot, task)| {
                let stays = keys.slots().iter().any(|current| Arc::ptr_eq(current, slot));
                if !stays {
                    task.abort();
                }
                stays
            });
            for slot in keys.slots() {
                if !followed.iter().any(|(known, _)| Arc::ptr_eq(known, slot)) {
                    let (shared, keys) = (Arc::clone(&self.shared), Arc::clone(&keys));
                    let task = tasks.spawn(keep(shared, keys, Arc::clone(slot)));
                    followed.push((Arc::clone(slot), task));
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
            while tasks.try_join_next().is_some() {}
        }
    }

    async fn follow_revoked_keys(&self) {
        let Known::Mirror(feed) = &self.shared.known else {
            return;
        };
        let mut revoked = feed.revoked_keys();
        while revoked.changed().await.is_ok() {
            self.shared.current().proofs.keys().read_own_again();
        }
    }
}

#[async_trait]
impl BackgroundService for KeyKeeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            _ = shutdown.changed() => {}
            _ = async { tokio::join!(self.follow_own(), self.follow_revoked_keys(), self.keep_current()) } => {}
        }
    }
}

/// Keeps one issuer's keys current. Whenever others have taken their place, what its users have open is
/// judged again: a key that is withdrawn vouches for nothing that goes on.
async fn keep(shared: Arc<Shared>, keys: Arc<IssuerKeys>, slot: Arc<Slot>) {
    let judging = async {
        loop {
            slot.replaced().await;
            end_unproved(&shared).await;
            tokio::time::sleep(DECIDED_BY_THEN).await;
            end_unproved(&shared).await;
        }
    };
    tokio::join!(keys.keep_slot_current(&slot), judging);
}

async fn end_unproved(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    let judging = tokio::task::spawn_blocking(move || {
        let current = shared.current();
        let judge = |head: &_| judge_again(&shared, &current, head);
        shared
            .streams
            .judge_again(current.number, Which::OfUsers, Cut::KeyWithdrawn, judge)
    });
    match judging.await {
        Ok(judged) if judged.ended > 0 => {
            tracing::info!(ended = judged.ended, "an issuer's keys have changed");
        }
        Ok(_) => {}
        Err(error) => tracing::error!(%error, "open requests could not be judged by the new keys"),
    }
}
