//! Building all of Redis anew from SQL, beside what is there, and then making it current at once.

use std::time::Duration;

use durward_contract::{News, Sequence};
use redis::{Value, cmd};
use tokio::time::timeout;

use crate::dial::Node;
use crate::log::{Log, LogError, LogHead};
use crate::protocol::{BUILD, EpochKeys, FLIP, Keys, push_batch};
use crate::random;
use crate::store_error::StoreError;

/// How long keys that are being built live after their last batch.
const BUILD_TTL: Duration = Duration::from_secs(60);
/// How long another publisher waits for the one that builds. Advisory: two that build do no harm.
const LOCK_TTL: Duration = Duration::from_secs(5);
/// How many entries are read from SQL at a time. Two such pages are in memory, no more.
const PAGE: u32 = 4096;
/// How often what was published meanwhile is added.
const MAX_ROUNDS: usize = 8;

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rebuilt {
    /// This epoch is current now, up to this head.
    Done(EpochKeys, Sequence),
    /// Another publisher builds, or has built.
    ByOther,
}

/// Why it did not work.
#[derive(Debug)]
pub(crate) enum RebuildError {
    Store(StoreError),
    Log(LogError),
}

impl From<StoreError> for RebuildError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<LogError> for RebuildError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// What `meta` held when it was found wanting: raw, and empty where there was nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub epoch: String,
    pub head: String,
}

/// What a rebuild works with.
pub(crate) struct Rebuild<'r> {
    pub node: &'r mut Node,
    pub keys: &'r Keys,
    pub log: &'r dyn Log,
    /// How long one reading of SQL may take.
    pub log_timeout: Duration,
    /// Whose lock it is.
    pub publisher: &'r str,
    /// The epoch that was current when this publisher last looked: where `meta` is lost, nobody else
    /// knows which keys are left behind.
    pub left_behind: Option<&'r str>,
}

impl Rebuild<'_> {
    /// Builds up to `head` and makes it current, unless what was found has changed.
    pub(crate) async fn run(mut self, found: Found, head: &LogHead) -> Result<Rebuilt, RebuildError> {
        if !self.lock().await? {
            return Ok(Rebuilt::ByOther);
        }
        let built = self.build(found, head).await;
        // Only to save the next one some seconds.
        drop(self.unlock().await);
        built
    }

    async fn build(&mut self, mut found: Found, head: &LogHead) -> Result<Rebuilt, RebuildError> {
        let new = self.keys.epoch(&random::id());
        let mut built = Built {
            count: 0,
            last: Sequence(0),
        };
        if !self.add(&new, &mut built, true).await? {
            return Ok(Rebuilt::ByOther);
        }
        built.last = built.last.max(head.head);
        for _ in 0..MAX_ROUNDS {
            match self.flip(&found, &new, &head.log, &built).await? {
                Flip::Done => return Ok(Rebuilt::Done(new, built.last)),
                // Published meanwhile, into the epoch that is to be replaced.
                Flip::Changed(now) if now.epoch == found.epoch => {
                    if !self.add(&new, &mut built, false).await? {
                        break;
                    }
                    if let Ok(published) = now.head.parse() {
                        built.last = built.last.max(Sequence(published));
                    }
                    found = now;
                }
                Flip::Changed(_) | Flip::Lost => break,
            }
        }
        drop(self.remove(&new).await);
        Ok(Rebuilt::ByOther)
    }

    /// Adds what SQL has beyond `built`; false where some of what was built is gone.
    async fn add(
        &mut self,
        new: &EpochKeys,
        built: &mut Built,
        only_standing: bool,
    ) -> Result<bool, RebuildError> {
        let (log, within) = (self.log, self.log_timeout);
        let read = async |after: Sequence| -> Result<Vec<News>, LogError> {
            let page = async {
                if only_standing {
                    log.standing(after, PAGE).await
                } else {
                    log.after(after, PAGE).await
                }
            };
            timeout(within, page)
                .await
                .map_err(|_| LogError("no answer in time".into()))?
        };
        let mut page = read(built.last).await?;
        while let Some(end) = page.last().map(News::sequence) {
            // SQL reads the next page while Redis takes this one.
            let (next, whole) = tokio::join!(read(end), self.write(new, built, &page));
            if !whole? {
                return Ok(false);
            }
            page = next?;
        }
        Ok(true)
    }

    /// Adds a page; false where some of what was built is gone.
    async fn write(&mut self, new: &EpochKeys, built: &mut Built, page: &[News]) -> Result<bool, StoreError> {
        let mut rest = page;
        loop {
            let mut arguments = vec![built.count.to_string(), BUILD_TTL.as_millis().to_string()];
            let Some(last) = push_batch(&mut arguments, &mut rest) else {
                break;
            };
            let count: i64 = BUILD
                .run(self.node, &[&new.entries, &new.expiry], &arguments)
                .await?;
            let Ok(count) = u64::try_from(count) else {
                return Ok(false);
            };
            (built.count, built.last) = (count, last);
        }
        self.renew().await?;
        Ok(true)
    }

    async fn flip(
        &mut self,
        found: &Found,
        new: &EpochKeys,
        log: &str,
        built: &Built,
    ) -> Result<Flip, StoreError> {
        let old = match self.left_behind {
            Some(epoch) if found.epoch.is_empty() => self.keys.epoch(epoch),
            _ => self.keys.epoch(&found.epoch),
        };
        let (word, epoch, head): (String, String, String) = FLIP
            .run(
                self.node,
                &[
                    &self.keys.meta,
                    &new.entries,
                    &new.expiry,
                    &old.entries,
                    &old.expiry,
                    &old.stream,
                ],
                &[
                    found.epoch.clone(),
                    found.head.clone(),
                    new.epoch.clone(),
                    log.to_owned(),
                    built.last.0.to_string(),
                    built.count.to_string(),
                ],
            )
            .await?;
        Ok(match word.as_str() {
            "ok" => Flip::Done,
            "lost" => Flip::Lost,
            _ => Flip::Changed(Found { epoch, head }),
        })
    }

    async fn remove(&mut self, new: &EpochKeys) -> Result<(), StoreError> {
        let mut command = cmd("UNLINK");
        command.arg(&new.entries).arg(&new.expiry);
        self.node.ask(&command).await.map(drop)
    }

    async fn lock(&mut self) -> Result<bool, StoreError> {
        let mut command = cmd("SET");
        command.arg(&self.keys.lock).arg(self.publisher).arg("NX");
        command
            .arg("PX")
            .arg(u64::try_from(LOCK_TTL.as_millis()).unwrap_or(u64::MAX));
        Ok(self.node.ask(&command).await? != Value::Nil)
    }

    async fn renew(&mut self) -> Result<(), StoreError> {
        let mut command = cmd("PEXPIRE");
        command
            .arg(&self.keys.lock)
            .arg(u64::try_from(LOCK_TTL.as_millis()).unwrap_or(u64::MAX));
        self.node.ask(&command).await.map(drop)
    }

    async fn unlock(&mut self) -> Result<(), StoreError> {
        self.node.ask(cmd("DEL").arg(&self.keys.lock)).await.map(drop)
    }
}

struct Built {
    count: u64,
    last: Sequence,
}

enum Flip {
    Done,
    /// What was built is not all there.
    Lost,
    Changed(Found),
}
