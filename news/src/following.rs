//! The follower's task: loads, then applies each batch at once, and beside it hears how fresh that
//! is.
//!
//! Nothing that Redis says, or fails to say, ever means "not revoked": every error ends in silence,
//! and silence grows stale.

use std::sync::Arc;
use std::time::{Duration, Instant};

use durward_contract::{Follower, Sequence};
use parking_lot::Mutex;
use redis::{Value, cmd};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::connection::Timeouts;
use crate::dial::Node;
use crate::follower::Shared;
use crate::freshness::FreshnessRing;
use crate::protocol::{EpochKeys, Keys, LEAVE, Meta, PULSE, Report};
use crate::random::{self, Backoff};
use crate::snapshot;
use crate::store_error::{StoreError, StoreFault};
use crate::stream_batch::{Batch, read_batches};

/// How many batches are read at a time.
const READ_BATCHES: u32 = 64;
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

/// How things stand, as one pulse saw them.
struct View {
    meta: Option<Meta>,
    /// The attestation of the highest tick: tick, head, epoch.
    attested: Option<(u64, Sequence, String)>,
}

impl Following {
    pub(crate) fn new(shared: Arc<Shared>, follower: Arc<dyn Follower>) -> Self {
        Self {
            keys: Keys::new(shared.connector.namespace()),
            shared,
            follower,
            id: random::id(),
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
                tokio::select! {
                    loaded = self.load(&epoch) => loaded?,
                    failed = self.beat_on(&mut pulse, &mut ring) => return Err(failed),
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

    async fn load(&self, epoch: &EpochKeys) -> Result<(), StoreError> {
        let options = &self.shared.options;
        let (at_least, again, doubted) = {
            let state = self.state.lock();
            (state.applied, state.loaded.is_some(), state.doubted)
        };
        if again {
            // A thousand gateways notice the same thing at the same time.
            sleep(random::up_to(options.reload_spread)).await;
        }
        let mut node = self.shared.connector.connect_home(options.timeouts).await?;
        let follower = self.follower.as_ref();
        let known = match (again, doubted) {
            (false, _) => snapshot::Known::Nothing,
            (true, false) => snapshot::Known::Replaceable,
            (true, true) => snapshot::Known::Kept,
        };
        let loaded = snapshot::load(&mut node, &self.keys, epoch, follower, at_least, known).await?;
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

    /// Applies each batch as it comes. On a connection of its own: while Redis blocks it, nothing
    /// else that is asked there is answered, not even once we no longer wait.
    async fn read_stream(&self, epoch: &EpochKeys) -> StoreError {
        let options = &self.shared.options;
        let blocking = Timeouts {
            response: options.block + options.timeouts.response,
            ..options.timeouts
        };
        let mut node = match self.shared.connector.connect_home(blocking).await {
            Ok(node) => node,
            Err(error) => return error,
        };
        loop {
            let after = self.state.lock().applied;
            let mut command = cmd("XREAD");
            command.arg("COUNT").arg(READ_BATCHES).arg("BLOCK");
            command.arg(u64::try_from(options.block.as_millis()).unwrap_or(u64::MAX));
            command
                .arg("STREAMS")
                .arg(&epoch.stream)
                .arg(format!("{}-0", after.0));
            let batches = match node.ask(&command).await {
                Ok(Value::Nil) => continue,
                Ok(reply) => read_batches(reply),
                Err(error) => return error,
            };
            let Some(batches) = batches else {
                self.state.lock().reload = true;
                return StoreError::unexpected("XREAD");
            };
            for batch in batches {
                if let Err(error) = self.apply(batch) {
                    self.state.lock().reload = true;
                    return error;
                }
            }
            self.applied.notify_one();
        }
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let applied = state.applied;
        if batch.last <= applied {
            return Ok(());
        }
        if batch.first.0 > applied.0 + 1 {
            return Err(StoreError::new(
                StoreFault::NotReady,
                format_args!("news between {} and {} is missing", applied.0, batch.first.0),
            ));
        }
        self.follower.apply(&batch.news, batch.last);
        state.applied = batch.last;
        if batch.unreadable > 0 {
            self.say_unreadable(&mut state, batch.unreadable);
        }
        let mut status = self.shared.status.lock();
        status.applied = batch.last;
        status.unreadable = state.unreadable_since.is_some();
        Ok(())
    }

    fn say_unreadable(&self, state: &mut State, entries: usize) {
        state.unreadable_since.get_or_insert_with(Instant::now);
        tracing::error!(
            entries,
            "entries of the revocation log cannot be read, so that nothing it says counts as fresh: \
             is a gateway older than the auth service?"
        );
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
        let Some((tick, head, of)) = &view.attested else {
            return;
        };
        let state = self.state.lock();
        if *of != epoch.epoch || *head > state.applied || state.unreadable_since.is_some() || state.reload {
            return;
        }
        let Some(since) = ring.since(*tick) else { return };
        let age = self.start.elapsed().saturating_sub(since);
        // What was applied beyond the attested head was read later still.
        self.follower.attest(state.applied, age);
        self.shared.status.lock().attestations += 1;
    }

    /// Says what was applied, and hears how things stand.
    async fn beat(&self, node: &mut Node, ring: &mut FreshnessRing) -> Result<View, StoreError> {
        type Seen = (
            Option<u64>,
            Option<u64>,
            Option<u64>,
            Option<String>,
            Option<String>,
            Option<String>,
            Option<String>,
            Option<String>,
        );
        let report = {
            let state = self.state.lock();
            Report {
                log: state.loaded.as_ref().map(|loaded| loaded.log.clone()),
                applied: state.applied,
                name: self.shared.name.clone(),
            }
        };
        let keys = &self.keys;
        let sent = self.start.elapsed();
        let (tick, attested, head, attested_epoch, epoch, log, meta_head, went_back): Seen = PULSE
            .run(
                node,
                &[&keys.meta, &keys.pulse, &keys.gateways],
                &[self.id.clone(), report.to_text()],
            )
            .await?;
        ring.observe(sent, tick.unwrap_or(0));
        if went_back.is_some() {
            // What SQL has forgotten is not forgotten here.
            self.state.lock().doubted = true;
        }
        Ok(View {
            meta: Meta::read(epoch, log, meta_head.as_deref()),
            attested: match (attested, head, attested_epoch) {
                (Some(tick), Some(head), Some(epoch)) => Some((tick, Sequence(head), epoch)),
                _ => None,
            },
        })
    }

    /// Keeps reporting while something else takes long.
    async fn beat_on(&self, node: &mut Node, ring: &mut FreshnessRing) -> StoreError {
        loop {
            sleep(random::around(self.shared.options.pulse)).await;
            if let Err(error) = self.beat(node, ring).await {
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
