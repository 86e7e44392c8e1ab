//! The door through which revocations reach this gateway: they enter the mirror, then end the open
//! requests that they reach, and only then is the caller told that they are applied.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use durward_contract::{Follower, Loading, News, Sequence, Target, UnixSeconds};
use durward_policy::{
    Cause, GrantStanding, GrantedKey, KeyDigest, Policy, Principal, Revocations, Standing, VerifiedToken,
    bites,
};

use tokio::sync::watch;

use crate::clock::Monotonic;
use crate::live_streams::LiveStreams;
use crate::mirror::{Mirror, Replacement};
use crate::mirror_table::{MirrorTable, TableEntry};

/// Up to how many entries each open request is compared with the entries themselves; beyond, it is
/// looked up in the mirror.
const COMPARED_ENTRIES: usize = 8;

/// The bounds of the mirror.
#[derive(Clone, Copy, Debug)]
pub struct MirrorLimits {
    /// Most entries. A mirror that is full refuses whoever is not known to be revoked.
    pub max_entries: usize,
}

impl Default for MirrorLimits {
    fn default() -> Self {
        Self {
            max_entries: 16 << 20,
        }
    }
}

/// The mirror of the revocation log, and the open requests that it ends.
pub struct RevocationFeed {
    mirror: Mirror,
    streams: Arc<LiveStreams>,
    /// Counts up after each change and before open requests are looked through.
    version: AtomicU64,
    /// Counts the signing keys that were revoked since the first load.
    revoked_keys: watch::Sender<u64>,
}

impl RevocationFeed {
    /// An empty mirror that is not loaded, for the tokens that `policy` proves.
    pub fn new(policy: &Policy, limits: MirrorLimits) -> Arc<Self> {
        let clock = Monotonic::system();
        let mirror = Mirror::new(
            policy.digest_key(),
            limits.max_entries,
            policy.max_staleness(),
            clock,
        );
        Arc::new(Self::with_mirror(mirror))
    }

    pub(crate) fn with_mirror(mirror: Mirror) -> Self {
        Self {
            mirror,
            streams: Arc::default(),
            version: AtomicU64::new(0),
            revoked_keys: watch::Sender::new(0),
        }
    }

    pub(crate) fn streams(&self) -> &Arc<LiveStreams> {
        &self.streams
    }

    /// Unchanged between two reads, no revocation was applied between them.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// Whether the first snapshot is in.
    pub fn is_loaded(&self) -> bool {
        self.mirror.is_loaded()
    }

    /// How many entries there are.
    pub fn entries(&self) -> usize {
        self.mirror.len()
    }

    /// How many API keys there are.
    pub fn grants(&self) -> usize {
        self.mirror.grants()
    }

    /// The sequence that is applied.
    pub fn applied(&self) -> Sequence {
        self.mirror.applied()
    }

    /// The age of the last news.
    pub fn staleness(&self) -> Duration {
        self.mirror.staleness()
    }

    /// What it means that nothing is known against somebody.
    pub(crate) fn silence(&self, now: Instant) -> Standing {
        self.mirror.silence(now)
    }

    /// Whether the mirror is known to hold everything up to its last news.
    pub fn is_whole(&self) -> bool {
        self.mirror.trust() == crate::mirror::Trust::Whole
    }

    /// Forgets a little; to be called in turn with the steps 0, 1, 2, ...
    pub(crate) fn sweep(&self, step: usize, now: UnixSeconds) {
        self.mirror.sweep(step, now);
    }

    pub(crate) const SWEEP_STEPS: usize = MirrorTable::SWEEP_STEPS;

    /// How a token stands at `now`, which was read just now.
    pub(crate) fn standing_at(&self, token: &VerifiedToken, now: Instant) -> Standing {
        self.mirror.standing_at(token, now)
    }

    /// What a principal is barred by, if anything is known against it.
    pub(crate) fn barred(&self, principal: &Principal) -> Option<Cause> {
        match principal {
            Principal::User(token) => self.mirror.barred(token),
            Principal::Service(key) => self.mirror.key_ended(key),
        }
    }

    /// Changes whenever a signing key was revoked: the auth service has another one by then.
    pub(crate) fn revoked_keys(&self) -> watch::Receiver<u64> {
        self.revoked_keys.subscribe()
    }

    /// How many signing keys these news revoke that were not known to be. What is there at the first
    /// load is older than the keys that are read at the start.
    fn newly_revoked_keys(&self, news: &[News]) -> u64 {
        let is_new = |news: &&News| match news {
            News::Revocation(entry) => {
                matches!(entry.target, Target::SigningKey(_)) && !self.mirror.knows(entry)
            }
            News::Grant(_) => false,
        };
        match self.is_loaded() {
            true => news.iter().filter(is_new).count() as u64,
            false => 0,
        }
    }

    fn tell_revoked_keys(&self, count: u64) {
        if count > 0 {
            self.revoked_keys.send_modify(|revoked| *revoked += count);
        }
    }

    fn changed(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
    }
}

impl Follower for RevocationFeed {
    fn begin_load(&self) -> Box<dyn Loading + '_> {
        Box::new(FeedLoading {
            feed: self,
            replacement: Box::new(self.mirror.begin_load()),
            revoked_keys: 0,
        })
    }

    fn apply(&self, news: &[News], head: Sequence) {
        let revoked_keys = self.newly_revoked_keys(news);
        self.mirror.apply(news, head);
        self.tell_revoked_keys(revoked_keys);
        let entries: Vec<_> = news
            .iter()
            .filter_map(|news| match news {
                News::Revocation(entry) => Some(self.mirror.table_entry(entry)),
                News::Grant(_) => None,
            })
            .collect();
        if entries.is_empty() {
            return;
        }
        self.changed();
        if entries.len() > COMPARED_ENTRIES {
            return self.streams.end_where(|principal| self.barred(principal));
        }
        self.streams
            .end_where(|principal| entries.iter().find_map(|entry| reaches(entry, principal)));
    }

    fn attest(&self, head: Sequence, age: Duration) {
        self.mirror.attest(head, age);
    }
}

impl Revocations for RevocationFeed {
    fn standing(&self, token: &VerifiedToken, _now: UnixSeconds) -> Standing {
        self.standing_at(token, Instant::now())
    }

    fn granted_key(&self, digest: &KeyDigest) -> GrantStanding {
        self.mirror.granted_key(digest)
    }

    fn key_standing(&self, key: &GrantedKey) -> Standing {
        self.mirror.key_standing(key)
    }
}

/// A snapshot on its way in.
struct FeedLoading<'f> {
    feed: &'f RevocationFeed,
    replacement: Box<Replacement<'f>>,
    revoked_keys: u64,
}

impl Loading for FeedLoading<'_> {
    fn add(&mut self, news: &[News]) {
        self.revoked_keys += self.feed.newly_revoked_keys(news);
        self.replacement.add(news);
    }

    fn finish(self: Box<Self>, head: Sequence) {
        let feed = self.feed;
        self.replacement.finish(head);
        feed.tell_revoked_keys(self.revoked_keys);
        feed.changed();
        feed.streams.end_where(|principal| feed.barred(principal));
    }
}

/// Whether one entry bars one principal.
fn reaches(entry: &TableEntry, principal: &Principal) -> Option<Cause> {
    match principal {
        Principal::User(token) => reaches_token(entry, token),
        Principal::Service(key) => {
            (entry.cause == Cause::ApiKey && entry.digest == key.revocation()).then_some(Cause::ApiKey)
        }
    }
}

fn reaches_token(entry: &TableEntry, token: &VerifiedToken) -> Option<Cause> {
    let covered = token
        .digests()
        .iter()
        .any(|(cause, digest)| cause == entry.cause && digest == entry.digest);
    (covered && bites(entry.bar, token)).then_some(entry.cause)
}

#[cfg(test)]
mod tests {
    use durward_contract::{Bar, RevocationEntry, Snapshot, Target};
    use durward_policy::RouteId;

    use super::*;
    use crate::live_streams::{Cut, RequestHandle};
    use crate::testing::{DIGEST_KEY, ISSUER, end_of_key, news_of_key, service, user};

    fn feed() -> RevocationFeed {
        let mirror = Mirror::new(DIGEST_KEY, 100, Duration::from_secs(5), Monotonic::system());
        RevocationFeed::with_mirror(mirror)
    }

    fn ban(user: &str, bar: Bar) -> News {
        News::Revocation(RevocationEntry {
            sequence: Sequence(1),
            issuer: ISSUER.into(),
            target: Target::User(user.into()),
            bar,
            forget_at: None,
        })
    }

    #[test]
    fn applying_ends_the_open_requests_that_are_reached_before_it_returns() {
        for many in [false, true] {
            let feed = feed();
            feed.load(Snapshot::default());
            let (alice, mallory) = (
                Arc::new(RequestHandle::default()),
                Arc::new(RequestHandle::default()),
            );
            let _a = feed
                .streams()
                .register(&alice, &user("alice"), RouteId(0), UnixSeconds(i64::MAX));
            let _m = feed
                .streams()
                .register(&mallory, &user("mallory"), RouteId(0), UnixSeconds(i64::MAX));
            let mut entries = vec![
                ban("mallory", Bar::EpochBelow(u32::MAX)),
                ban("alice", Bar::EpochBelow(0)),
            ];
            if many {
                entries.extend((0..COMPARED_ENTRIES).map(|id| ban(&format!("u{id}"), Bar::Always)));
            }
            let before = feed.version();
            feed.apply(&entries, Sequence(1));
            assert_ne!(feed.version(), before);
            assert_eq!(mallory.cut(), Some(Cut::Revoked(Cause::User)));
            assert_eq!(alice.cut(), None, "her epoch is not below");
        }
    }

    #[test]
    fn a_signing_key_that_is_newly_revoked_is_told_of_once() {
        let feed = feed();
        let revoked = |kid: &str| {
            News::Revocation(RevocationEntry {
                sequence: Sequence(1),
                issuer: ISSUER.into(),
                target: Target::SigningKey(kid.into()),
                bar: Bar::Always,
                forget_at: None,
            })
        };
        let load = |news: Vec<News>| {
            feed.load(Snapshot {
                head: Sequence(1),
                news,
            });
            feed.attest(Sequence(1), Duration::ZERO);
        };
        let mut told = feed.revoked_keys();
        load(vec![revoked("k1")]);
        assert!(!told.has_changed().unwrap(), "the keys of the start are newer");
        feed.apply(&[ban("mallory", Bar::Always)], Sequence(2));
        assert!(!told.has_changed().unwrap());
        feed.apply(&[revoked("k2")], Sequence(3));
        assert!(told.has_changed().unwrap());
        told.mark_unchanged();
        load(vec![revoked("k1"), revoked("k2")]);
        assert!(!told.has_changed().unwrap(), "both are known");
        load(vec![revoked("k1"), revoked("k2"), revoked("k3")]);
        assert!(told.has_changed().unwrap());
    }

    #[test]
    fn a_snapshot_ends_open_requests_too() {
        let feed = feed();
        let mallory = Arc::new(RequestHandle::default());
        let _m = feed
            .streams()
            .register(&mallory, &user("mallory"), RouteId(0), UnixSeconds(i64::MAX));
        feed.load(Snapshot {
            head: Sequence(1),
            news: vec![ban("mallory", Bar::Always)],
        });
        assert_eq!(mallory.cut(), Some(Cut::Revoked(Cause::User)));
    }

    #[test]
    fn a_service_is_cut_with_its_key_and_no_user_with_it() {
        for many in [false, true] {
            let feed = feed();
            feed.load(Snapshot {
                head: Sequence(2),
                news: vec![news_of_key(1, "a"), news_of_key(2, "b")],
            });
            let handles: Vec<_> = (0..3).map(|_| Arc::new(RequestHandle::default())).collect();
            let never = UnixSeconds(i64::MAX);
            let principals = [service("a"), service("b"), user("a")];
            let _registrations: Vec<_> = handles
                .iter()
                .zip(&principals)
                .map(|(handle, principal)| feed.streams().register(handle, principal, RouteId(0), never))
                .collect();
            let before = feed.version();
            feed.apply(&[news_of_key(3, "c")], Sequence(3));
            assert_eq!(feed.version(), before, "a grant takes nothing away");
            let mut entries = vec![end_of_key(4, "a")];
            if many {
                entries.extend((0..COMPARED_ENTRIES).map(|id| ban(&format!("u{id}"), Bar::Always)));
            }
            feed.apply(&entries, Sequence(4));
            let cuts: Vec<_> = handles.iter().map(|handle| handle.cut()).collect();
            assert_eq!(cuts, [Some(Cut::Revoked(Cause::ApiKey)), None, None]);
            // A snapshot without the key ends it too.
            feed.load(Snapshot {
                head: Sequence(5),
                news: vec![],
            });
            assert_eq!(handles[1].cut(), Some(Cut::Revoked(Cause::ApiKey)));
            assert_eq!(handles[2].cut(), None);
        }
    }
}
