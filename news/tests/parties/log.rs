//! A log as SQL would have it, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use durward_contract::{Bar, Grant, News, RevocationEntry, Sequence, Target, UnixSeconds, wire};
use durward_news::{Log, LogError, LogHead};
use parking_lot::Mutex;

#[derive(Default)]
struct Rows {
    log: String,
    head: u64,
    rows: BTreeMap<u64, News>,
    down: bool,
    /// How long an answer takes after it was read.
    delay: Duration,
    now: i64,
    /// When the newest read that has answered began.
    last_read: Option<Instant>,
}

/// A log as SQL would have it.
pub struct MemoryLog(Mutex<Rows>);

impl MemoryLog {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Rows {
            log: "log-1".into(),
            now: 1_000_000,
            ..Rows::default()
        })))
    }

    /// Commits a ban, and returns its number.
    pub fn ban(&self, user: &str) -> Sequence {
        self.revoke(user, Bar::Always, None)
    }

    pub fn revoke(&self, user: &str, bar: Bar, forget_at: Option<i64>) -> Sequence {
        self.commit(|sequence| {
            News::Revocation(RevocationEntry {
                sequence,
                issuer: "issuer".into(),
                target: Target::User(user.into()),
                bar,
                forget_at: forget_at.map(UnixSeconds),
            })
        })
    }

    pub fn grant(&self, key: &str) -> Sequence {
        self.commit(|sequence| {
            News::Grant(Grant {
                sequence,
                issuer: "issuer".into(),
                key: key.into(),
                digest: [7; 32],
                service: "billing".into(),
                scopes: vec![],
                expires_at: None,
            })
        })
    }

    pub fn end_key(&self, key: &str) -> Sequence {
        self.commit(|sequence| {
            News::Revocation(RevocationEntry {
                sequence,
                issuer: "issuer".into(),
                target: Target::ApiKey(key.into()),
                bar: Bar::Always,
                forget_at: None,
            })
        })
    }

    pub fn commit(&self, news: impl FnOnce(Sequence) -> News) -> Sequence {
        let mut rows = self.0.lock();
        rows.head += 1;
        let head = rows.head;
        rows.rows.insert(head, news(Sequence(head)));
        Sequence(head)
    }

    /// What was committed under this number.
    pub fn row(&self, sequence: Sequence) -> News {
        self.0.lock().rows[&sequence.0].clone()
    }

    /// An entry as Redis keeps it.
    pub fn news(&self, sequence: Sequence) -> String {
        wire::encode(&self.row(sequence))
    }

    /// Takes rows away, as a purge of forgotten ones does.
    pub fn purge(&self, sequences: std::ops::RangeInclusive<u64>) {
        self.0
            .lock()
            .rows
            .retain(|sequence, _| !sequences.contains(sequence));
    }

    /// An older database is restored.
    pub fn restore(&self, head: u64) {
        let mut rows = self.0.lock();
        rows.head = head;
        rows.rows.retain(|sequence, _| *sequence <= head);
    }

    pub fn set_log(&self, log: &str) {
        self.0.lock().log = log.into();
    }

    pub fn set_down(&self, down: bool) {
        self.0.lock().down = down;
    }

    pub fn set_delay(&self, delay: Duration) {
        self.0.lock().delay = delay;
    }

    pub fn advance(&self, seconds: i64) {
        self.0.lock().now += seconds;
    }

    pub fn clock(&self) -> i64 {
        self.0.lock().now
    }

    pub fn head_now(&self) -> Sequence {
        Sequence(self.0.lock().head)
    }

    pub(super) fn last_read(&self) -> Option<Instant> {
        self.0.lock().last_read
    }

    async fn read<T>(&self, read: impl FnOnce(&Rows) -> T) -> Result<T, LogError> {
        let (began, value, delay) = {
            let rows = self.0.lock();
            if rows.down {
                return Err(LogError("the database is down".into()));
            }
            (Instant::now(), read(&rows), rows.delay)
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut rows = self.0.lock();
        rows.last_read = rows.last_read.max(Some(began));
        Ok(value)
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn head(&self) -> Result<LogHead, LogError> {
        self.read(|rows| LogHead {
            log: rows.log.clone(),
            head: Sequence(rows.head),
        })
        .await
    }

    async fn after(&self, sequence: Sequence, limit: u32) -> Result<Vec<News>, LogError> {
        self.read(|rows| page(rows, sequence, limit, i64::MIN)).await
    }

    async fn standing(&self, after: Sequence, limit: u32) -> Result<Vec<News>, LogError> {
        self.read(|rows| page(rows, after, limit, rows.now)).await
    }

    fn forgets_until(&self) -> UnixSeconds {
        UnixSeconds(self.clock())
    }
}

fn page(rows: &Rows, after: Sequence, limit: u32, now: i64) -> Vec<News> {
    rows.rows
        .range(after.0 + 1..)
        .map(|(_, news)| news)
        .filter(|news| news.forget_at().is_none_or(|at| at.0 > now))
        .take(limit as usize)
        .cloned()
        .collect()
}
