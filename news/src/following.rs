//! The follower's task: loads, then applies each batch at once, and beside it hears how fresh that
//! is.
//!
//! Nothing that Redis says, or fails to say, ever means "not revoked": every error ends in silence,
//! and silence grows stale.

mod load;
mod stream;
mod view;

use std::sync::Arc;
use std::time::{Duration, Instant};

use durward_contract::{Follower, Sequence};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use self::load::Load;
use self::view::View;
use crate::dial::Node;
use crate::follower::Shared;
use crate::freshness::FreshnessRing;
use crate::load_place::LoadPlace;
use crate::protocol::{EpochKeys, Keys, LEAVE, Meta, Report};
use crate::random::{self, Backoff};
use crate::store_error::{StoreError, StoreFault};

/// A connection that lasted this long was a good one: the next is tried at once.
const LASTING: Duration = Duration::from_secs(5);
/// Reports of what was applied are at least this far apart.
const REPORT_SPACING: Duration = Duration::from_millis(2);

pub(crate) struct Following {
    shared: Arc<Shared>,
    keys: Keys,
    follower: Arc<dyn Follower>,
    /// Whose report it is.
    id: String,
    place: LoadPlace,
    /// Calls to the follower are made under this lock, in log order.
    state: Mutex<State>,
    applied: Notify,
    start: Instant,
}

#[derive(Debug, Default)]
struct State {
    loaded: Option<Loaded>,
    applied: Sequence,
    /// News is missing: going on is not enough.
    reload: bool,
    unreadable_since: Option<Instant>,
    /// Redis has had less than was applied: nothing that is known is given up for what it has, until
    /// a restart.
    doubted: bool,
}

#[derive(Clone, Debug)]
struct Loaded {
    epoch: String,
    log: String,
}

impl Following {
    pub(crate) fn new(shared: Arc<Shared>, follower: Arc<dyn Follower>) -> Self {
        let id = random::id();
        Self {
            keys: Keys::new(shared.connector.namespace()),
            place: LoadPlace::new(&id, shared.options.loads_at_once),
            shared,
            follower,
            id,
            state: Mutex::default(),
            applied: Notify::new(),
            start: Instant::now(),
        }
    }

    pub(crate) async fn run(self) {
        let mut stop = self.shared.stop.subscribe();
        tokio::select! {
            () = self.follow_forever() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        self.shared.status.lock().connected = false;
        drop(self.leave().await);
    }

    async fn follow_forever(&self) {
        let mut backoff = Backoff::new(self.shared.options.longest_wait);
        let mut said = None;
        loop {
            let began = Instant::now();
            let error = match self.session().await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            if began.elapsed() > LASTING {
                backoff.reset();
            }
            {
                let mut status = self.shared.status.lock();
                if let Some(index) = StoreFault::ALL.iter().position(|fault| *fault == error.fault) {
                    status.errors[index] += 1;
                }
                if status.connected || said != Some(error.fault) {
                    let (fault, detail) = (error.fault.as_str(), &error.detail);
                    tracing::error!(fault, detail, "no news of revocations from Redis");
                }
                status.connected = false;
            }
            said = Some(error.fault);
            sleep(backoff.next()).await;
        }
    }

    /// One connection for the pulse and what goes on beside it, until one of them fails.
    async fn session(&self) -> Result<std::convert::Infallible, StoreError> {
        let options = &self.shared.options;
        let mut pulse = self.shared.connector.connect_home(options.timeouts).await?;
        // Ticks of another connection may be those of another server.
        let mut ring = FreshnessRing::default();
        loop {
            let view = self.beat(&mut pulse, &mut ring).await?;
            self.shared.status.lock().connected = true;
            let Some(meta) = view.meta.filter(|meta| !self.is_behind(meta)) else {
                sleep(random::around(options.pulse)).await;
                continue;
            };
            let epoch = self.keys.epoch(&meta.epoch);
            if self.must_load(&meta) {
                let loaded = tokio::select! {
                    loaded = self.load(&epoch) => loaded,
                    failed = self.beat_on(&mut pulse, &mut ring) => Err(failed),
                };
                self.place.let_go();
                if let Load::Outdated = loaded? {
                    continue;
                }
            }
            tokio::select! {
                failed = self.read_stream(&epoch) => return Err(failed),
                watched = self.watch(&mut pulse, &mut ring, &epoch) => watched?,
            }
        }
    }

    /// Whether Redis has less than was applied, or the log of another database. It is not believed
    /// then, whatever epoch it shows.
    fn is_behind(&self, meta: &Meta) -> bool {
        let mut state = self.state.lock();
        let applied = state.applied;
        let another = state.loaded.as_ref().is_some_and(|loaded| loaded.log != meta.log);
        let behind = another || meta.head < applied;
        state.doubted |= behind;
        drop(state);
        let mut status = self.shared.status.lock();
        if another && !status.behind {
            tracing::error!(
                log = meta.log,
                "Redis has the log of another database; what is known stays, and a restart takes the other log"
            );
        } else if behind && !status.behind {
            tracing::error!(
                head = meta.head.0,
                applied = applied.0,
                "Redis has less news than was applied already; waiting until it has caught up"
            );
        }
        status.behind = behind;
        behind
    }

    fn must_load(&self, meta: &Meta) -> bool {
        let state = self.state.lock();
        match &state.loaded {
            Some(loaded) => state.reload || loaded.epoch != meta.epoch || loaded.log != meta.log,
            None => true,
        }
    }

    /// Hears how things stand and attests, until something has to be loaded or waited for.
    async fn watch(
        &self,
        node: &mut Node,
        ring: &mut FreshnessRing,
        epoch: &EpochKeys,
    ) -> Result<(), StoreError> {
        let options = &self.shared.options;
        let mut lag: Option<(Sequence, Instant)> = None;
        loop {
            let before = self.state.lock().applied;
            let view = self.beat(node, ring).await?;
            let Some(meta) = view.meta.as_ref().filter(|meta| meta.epoch == epoch.epoch) else {
                return Ok(());
            };
            if meta.head < before {
                return Ok(());
            }
            self.attest(&view, ring, epoch);
            let (applied, unreadable_since) = {
                let state = self.state.lock();
                (state.applied, state.unreadable_since)
            };
            if unreadable_since.is_some_and(|since| since.elapsed() > options.reload_unreadable) {
                self.state.lock().reload = true;
                return Ok(());
            }
            lag = match lag {
                _ if meta.head <= applied => None,
                Some((at, since)) if at == applied => Some((at, since)),
                _ => Some((applied, Instant::now())),
            };
            if lag.is_some_and(|(_, since)| since.elapsed() > options.longest_lag) {
                self.state.lock().reload = true;
                return Err(StoreError::new(
                    StoreFault::NotReady,
                    format_args!("the head is {}, and its news does not come", meta.head.0),
                ));
            }
            let look = sleep(random::around(options.pulse));
            tokio::select! {
                () = look => {}
                () = self.applied.notified() => sleep(self.spacing(before)).await,
            }
        }
    }

    /// Nothing after a pause, so that a single ban is reported at once.
    fn spacing(&self, before: Sequence) -> Duration {
        let applied = self.state.lock().applied;
        if applied.0 - before.0.min(applied.0) > 1 {
            REPORT_SPACING
        } else {
            Duration::ZERO
        }
    }

    /// Passes an attestation on, if all that it speaks of was applied and nothing is in doubt.
    fn attest(&self, view: &View, ring: &FreshnessRing, epoch: &EpochKeys) {
        let Some(attested) = &view.attested else {
            return;
        };
        let state = self.state.lock();
        let is_covered = attested.epoch == epoch.epoch && attested.head <= state.applied;
        if !is_covered || state.unreadable_since.is_some() || state.reload {
            return;
        }
        let Some(since) = ring.since(attested.tick) else {
            return;
        };
        let age = self.start.elapsed().saturating_sub(since);
        // What was applied beyond the attested head was read later still.
        self.follower.attest(state.applied, age);
        self.shared.status.lock().attestations += 1;
    }

    /// Says what was applied, and hears how things stand.
    async fn beat(&self, node: &mut Node, ring: &mut FreshnessRing) -> Result<View, StoreError> {
        let report = {
            let state = self.state.lock();
            Report {
                log: state.loaded.as_ref().map(|loaded| loaded.log.clone()),
                applied: state.applied,
                name: self.shared.name.clone(),
            }
        };
        let sent = self.start.elapsed();
        let view = View::of(node, &self.keys, &self.id, &report).await?;
        ring.observe(sent, view.tick);
        if view.went_back {
            // What SQL has forgotten is not forgotten here.
            self.state.lock().doubted = true;
        }
        Ok(view)
    }

    /// Keeps reporting while something else takes long.
    async fn beat_on(&self, node: &mut Node, ring: &mut FreshnessRing) -> StoreError {
        loop {
            sleep(random::around(self.shared.options.pulse)).await;
            let beat = async {
                self.beat(node, ring).await?;
                self.place.keep(node, &self.keys).await
            };
            if let Err(error) = beat.await {
                return error;
            }
        }
    }

    /// Takes the report away: nobody shall wait for it.
    async fn leave(&self) -> Result<(), StoreError> {
        let timeouts = self.shared.options.timeouts;
        let leave = async {
            let mut node = self.shared.connector.connect_home(timeouts).await?;
            let keys = [self.keys.pulse.as_str(), self.keys.gateways.as_str()];
            LEAVE
                .run::<i64>(&mut node, &keys, std::slice::from_ref(&self.id))
                .await
        };
        timeout(timeouts.connect + timeouts.response, leave)
            .await
            .map_err(|_| StoreError::timeout("leaving"))?
            .map(drop)
    }
}
