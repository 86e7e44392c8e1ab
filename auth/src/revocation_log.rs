//! The revocation log: what SQL says is the truth, and every follower in this process has it before
//! the call that made it is acknowledged.
//!
//! Commit and `apply` happen under one lock, so followers see entries in the order of their numbers.
//! The transaction was begun before the lock is taken: waiting for SQL's write lock never keeps the
//! attestations waiting.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use durward_contract::{Bar, Follower, Loading, News, Sequence, Target, UnixSeconds};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use crate::store::{Store, StoreError, Write, revocations};

/// How long reading the head may take. What takes longer is not news.
const ATTEST_TIMEOUT: Duration = Duration::from_secs(2);
/// How many entries are read at a time.
const PAGE: u32 = 4096;

/// The log and its followers.
pub(crate) struct RevocationLog {
    issuer: String,
    followers: Vec<Arc<dyn Follower>>,
    /// What the followers have.
    applied: Mutex<Sequence>,
    heads: watch::Sender<Sequence>,
}

impl RevocationLog {
    pub fn new(issuer: String, followers: Vec<Arc<dyn Follower>>) -> Self {
        Self {
            issuer,
            followers,
            applied: Mutex::new(Sequence(0)),
            heads: watch::Sender::new(Sequence(0)),
        }
    }

    /// Hands the followers all that still matters. To be called once, before anything else.
    pub async fn load(&self, store: &Store, now: UnixSeconds) -> Result<Sequence, StoreError> {
        let mut applied = self.applied.lock().await;
        let asked = Instant::now();
        let mut read = store.log_snapshot().await?;
        let head = revocations::head(&mut read).await?;
        let mut loadings: Vec<Box<dyn Loading + '_>> = self
            .followers
            .iter()
            .map(|follower| follower.begin_load())
            .collect();
        let mut last = Sequence(0);
        loop {
            let page = revocations::standing(&mut read, last, PAGE, now).await?;
            let Some(end) = page.last() else { break };
            last = end.sequence();
            loadings.iter_mut().for_each(|loading| loading.add(&page));
        }
        loadings.into_iter().for_each(|loading| loading.finish(head));
        self.tell_head(head, asked);
        *applied = head;
        self.heads.send_replace(head);
        Ok(head)
    }

    /// Writes an entry into the transaction.
    pub async fn append(
        &self,
        write: &mut Write,
        target: Target,
        bar: Bar,
        forget_at: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<(), StoreError> {
        revocations::append(write, &self.issuer, target, bar, Some(forget_at), now).await
    }

    /// Commits, and returns once every follower has applied what the transaction revoked. Must run
    /// in a task that is not cancelled with its client: a commit without `apply` would wait for the
    /// next attestation.
    pub async fn commit(&self, store: &Store, write: Write) -> Result<(), StoreError> {
        let (transaction, news) = write.into_parts();
        let (Some(first), Some(last)) = (news.first(), news.last()) else {
            return Ok(transaction.commit().await?);
        };
        let (first, head) = (first.sequence(), last.sequence());
        let mut applied = self.applied.lock().await;
        transaction.commit().await?;
        if first.0 == applied.0 + 1 {
            self.apply(&news, head);
            *applied = head;
            return Ok(());
        }
        // Another process wrote between: followers get its entries first.
        self.catch_up(store, &mut applied).await.map(drop)
    }

    /// The head that every follower in this process has.
    pub async fn head(&self) -> Sequence {
        *self.applied.lock().await
    }

    /// Tells of each head that this process has committed or heard of.
    pub fn heads(&self) -> watch::Receiver<Sequence> {
        self.heads.subscribe()
    }

    /// Reads the head, hands over what is missing, and tells the followers that they have all. An
    /// error tells them nothing, and they grow stale.
    pub async fn attest(&self, store: &Store) -> Result<Sequence, StoreError> {
        let mut applied = self.applied.lock().await;
        let asked = Instant::now();
        let head = timeout(ATTEST_TIMEOUT, self.catch_up(store, &mut applied))
            .await
            .map_err(|_| StoreError::Sql(sqlx::Error::PoolTimedOut))??;
        self.tell_head(head, asked);
        Ok(head)
    }

    async fn catch_up(&self, store: &Store, applied: &mut Sequence) -> Result<Sequence, StoreError> {
        let mut read = store.log_snapshot().await?;
        let head = revocations::head(&mut read).await?;
        if head > *applied {
            while *applied < head {
                let page = revocations::after(&mut read, *applied, PAGE).await?;
                // The last entries may have been purged: the log ends without any then.
                let end = page.last().map_or(head, News::sequence);
                self.apply(&page, end);
                *applied = end;
            }
        } else if head < *applied {
            tracing::error!(
                head = head.0,
                applied = applied.0,
                "the revocation log went backwards: was the database replaced?"
            );
        }
        Ok(head)
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
        self.heads.send_replace(head);
    }
}

impl fmt::Debug for RevocationLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationLog")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}
