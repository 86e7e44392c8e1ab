//! The revocation log: what SQL says is the truth, and every follower in this process has it before
//! the call that made it is acknowledged.
//!
//! Commit and `apply` happen under one lock, so followers see entries in the order of their numbers.
//! The transaction has taken its numbers before that lock is taken: waiting for what other
//! transactions have locked, in this process or in another, never keeps the attestations waiting.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use durward_contract::{Bar, Follower, Loading, News, Sequence, Target, UnixSeconds};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::reach::{Fleet, NoFleet};
use crate::store::revocations::{self, Head, PendingEntry};
use crate::store::{Connection, Store, StoreError, Write};

/// How long reading the head may take. What takes longer is not news.
const ATTEST_TIMEOUT: Duration = Duration::from_secs(2);
/// How many entries are read at a time.
const PAGE: u32 = 4096;

/// The instant by which nothing has ended.
const EVERYTHING: UnixSeconds = UnixSeconds(i64::MIN);

/// The log and its followers.
pub(crate) struct RevocationLog {
    issuer: String,
    followers: Vec<Arc<dyn Follower>>,
    /// What the followers have; nothing before the first load.
    applied: Mutex<Option<Head>>,
    /// Those in other processes.
    fleet: OnceLock<Arc<dyn Fleet>>,
}

impl RevocationLog {
    pub fn new(issuer: String, followers: Vec<Arc<dyn Follower>>) -> Self {
        Self {
            issuer,
            followers,
            applied: Mutex::new(None),
            fleet: OnceLock::new(),
        }
    }

    /// Has it tell this fleet of what is committed. Takes effect once.
    pub fn follow_with(&self, fleet: Arc<dyn Fleet>) {
        let _ = self.fleet.set(fleet);
    }

    /// The fleet that it tells.
    pub fn fleet(&self) -> &dyn Fleet {
        self.fleet.get().map_or(&NoFleet, |fleet| &**fleet)
    }

    /// Hands the followers all that there is but for expired grants: this process has just started, and
    /// its clock may not be set yet. To be called once, before anything else.
    pub async fn load(&self, store: &Store, now: UnixSeconds) -> Result<Sequence, StoreError> {
        let mut applied = self.applied.lock().await;
        let asked = Instant::now();
        let mut read = store.log_snapshot().await?;
        let head = revocations::head(&mut read).await?;
        self.replace(&mut read, head.sequence, now).await?;
        self.tell_head(head.sequence, asked);
        let sequence = head.sequence;
        *applied = Some(head);
        Ok(sequence)
    }

    /// Adds an entry to what the transaction will have revoked.
    pub fn append(
        &self,
        write: &mut Write,
        target: Target,
        bar: Bar,
        forget_at: UnixSeconds,
        now: UnixSeconds,
    ) {
        let entry = PendingEntry {
            issuer: self.issuer.clone(),
            target,
            bar,
            forget_at: Some(forget_at),
            created_at: now,
        };
        revocations::append(write, entry);
    }

    /// The same for each of these sessions, with the time at which its entry may be forgotten.
    pub fn append_sessions(&self, write: &mut Write, sessions: &[(String, UnixSeconds)], now: UnixSeconds) {
        for (id, forget_at) in sessions {
            self.append(write, Target::Session(id.clone()), Bar::Always, *forget_at, now);
        }
    }

    /// The same for an entry that is never forgotten.
    pub fn append_for_ever(&self, write: &mut Write, target: Target, now: UnixSeconds) {
        let entry = PendingEntry {
            issuer: self.issuer.clone(),
            target,
            bar: Bar::Always,
            forget_at: None,
            created_at: now,
        };
        revocations::append(write, entry);
    }

    /// Commits, and returns once every follower has applied what the transaction revoked. Must run
    /// in a task that is not cancelled with its client: a commit without `apply` would wait for the
    /// next attestation. An error leaves open whether it was committed; where it was, the next
    /// attestation brings it.
    pub async fn commit(&self, store: &Store, write: Write) -> Result<(), StoreError> {
        // Others may have to be waited for here, so the followers are not locked yet.
        let ready = write.take_numbers().await?;
        if ready.news.is_empty() {
            return ready.commit().await.map(drop);
        }
        let mut applied = self.applied.lock().await;
        let news = ready.commit().await?;
        let ends = news.first().zip(news.last());
        let (Some((first, last)), Some(known)) = (ends, applied.as_mut()) else {
            return Ok(());
        };
        let (first, head) = (first.sequence(), last.sequence());
        if first > known.sequence {
            self.fleet().committed(&news);
        }
        if first.0 == known.sequence.0 + 1 {
            self.apply(&news, head);
            known.sequence = head;
            return Ok(());
        }
        // Another process wrote between: followers get its entries first. Where the numbers are
        // not new, the log went backwards, and what the followers have is of no use.
        if first <= known.sequence {
            self.start_over(store, known).await.map(drop)
        } else {
            self.catch_up(store, known).await.map(drop)
        }
    }

    /// The head that every follower in this process has.
    pub async fn head(&self) -> Sequence {
        let applied = self.applied.lock().await;
        applied.as_ref().map(|head| head.sequence).unwrap_or_default()
    }

    /// Reads the head, hands over what is missing, and tells the followers that they have all. An
    /// error tells them nothing, and they grow stale.
    pub async fn attest(&self, store: &Store) -> Result<Sequence, StoreError> {
        let mut applied = self.applied.lock().await;
        let known = applied.as_mut().ok_or(StoreError::Silent)?;
        let (asked, before) = (Instant::now(), known.sequence);
        let head = timeout(ATTEST_TIMEOUT, self.catch_up(store, known))
            .await
            .map_err(|_| StoreError::Silent)??;
        if head > before {
            // Whoever committed it may not be there any more to say so.
            self.fleet().committed(&[]);
        }
        self.tell_head(head, asked);
        Ok(head)
    }

    async fn catch_up(&self, store: &Store, known: &mut Head) -> Result<Sequence, StoreError> {
        let mut read = store.log_snapshot().await?;
        let head = revocations::head(&mut read).await?;
        if head.log_id != known.log_id {
            // Its numbers say nothing about what the followers have. A restart loads the new log.
            return Err(StoreError::Corrupt("revocation log: it was replaced by another"));
        }
        if head.sequence < known.sequence {
            drop(read);
            return self.start_over(store, known).await;
        }
        while known.sequence < head.sequence {
            let page = revocations::after(&mut read, known.sequence, PAGE).await?;
            // The last entries may have been purged: the log ends without any then.
            let end = page.last().map_or(head.sequence, News::sequence);
            self.apply(&page, end);
            known.sequence = end;
        }
        Ok(head.sequence)
    }

    /// Hands the followers what the log has beside what they know, after it went backwards: a backup
    /// was restored, or a standby took over that did not have all. Nothing that they know is
    /// forgotten, and the next attestation tells them that the log went backwards: they trust their
    /// silence again only after a restart.
    async fn start_over(&self, store: &Store, known: &mut Head) -> Result<Sequence, StoreError> {
        let mut read = store.log_snapshot().await?;
        let head = revocations::head(&mut read).await?;
        tracing::error!(
            head = head.sequence.0,
            applied = known.sequence.0,
            "the revocation log went backwards: was a backup restored? Until a restart, whoever is not \
             known to be revoked counts as unknown"
        );
        if head.log_id != known.log_id {
            return Err(StoreError::Corrupt("revocation log: it was replaced by another"));
        }
        let mut last = Sequence(0);
        loop {
            // What need not be refused any more does no harm.
            let page = revocations::standing(&mut read, last, PAGE, EVERYTHING, EVERYTHING).await?;
            let Some(end) = page.last() else { break };
            last = end.sequence();
            self.apply(&page, last);
        }
        known.sequence = head.sequence;
        self.tell_head(head.sequence, Instant::now());
        self.fleet().committed(&[]);
        Ok(head.sequence)
    }

    async fn replace(
        &self,
        read: &mut Connection,
        head: Sequence,
        now: UnixSeconds,
    ) -> Result<(), StoreError> {
        let mut loadings: Vec<Box<dyn Loading + '_>> = self
            .followers
            .iter()
            .map(|follower| follower.begin_load())
            .collect();
        let mut last = Sequence(0);
        loop {
            let page = revocations::standing(read, last, PAGE, EVERYTHING, now).await?;
            let Some(end) = page.last() else { break };
            last = end.sequence();
            loadings.iter_mut().for_each(|loading| loading.add(&page));
        }
        loadings.into_iter().for_each(|loading| loading.finish(head));
        Ok(())
    }

    fn tell_head(&self, head: Sequence, asked: Instant) {
        for follower in &self.followers {
            follower.attest(head, asked.elapsed());
        }
    }

    fn apply(&self, news: &[News], head: Sequence) {
        for follower in &self.followers {
            follower.apply(news, head);
        }
    }
}

impl fmt::Debug for RevocationLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationLog")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}
