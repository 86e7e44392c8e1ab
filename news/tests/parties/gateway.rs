//! A gateway that notes what it is told, and whether that was true.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use durward_contract::{Bar, Follower, Loading, News, Sequence, Target, wire};
use durward_news::{Connector, FollowerTask};
use parking_lot::Mutex;

use super::{MemoryLog, STALE, follower_options};

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
