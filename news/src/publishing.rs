//! The publisher's task: brings Redis from its head to SQL's, again and again.
//!
//! A crash between commit and publish loses nothing, because nothing is remembered between: each
//! cycle asks both sides where they are.

use std::sync::Arc;
use std::time::Duration;

use durward_contract::Sequence;
use tokio::time::{Instant, sleep, timeout};

use crate::dial::Node;
use crate::log::{Log, LogError, LogHead};
use crate::protocol::{ATTEST, BATCH_ENTRIES, BEGIN, EpochKeys, FORGET, Meta, SWEEP};
use crate::publish_batch::{Batch, Published};
use crate::publish_failure::Failure;
use crate::publisher::{PublishFault, Shared};
use crate::random::{self, Backoff};
use crate::rebuild::{Found, Rebuild, Rebuilt};
use crate::store_error::{StoreError, StoreFault};
use crate::store_health;

/// Ticks of silence after which a gateway counts as gone, for each publisher.
const GONE_AFTER_TICKS: u32 = 30;
/// For how many of our cycles another log's attestations must rest before we replace it.
const FOREIGN_REST: u32 = 5;
/// How often in a row what is known may be out of date before that is a fault, and the longest wait
/// until then.
const OFTEN_AGAIN: u32 = 8;
const SOON: Duration = Duration::from_millis(100);
/// How many entries are forgotten at a time, and how often in one cycle.
const FORGET_BATCH: u32 = 1000;
const FORGET_ROUNDS: usize = 20;

pub(crate) struct Publishing {
    shared: Arc<Shared>,
    log: Arc<dyn Log>,
    session: Option<Session>,
    backoff: Backoff,
    foreign: Option<Foreign>,
    /// The epoch that was current last, whatever became of the connection.
    last_epoch: Option<String>,
    /// How often in a row what was known was out of date.
    again: u32,
}

/// What is known as long as one connection lasts.
struct Session {
    node: Node,
    /// Of this connection: what an older one still has on its way is not ours.
    id: String,
    epoch: Option<EpochKeys>,
    /// What Redis has, in that epoch.
    head: Sequence,
    health: Health,
    checked: Option<Instant>,
    evicted: Option<u64>,
}

type Health = Result<(), StoreError>;

/// Another log under our namespace, its last attestation, and for how many cycles it rested.
struct Foreign {
    log: String,
    attested: u64,
    rested: u32,
}

impl Publishing {
    pub(crate) fn new(shared: Arc<Shared>, log: Arc<dyn Log>) -> Self {
        let backoff = Backoff::new(shared.options.longest_wait);
        Self {
            shared,
            log,
            session: None,
            backoff,
            foreign: None,
            last_epoch: None,
            again: 0,
        }
    }

    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut stop = shared.stop.subscribe();
        // Wherever it is stopped, it is like a crash, which loses nothing.
        tokio::select! {
            () = self.publish_forever() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        *shared.node.lock() = None;
        shared.status.lock().healthy = false;
    }

    async fn publish_forever(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut due = Instant::now();
        loop {
            let result = if Instant::now() >= due {
                due = Instant::now() + shared.options.tick;
                self.cycle().await
            } else {
                self.publish_news().await
            };
            match result {
                Ok(()) => {
                    self.backoff.reset();
                    self.again = 0;
                }
                Err(failure) => {
                    due = Instant::now();
                    let wait = self.failed(failure);
                    sleep(wait).await;
                    continue;
                }
            }
            tokio::select! {
                () = shared.wake.notified() => {}
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    /// Learns where both sides are, publishes what is missing, and attests.
    async fn cycle(&mut self) -> Result<(), Failure> {
        if self.session.is_none() {
            self.connect().await?;
        }
        self.check_health().await?;
        let Some(session) = &mut self.session else {
            return Err(Failure::Again);
        };
        let keys = &self.shared.keys;
        let begun: Begun = BEGIN
            .run(
                &mut session.node,
                &[&keys.meta, &keys.pulse],
                std::slice::from_ref(&session.id),
            )
            .await?;
        let sql = self.read_head().await?;
        let (tick, attested, epoch, log, head, went_back) = begun;
        let went_back = went_back.is_some();
        let found = Found {
            epoch: epoch.clone().unwrap_or_default(),
            head: head.clone().unwrap_or_default(),
        };
        match Meta::read(epoch, log, head.as_deref()) {
            None => self.rebuild(found, &sql, "it has no head").await?,
            Some(meta) if meta.log != sql.log => {
                self.may_replace(&meta.log, attested)?;
                self.rebuild(found, &sql, "it holds another log").await?;
            }
            Some(meta) if went_back || meta.head > sql.head => {
                self.mark_went_back().await?;
                return Err(Failure::WentBack {
                    redis: meta.head,
                    sql: sql.head,
                });
            }
            Some(meta) => {
                self.foreign = None;
                self.enter(self.shared.keys.epoch(&meta.epoch), meta.head);
                if let Damage::Found = self.publish_up_to(sql.head).await? {
                    self.rebuild(found, &sql, "entries are missing").await?;
                }
            }
        }
        self.attest(tick, &sql).await?;
        self.forget().await
    }

    /// Notes that SQL has had less than Redis. Numbers that it gives from then on may have been given
    /// before, to other entries: nothing is published under this log until its id is another one, or
    /// Redis was emptied.
    async fn mark_went_back(&mut self) -> Result<(), Failure> {
        let Some(session) = &mut self.session else {
            return Err(Failure::Again);
        };
        session.epoch = None;
        let mut command = redis::cmd("HSET");
        command.arg(&self.shared.keys.meta).arg("went_back").arg(1);
        session.node.ask(&command).await?;
        Ok(())
    }

    /// Publishes what was committed since, without asking where both sides are.
    async fn publish_news(&mut self) -> Result<(), Failure> {
        let ready = self
            .session
            .as_ref()
            .is_some_and(|session| session.epoch.is_some());
        if !ready {
            return Err(Failure::Again);
        }
        match self.publish_up_to(Sequence(0)).await? {
            Damage::None => Ok(()),
            Damage::Found => Err(Failure::Again),
        }
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        let node = self
            .shared
            .connector
            .connect_home(self.shared.options.timeouts)
            .await?;
        *self.shared.node.lock() = Some(node.clone());
        self.session = Some(Session {
            node,
            id: random::id(),
            epoch: None,
            head: Sequence(0),
            health: Ok(()),
            checked: None,
            evicted: None,
        });
        Ok(())
    }

    /// Asks now and then whether Redis keeps what it is given. News is published to one that does
    /// not, but not attested.
    async fn check_health(&mut self) -> Result<(), Failure> {
        let Some(session) = &mut self.session else {
            return Err(Failure::Again);
        };
        let every = self.shared.options.health_check;
        if session.health.is_ok() && session.checked.is_some_and(|last| last.elapsed() < every) {
            return Ok(());
        }
        session.checked = Some(Instant::now());
        match store_health::ask(&mut session.node).await {
            Ok(health) => {
                session.health = Ok(());
                let before = session.evicted.replace(health.evicted).unwrap_or(health.evicted);
                if health.evicted > before {
                    let evictions = health.evicted - before;
                    self.shared.status.lock().evictions += evictions;
                    tracing::error!(evictions, "Redis evicted keys; news of revocations is built anew");
                    // Whatever it was, it may have been ours.
                    self.forget_epoch().await?;
                }
            }
            Err(error) if error.fault == StoreFault::Evicting => session.health = Err(error),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Makes the current epoch one that is to be replaced.
    async fn forget_epoch(&mut self) -> Result<(), Failure> {
        let sql = self.read_head().await?;
        let Some(session) = &mut self.session else {
            return Err(Failure::Again);
        };
        let keys = &self.shared.keys;
        let (epoch, log, head): (Option<String>, Option<String>, Option<String>) = crate::protocol::read(
            session
                .node
                .ask(redis::cmd("HMGET").arg(&keys.meta).arg(&["epoch", "log", "head"]))
                .await?,
        )?;
        let found = Found {
            epoch: epoch.clone().unwrap_or_default(),
            head: head.clone().unwrap_or_default(),
        };
        match Meta::read(epoch, log, head.as_deref()) {
            // The cycle that follows knows what to do with these.
            Some(meta) if meta.log != sql.log || meta.head > sql.head => Ok(()),
            _ => self.rebuild(found, &sql, "keys were evicted").await,
        }
    }

    async fn read_head(&self) -> Result<LogHead, Failure> {
        let head = timeout(self.shared.options.log_timeout, self.log.head())
            .await
            .map_err(|_| LogError("no answer in time".into()))??;
        self.shared.status.lock().log = Some(head.log.clone());
        Ok(head)
    }

    /// Another database's entries are replaced only once nobody publishes them any longer.
    fn may_replace(&mut self, log: &str, attested: u64) -> Result<(), Failure> {
        let rested = match &self.foreign {
            Some(foreign) if foreign.log == log && foreign.attested == attested => foreign.rested + 1,
            _ => 0,
        };
        self.foreign = Some(Foreign {
            log: log.to_owned(),
            attested,
            rested,
        });
        if rested < FOREIGN_REST {
            return Err(Failure::AnotherLog);
        }
        Ok(())
    }

    fn enter(&mut self, epoch: EpochKeys, head: Sequence) {
        if let Some(session) = &mut self.session {
            self.last_epoch = Some(epoch.epoch.clone());
            session.epoch = Some(epoch);
            session.head = head;
        }
        self.shared.status.lock().published = head;
    }

    async fn rebuild(&mut self, found: Found, sql: &LogHead, why: &str) -> Result<(), Failure> {
        let Some(session) = &mut self.session else {
            return Err(Failure::Again);
        };
        let rebuild = Rebuild {
            node: &mut session.node,
            keys: &self.shared.keys,
            log: self.log.as_ref(),
            log_timeout: self.shared.options.log_timeout,
            publisher: &session.id,
            left_behind: self.last_epoch.as_deref(),
        };
        tracing::warn!(why, "Redis is built anew from SQL");
        match rebuild.run(found, sql).await? {
            Rebuilt::Done(epoch, head) => {
                tracing::info!(head = head.0, epoch = epoch.epoch, "Redis is whole again");
                self.shared.status.lock().rebuilds += 1;
                self.foreign = None;
                self.enter(epoch, head);
                Ok(())
            }
            Rebuilt::ByOther => Err(Failure::Again),
        }
    }

    /// Publishes until SQL has no more, at least up to `target`.
    async fn publish_up_to(&mut self, target: Sequence) -> Result<Damage, Failure> {
        loop {
            let Some((epoch, head)) = self.position() else {
                return Err(Failure::Again);
            };
            let page = timeout(
                self.shared.options.log_timeout,
                self.log.after(head, BATCH_ENTRIES),
            )
            .await
            .map_err(|_| LogError("no answer in time".into()))??;
            if page.is_empty() && head >= target {
                return Ok(Damage::None);
            }
            let is_all = page.len() < BATCH_ENTRIES as usize;
            let (keys, kept) = (&self.shared.keys, self.shared.options.stream_entries);
            let mut rest = page.as_slice();
            let mut overtaken = false;
            loop {
                let Some(session) = &mut self.session else {
                    return Err(Failure::Again);
                };
                let batch = Batch::cut(session.head, &mut rest, is_all.then_some(target));
                match batch.publish(&mut session.node, keys, &epoch, kept).await? {
                    Published::Ok => session.head = batch.last,
                    Published::Head(head) => {
                        // Another replica was faster: what this page has may not be there yet.
                        session.head = head;
                        overtaken = true;
                        break;
                    }
                    Published::Damaged => return Ok(Damage::Found),
                    Published::Epoch => return Err(Failure::Again),
                }
                if rest.is_empty() {
                    break;
                }
            }
            if let Some((_, head)) = self.position() {
                self.shared.status.lock().published = head;
                if is_all && !overtaken && head >= target {
                    return Ok(Damage::None);
                }
            }
        }
    }

    fn position(&self) -> Option<(EpochKeys, Sequence)> {
        let session = self.session.as_ref()?;
        Some((session.epoch.clone()?, session.head))
    }

    async fn attest(&mut self, tick: u64, sql: &LogHead) -> Result<(), Failure> {
        let Some(session) = &mut self.session else {
            return Err(Failure::Again);
        };
        session.health.clone()?;
        let Some(epoch) = &session.epoch else {
            return Err(Failure::Again);
        };
        let keys = &self.shared.keys;
        let word: String = ATTEST
            .run(
                &mut session.node,
                &[&keys.meta, &keys.pulse, &epoch.entries],
                &[
                    session.id.clone(),
                    tick.to_string(),
                    epoch.epoch.clone(),
                    sql.head.0.to_string(),
                ],
            )
            .await?;
        if word != "ok" {
            if word == "damaged" {
                let found = Found {
                    epoch: epoch.epoch.clone(),
                    head: session.head.0.to_string(),
                };
                self.rebuild(found, sql, "entries are missing").await?;
            }
            return Err(Failure::Again);
        }
        let mut status = self.shared.status.lock();
        if !status.healthy {
            tracing::info!(head = sql.head.0, "news of revocations reaches Redis");
        }
        status.healthy = true;
        status.fault = None;
        status.attestations += 1;
        Ok(())
    }

    /// Takes out what may be forgotten, and who is gone.
    async fn forget(&mut self) -> Result<(), Failure> {
        let Some(Session {
            node,
            epoch: Some(epoch),
            ..
        }) = &mut self.session
        else {
            return Ok(());
        };
        let keys = &self.shared.keys;
        let arguments = [
            epoch.epoch.clone(),
            self.log.now().0.to_string(),
            FORGET_BATCH.to_string(),
        ];
        for _ in 0..FORGET_ROUNDS {
            let entry_keys = [keys.meta.as_str(), epoch.entries.as_str(), epoch.expiry.as_str()];
            let gone: u32 = FORGET.run(node, &entry_keys, &arguments).await?;
            if gone < FORGET_BATCH {
                break;
            }
        }
        let gone_after = GONE_AFTER_TICKS.to_string();
        let _: i64 = SWEEP
            .run(node, &[&keys.pulse, &keys.gateways], &[gone_after])
            .await?;
        Ok(())
    }

    /// Takes note, and says how long to wait.
    fn failed(&mut self, failure: Failure) -> Duration {
        let (fault, said) = match failure {
            Failure::Again if self.again < OFTEN_AGAIN => {
                self.again += 1;
                return self.backoff.next().min(SOON);
            }
            other => other.describe(),
        };
        if let PublishFault::Store(store) = fault
            && store != StoreFault::Evicting
        {
            // One that is well but may evict is asked again on the same connection.
            self.drop_session();
        }
        let mut status = self.shared.status.lock();
        if matches!(
            fault,
            PublishFault::Store(StoreFault::Full | StoreFault::NotMaster | StoreFault::Foreign)
        ) {
            status.refused_writes += 1;
        }
        if status.healthy || status.fault != Some(fault) {
            let fault = fault.as_str();
            tracing::error!(fault, detail = said, "news of revocations does not reach Redis");
        }
        status.healthy = false;
        status.fault = Some(fault);
        drop(status);
        match fault {
            PublishFault::AnotherLog => self.shared.options.tick,
            _ => self.backoff.next(),
        }
    }

    fn drop_session(&mut self) {
        self.session = None;
        *self.shared.node.lock() = None;
    }
}

/// tick, attested tick, epoch, log, head, whether SQL went back.
type Begun = (
    u64,
    u64,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
);

enum Damage {
    None,
    Found,
}
