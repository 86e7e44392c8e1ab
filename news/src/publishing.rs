//! The publisher's task: brings Redis from its head to SQL's, again and again.
//!
//! A crash between commit and publish loses nothing, because nothing is remembered between: each
//! cycle asks both sides where they are.

use std::sync::Arc;
use std::time::Duration;

use durward_contract::Sequence;
use tokio::time::{Instant, sleep, timeout};

use crate::fresh_news::{Waiting, first_run};
use crate::log::{Log, LogError, LogHead};
use crate::protocol::{BATCH_ENTRIES, EpochKeys};
use crate::publish_batch::{Batch, Published};
use crate::publish_failure::Failure;
use crate::publish_session::{Attested, Session};
use crate::publisher::{PublishFault, Shared};
use crate::random::Backoff;
use crate::rebuild::{Found, Rebuild, Rebuilt};
use crate::store_error::StoreFault;

/// For how many of our cycles another log's attestations must rest before we replace it.
const FOREIGN_REST: u32 = 5;
/// How often in a row what is known may be out of date before that is a fault, and the longest wait
/// until then.
const OFTEN_AGAIN: u32 = 8;
const SOON: Duration = Duration::from_millis(100);

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
        let shared = Arc::clone(&self.shared);
        if self.session.is_none() {
            let session = Session::connect(&shared).await?;
            *shared.node.lock() = Some(session.node.clone());
            self.session = Some(session);
        }
        let evictions = self.session()?.check_health(&shared).await?;
        if evictions > 0 {
            self.evicted(evictions).await?;
        }
        let session = self.session()?;
        session.hear_gateways(&shared).await?;
        let begun = session.begin(&shared.keys).await?;
        let sql = self.read_head().await?;
        let found = begun.found;
        match begun.meta {
            None => self.rebuild(found, &sql, "it has no head").await?,
            Some(meta) if meta.log != sql.log => {
                self.may_replace(&meta.log, begun.attested)?;
                self.rebuild(found, &sql, "it holds another log").await?;
            }
            Some(meta) if begun.went_back || meta.head > sql.head => {
                self.mark_went_back().await?;
                return Err(Failure::WentBack {
                    redis: meta.head,
                    sql: sql.head,
                });
            }
            Some(meta) => {
                self.foreign = None;
                self.enter(shared.keys.epoch(&meta.epoch), meta.head);
                if let Damage::Found = self.publish_up_to(sql.head).await? {
                    self.rebuild(found, &sql, "entries are missing").await?;
                }
            }
        }
        self.attest(begun.tick, &sql).await?;
        let until = self.log.forgets_until();
        Ok(self.session()?.forget(&shared.keys, until).await?)
    }

    /// Notes that SQL has had less than Redis. Numbers that it gives from then on may have been given
    /// before, to other entries: nothing is published under this log until its id is another one, or
    /// Redis was emptied.
    async fn mark_went_back(&mut self) -> Result<(), Failure> {
        let mut command = redis::cmd("HSET");
        command.arg(&self.shared.keys.meta).arg("went_back").arg(1);
        let session = self.session()?;
        session.epoch = None;
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
        let damage = match self.publish_fresh().await? {
            Fresh::All => return Ok(()),
            Fresh::Some => self.publish_up_to(Sequence(0)).await?,
            Fresh::Damaged => Damage::Found,
        };
        match damage {
            Damage::None => Ok(()),
            Damage::Found => Err(Failure::Again),
        }
    }

    /// Publishes what this process has committed itself, as far as Redis has all that came before. That
    /// others have published theirs is taken for granted: Redis refuses where it is not so.
    async fn publish_fresh(&mut self) -> Result<Fresh, Failure> {
        let shared = Arc::clone(&self.shared);
        let Waiting { news, more_in_sql } = shared.fresh.take();
        let mut rest = news.as_slice();
        loop {
            let (epoch, head) = self.position().ok_or(Failure::Again)?;
            let there = rest.iter().take_while(|news| news.sequence() <= head).count();
            rest = &rest[there..];
            let Some(first) = rest.first() else { break };
            let before = Sequence(first.sequence().0 - 1);
            let mut run = first_run(rest);
            let batch = Batch::cut(before, &mut run, None);
            let last = batch.last;
            let session = self.session()?;
            let (keys, kept) = (&shared.keys, shared.options.stream_entries);
            match batch.publish(&mut session.node, keys, &epoch, kept).await? {
                Published::Ok => session.head = last,
                Published::Head(head) => {
                    session.head = head;
                    if head < before {
                        return Ok(Fresh::Some);
                    }
                }
                Published::Damaged => return Ok(Fresh::Damaged),
                Published::Epoch => return Err(Failure::Again),
            }
            shared.status.lock().published = self.session()?.head;
        }
        Ok(if more_in_sql { Fresh::Some } else { Fresh::All })
    }

    /// Whatever was evicted, it may have been ours: the current epoch is replaced.
    async fn evicted(&mut self, evictions: u64) -> Result<(), Failure> {
        self.shared.status.lock().evictions += evictions;
        tracing::error!(evictions, "Redis evicted keys; news of revocations is built anew");
        let sql = self.read_head().await?;
        let shared = Arc::clone(&self.shared);
        match self.session()?.find(&shared.keys).await? {
            // The cycle that follows knows what to do with these.
            (_, Some(meta)) if meta.log != sql.log || meta.head > sql.head => Ok(()),
            (found, _) => self.rebuild(found, &sql, "keys were evicted").await,
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
        let shared = Arc::clone(&self.shared);
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
            let (keys, kept) = (&shared.keys, shared.options.stream_entries);
            let mut rest = page.as_slice();
            let mut overtaken = false;
            loop {
                let session = self.session()?;
                let batch = Batch::cut(session.head, &mut rest, is_all.then_some(target));
                let last = batch.last;
                match batch.publish(&mut session.node, keys, &epoch, kept).await? {
                    Published::Ok => session.head = last,
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
        let shared = Arc::clone(&self.shared);
        match self.session()?.attest(&shared.keys, tick, sql.head).await? {
            Attested::Ok => {}
            Attested::Damaged(found) => {
                self.rebuild(found, sql, "entries are missing").await?;
                return Err(Failure::Again);
            }
            Attested::Outdated => return Err(Failure::Again),
        }
        let mut status = shared.status.lock();
        if !status.healthy {
            tracing::info!(head = sql.head.0, "news of revocations reaches Redis");
        }
        status.healthy = true;
        status.fault = None;
        status.attestations += 1;
        Ok(())
    }

    fn session(&mut self) -> Result<&mut Session, Failure> {
        self.session.as_mut().ok_or(Failure::Again)
    }

    /// Takes note, and says how long to wait.
    fn failed(&mut self, failure: Failure) -> Duration {
        if matches!(failure, Failure::Again) && self.again < OFTEN_AGAIN {
            self.again += 1;
            return self.backoff.next().min(SOON);
        }
        let fault = failure.note(self.session.is_some(), &mut self.shared.status.lock());
        if let PublishFault::Store(store) = fault
            && store != StoreFault::Evicting
        {
            // One that is well but may evict is asked again on the same connection.
            self.session = None;
            *self.shared.node.lock() = None;
        }
        match fault {
            PublishFault::AnotherLog => self.shared.options.tick,
            _ => self.backoff.next(),
        }
    }
}

enum Damage {
    None,
    Found,
}

/// What became of what this process has committed itself.
enum Fresh {
    /// It is published, and there is no more.
    All,
    /// SQL has to be asked.
    Some,
    Damaged,
}
