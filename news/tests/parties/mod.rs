//! Both ends of the road, in memory: a log as SQL would have it, and a gateway that notes what it is
//! told and whether that was true.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use durward_contract::{
    Bar, Follower, Grant, Loading, News, RevocationEntry, Sequence, Target, UnixSeconds, wire,
};
use durward_news::{
    Connector, FollowerOptions, FollowerTask, Log, LogError, LogHead, Publisher, PublisherOptions, Timeouts,
};
use parking_lot::Mutex;

use crate::servers::PATIENCE;

/// Everything faster than in production, so that tests are short.
pub fn publisher_options() -> PublisherOptions {
    PublisherOptions {
        tick: Duration::from_millis(100),
        health_check: Duration::from_millis(200),
        timeouts: short(),
        longest_wait: Duration::from_millis(200),
        ..PublisherOptions::default()
    }
}

pub fn follower_options() -> FollowerOptions {
    FollowerOptions {
        pulse: Duration::from_millis(30),
        timeouts: short(),
        longest_wait: Duration::from_millis(200),
        reload_spread: Duration::from_millis(50),
        longest_lag: Duration::from_millis(400),
        reload_unreadable: Duration::from_millis(500),
        ..FollowerOptions::default()
    }
}

fn short() -> Timeouts {
    Timeouts {
        connect: Duration::from_millis(700),
        response: Duration::from_millis(700),
    }
}

/// What nothing is fresher than once its source is gone: pulse and tick, with room for a busy machine.
pub const STALE: Duration = Duration::from_millis(1500);

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

    /// An entry as Redis keeps it.
    pub fn news(&self, sequence: Sequence) -> String {
        wire::encode(&self.0.lock().rows[&sequence.0])
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

    fn last_read(&self) -> Option<Instant> {
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

    fn now(&self) -> UnixSeconds {
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

#[derive(Default)]
struct Known {
    loaded: bool,
    applied: u64,
    /// By slot and number: nothing that was ever applied is forgotten but by a load.
    news: HashMap<String, News>,
    fresh_since: Option<Instant>,
    wrong: Vec<String>,
}

/// A gateway that notes what it is told, and whether it was true.
pub struct Gateway {
    known: Mutex<Known>,
    logs: Vec<Arc<MemoryLog>>,
    pub calls: AtomicU64,
}

impl Gateway {
    /// Its log is the truth that attestations are held against.
    pub fn new(log: &Arc<MemoryLog>) -> Arc<Self> {
        Arc::new(Self {
            known: Mutex::default(),
            logs: vec![Arc::clone(log)],
            calls: AtomicU64::new(0),
        })
    }

    pub fn follow(self: &Arc<Self>, connector: &Connector, name: &str) -> FollowerTask {
        let follower: Arc<dyn Follower> = Arc::<Self>::clone(self);
        FollowerTask::start(connector.clone(), follower, name, follower_options())
    }

    pub fn applied(&self) -> Sequence {
        Sequence(self.known.lock().applied)
    }

    pub fn is_loaded(&self) -> bool {
        self.known.lock().loaded
    }

    pub fn refuses(&self, user: &str) -> bool {
        let known = self.known.lock();
        known
            .news
            .values()
            .any(|news| matches!(news, News::Revocation(entry) if entry.target == Target::User(user.into())))
    }

    pub fn bars(&self, user: &str) -> Vec<Bar> {
        let known = self.known.lock();
        let bar = |news: &News| match news {
            News::Revocation(entry) if entry.target == Target::User(user.into()) => Some(entry.bar),
            _ => None,
        };
        known.news.values().filter_map(bar).collect()
    }

    pub fn accepts_key(&self, key: &str) -> bool {
        let known = self.known.lock();
        let grant = known
            .news
            .values()
            .any(|news| matches!(news, News::Grant(grant) if grant.key == key));
        let end = known.news.values().any(
            |news| matches!(news, News::Revocation(entry) if entry.target == Target::ApiKey(key.into())),
        );
        grant && !end
    }

    pub fn len(&self) -> usize {
        self.known.lock().news.len()
    }

    /// How old what it knows is.
    pub fn age(&self) -> Duration {
        self.known
            .lock()
            .fresh_since
            .map_or(Duration::MAX, |since| since.elapsed())
    }

    pub fn is_fresh(&self) -> bool {
        self.age() < STALE
    }

    /// Fails where anything untrue was said.
    pub fn was_told_the_truth(&self) {
        assert_eq!(self.known.lock().wrong, Vec::<String>::new());
    }
}

impl Follower for Gateway {
    fn begin_load(&self) -> Box<dyn Loading + '_> {
        Box::new(GatewayLoading {
            gateway: self,
            news: HashMap::new(),
        })
    }

    fn apply(&self, news: &[News], head: Sequence) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut known = self.known.lock();
        if head.0 <= known.applied || !known.loaded {
            let wrong = format!("applied {} after {}", head.0, known.applied);
            known.wrong.push(wrong);
        }
        known.applied = head.0;
        for entry in news {
            let key = format!("{}#{}", wire::slot(entry), entry.sequence().0);
            known.news.insert(key, entry.clone());
        }
    }

    fn attest(&self, head: Sequence, age: Duration) {
        let since = Instant::now().checked_sub(age).unwrap();
        let read = self.logs.iter().filter_map(|log| log.last_read()).max();
        let mut known = self.known.lock();
        if head.0 != known.applied {
            let wrong = format!("attested {} with {} applied", head.0, known.applied);
            known.wrong.push(wrong);
        }
        if read.is_none_or(|read| read < since) {
            known.wrong.push(format!(
                "an attestation fresher than any reading of the log: {age:?}"
            ));
        }
        known.fresh_since = known.fresh_since.max(Some(since));
    }
}

struct GatewayLoading<'g> {
    gateway: &'g Gateway,
    news: HashMap<String, News>,
}

impl Loading for GatewayLoading<'_> {
    fn add(&mut self, news: &[News]) {
        for entry in news {
            let key = format!("{}#{}", wire::slot(entry), entry.sequence().0);
            self.news.insert(key, entry.clone());
        }
    }

    fn finish(self: Box<Self>, head: Sequence) {
        let mut known = self.gateway.known.lock();
        if head.0 < known.applied {
            let wrong = format!("loaded {} after {}", head.0, known.applied);
            known.wrong.push(wrong);
        }
        known.news = self.news;
        known.applied = head.0;
        known.loaded = true;
    }
}

pub fn publish(connector: &Connector, log: &Arc<MemoryLog>) -> Publisher {
    let log: Arc<dyn Log> = Arc::<MemoryLog>::clone(log);
    Publisher::start(connector.clone(), log, publisher_options())
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
