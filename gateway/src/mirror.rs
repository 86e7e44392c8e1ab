//! The mirror: every revocation and every grant that matters, in memory, and how fresh that
//! knowledge is.
//!
//! Exact and bounded. What it knows always bites; what it does not know counts as "not revoked"
//! only while its news is fresh and whole.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use durward_contract::{Grant, Loading, News, RevocationEntry, Sequence, UnixSeconds};
use durward_policy::{
    Cause, DigestKey, GrantStanding, GrantedKey, KeyDigest, RevocationDigest, Standing, VerifiedToken,
};
use parking_lot::Mutex;

use crate::clock::Monotonic;
use crate::grant_table::{Found, GrantTable, Grants, MAX_GRANTS};
use crate::mirror_table::{MirrorTable, TableEntry};

/// What the mirror's silence is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Trust {
    /// Nothing has been loaded yet.
    NotLoaded,
    /// It is whole as of its last news.
    Whole,
    /// News is missing, or the log went backwards.
    Broken,
    /// It is full: not all entries are in it.
    Full,
}

impl Trust {
    const ALL: [Self; 4] = [Self::NotLoaded, Self::Whole, Self::Broken, Self::Full];
}

#[derive(Debug, Default)]
struct Log {
    applied: Sequence,
    /// The highest head heard of, and when it was read, in nanoseconds on the clock.
    attested: Sequence,
    attested_at: u64,
    loaded: bool,
    /// Whether anything that was loaded was attested. Until then a snapshot may be of any age.
    heard: bool,
    backwards: bool,
    full: bool,
}

pub(crate) struct Mirror {
    table: MirrorTable,
    grants: GrantTable,
    key: DigestKey,
    max_entries: usize,
    max_staleness: Duration,
    clock: Monotonic,
    /// Nanoseconds on the clock.
    last_news: AtomicU64,
    trust: AtomicU8,
    log: Mutex<Log>,
}

impl Mirror {
    pub(crate) fn new(key: DigestKey, max_entries: usize, max_staleness: Duration, clock: Monotonic) -> Self {
        Self {
            table: MirrorTable::default(),
            grants: GrantTable::default(),
            key,
            max_entries,
            max_staleness,
            clock,
            last_news: AtomicU64::new(0),
            trust: AtomicU8::new(Trust::NotLoaded as u8),
            log: Mutex::default(),
        }
    }

    /// How a token stands.
    #[cfg(test)]
    pub(crate) fn standing(&self, token: &VerifiedToken) -> Standing {
        self.standing_at(token, Instant::now())
    }

    /// How a token stands at `now`, which was read just now. Freshness is read first, so that news
    /// which arrives in between makes the answer stricter and never laxer.
    pub(crate) fn standing_at(&self, token: &VerifiedToken, now: Instant) -> Standing {
        let silence = self.silence(now);
        match self.barred(token) {
            Some(cause) => Standing::Revoked(cause),
            None => silence,
        }
    }

    /// What a token is barred by, if anything is known against it.
    pub(crate) fn barred(&self, token: &VerifiedToken) -> Option<Cause> {
        let (epoch, issued_at) = (token.epoch(), token.issued_at());
        token
            .digests()
            .iter()
            .find(|(cause, digest)| self.table.bars(*cause, *digest, epoch, Some(issued_at)))
            .map(|(cause, _)| cause)
    }

    /// The API key of a digest. Freshness is read first here too.
    pub(crate) fn granted_key(&self, digest: &KeyDigest) -> GrantStanding {
        let silence = self.silence(Instant::now());
        match (self.grants.get(digest), silence) {
            (Found::Grant(key), _) => GrantStanding::Known(key),
            (Found::NoRoom, _) => GrantStanding::Unknown { stale_for: None },
            (Found::Nothing, Standing::Unknown { stale_for }) => GrantStanding::Unknown { stale_for },
            (Found::Nothing, Standing::Live | Standing::Revoked(_)) => GrantStanding::Absent,
        }
    }

    /// How an API key that was granted stands.
    pub(crate) fn key_standing(&self, key: &GrantedKey) -> Standing {
        let silence = self.silence(Instant::now());
        match self.key_ended(key) {
            Some(cause) => Standing::Revoked(cause),
            None => silence,
        }
    }

    /// Whether the grant of an API key has ended: by an entry, or with a snapshot that it is not in.
    pub(crate) fn key_ended(&self, key: &GrantedKey) -> Option<Cause> {
        (self.bars_key(&self.table, key) || !self.grants.holds(key)).then_some(Cause::ApiKey)
    }

    fn bars_key(&self, table: &MirrorTable, key: &GrantedKey) -> bool {
        table.bars(Cause::ApiKey, key.revocation(), None, None)
    }

    /// What it means that nothing is known against a token or a key.
    pub(crate) fn silence(&self, now: Instant) -> Standing {
        match self.trust() {
            Trust::NotLoaded | Trust::Full => Standing::Unknown { stale_for: None },
            Trust::Broken => Standing::Unknown {
                stale_for: Some(self.staleness_at(now)),
            },
            Trust::Whole => match self.staleness_at(now) {
                age if age > self.max_staleness => Standing::Unknown { stale_for: Some(age) },
                _ => Standing::Live,
            },
        }
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::ALL[usize::from(self.trust.load(Ordering::SeqCst))]
    }

    /// The age of the last news.
    pub(crate) fn staleness(&self) -> Duration {
        self.staleness_at(Instant::now())
    }

    fn staleness_at(&self, now: Instant) -> Duration {
        let last = Duration::from_nanos(self.last_news.load(Ordering::SeqCst));
        self.clock.at(now).saturating_sub(last)
    }

    /// Whether anything has been loaded.
    pub(crate) fn is_loaded(&self) -> bool {
        self.trust() != Trust::NotLoaded
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// How many API keys it knows.
    pub(crate) fn grants(&self) -> usize {
        self.grants.len()
    }

    pub(crate) fn applied(&self) -> Sequence {
        self.log.lock().applied
    }

    /// Begins to replace what is known.
    pub(crate) fn begin_load(&self) -> Replacement<'_> {
        let table = MirrorTable::default();
        // Most of what comes is what was there.
        table.reserve(self.len());
        Replacement {
            mirror: self,
            table,
            grants: Grants::default(),
            full: false,
        }
    }

    /// Adds entries that were committed up to `head`. Revocations first: a key whose end is known is
    /// not granted any more, in whatever order the two arrive.
    pub(crate) fn apply(&self, news: &[News], head: Sequence) {
        let mut log = self.log.lock();
        for entry in revocations(news) {
            let entry = self.table_entry(entry);
            log.full |= !self.table.insert(entry, self.max_entries);
            if entry.cause == Cause::ApiKey {
                self.grants.end(entry.digest);
            }
        }
        for key in grants(news).filter_map(|grant| self.key_of(grant)) {
            if !self.bars_key(&self.table, &key) {
                self.grants.insert(key);
            }
        }
        log.backwards |= head < log.applied;
        log.applied = log.applied.max(head);
        self.news(&log);
    }

    /// Hears that the log's head was `head` at most `age` ago. Only where nothing is missing is that
    /// news.
    pub(crate) fn attest(&self, head: Sequence, age: Duration) {
        let mut log = self.log.lock();
        let read_at = self.clock.now().saturating_sub(age);
        log.backwards |= head < log.applied;
        log.attested = log.attested.max(head);
        if head == log.attested {
            let read_at = u64::try_from(read_at.as_nanos()).unwrap_or(u64::MAX);
            log.attested_at = log.attested_at.max(read_at);
            log.heard |= log.loaded;
        }
        self.news(&log);
    }

    /// Forgets a little of what may be forgotten.
    pub(crate) fn sweep(&self, step: usize, now: UnixSeconds) {
        self.table.sweep(step, now);
        if step.is_multiple_of(MirrorTable::SWEEP_STEPS) {
            self.grants.sweep(now);
        }
    }

    /// Whether an entry that bars whatever it covers is among what is known.
    pub(crate) fn knows(&self, entry: &RevocationEntry) -> bool {
        let entry = self.table_entry(entry);
        self.table.bars(
            entry.cause,
            entry.digest,
            Some(u32::MAX),
            Some(UnixSeconds(i64::MAX)),
        )
    }

    /// The key under which an entry is kept.
    pub(crate) fn table_entry(&self, entry: &RevocationEntry) -> TableEntry {
        TableEntry {
            cause: Cause::of(&entry.target),
            digest: RevocationDigest::of(self.key, &entry.issuer, &entry.target),
            bar: entry.bar,
            forget_at: entry.forget_at,
        }
    }

    fn key_of(&self, grant: &Grant) -> Option<GrantedKey> {
        GrantedKey::new(self.key, grant)
            .inspect_err(|error| tracing::error!(key = grant.key, %error, "an API key is not taken"))
            .ok()
    }

    fn news(&self, log: &Log) {
        let trust = match log {
            Log { loaded: false, .. } | Log { heard: false, .. } => Trust::NotLoaded,
            Log { full: true, .. } => Trust::Full,
            Log { backwards: true, .. } => Trust::Broken,
            log if log.attested > log.applied => Trust::Broken,
            _ => Trust::Whole,
        };
        if trust == Trust::Whole {
            self.last_news.store(log.attested_at, Ordering::SeqCst);
        }
        let before = self.trust.swap(trust as u8, Ordering::SeqCst);
        if before != trust as u8 {
            self.tell(trust, log);
        }
    }

    fn tell(&self, trust: Trust, log: &Log) {
        let (applied, attested, entries) = (log.applied.0, log.attested.0, self.len());
        match trust {
            Trust::Full => tracing::error!(
                entries,
                max_entries = self.max_entries,
                "the revocation mirror is full: who is not known to be revoked counts as unknown"
            ),
            Trust::Broken => {
                tracing::error!(applied, attested, "revocation news is missing or went backwards")
            }
            Trust::Whole => tracing::info!(applied, entries, "the revocation mirror is whole"),
            Trust::NotLoaded => {}
        }
    }
}

/// A table that is being filled, to become the mirror's.
pub(crate) struct Replacement<'m> {
    mirror: &'m Mirror,
    table: MirrorTable,
    grants: Grants,
    full: bool,
}

impl Loading for Replacement<'_> {
    fn add(&mut self, news: &[News]) {
        for entry in revocations(news) {
            let entry = self.mirror.table_entry(entry);
            self.full |= !self.table.insert(entry, self.mirror.max_entries);
        }
        for key in grants(news).filter_map(|grant| self.mirror.key_of(grant)) {
            self.grants.insert(key, MAX_GRANTS);
        }
    }

    fn finish(mut self: Box<Self>, head: Sequence) {
        let mut log = self.mirror.log.lock();
        // The pieces came in any order: the end of a key may have been in an earlier one.
        let (mirror, table) = (self.mirror, &self.table);
        self.grants.retain(|key| !mirror.bars_key(table, key));
        self.mirror.table.replace(self.table);
        self.mirror.grants.replace(self.grants);
        log.full = self.full;
        log.applied = head;
        log.attested = head;
        log.loaded = true;
        log.backwards = false;
        self.mirror.news(&log);
    }
}

fn revocations(news: &[News]) -> impl Iterator<Item = &RevocationEntry> {
    news.iter().filter_map(|news| match news {
        News::Revocation(entry) => Some(entry),
        News::Grant(_) => None,
    })
}

fn grants(news: &[News]) -> impl Iterator<Item = &Grant> {
    news.iter().filter_map(|news| match news {
        News::Revocation(_) => None,
        News::Grant(grant) => Some(grant),
    })
}

#[cfg(test)]
mod key_tests;

#[cfg(test)]
mod tests {
    use durward_contract::{Bar, Snapshot, Target};

    use super::*;
    use crate::clock::ManualClock;
    use crate::testing::{DIGEST_KEY, ISSUER, token};

    pub(super) const STALE: Duration = Duration::from_secs(5);

    pub(super) fn mirror(max_entries: usize) -> (Mirror, ManualClock) {
        let (clock, hand) = Monotonic::manual();
        (Mirror::new(DIGEST_KEY, max_entries, STALE, clock), hand)
    }

    fn ban(sequence: u64, user: &str) -> News {
        News::Revocation(RevocationEntry {
            sequence: Sequence(sequence),
            issuer: ISSUER.into(),
            target: Target::User(user.into()),
            bar: Bar::EpochBelow(u32::MAX),
            forget_at: None,
        })
    }

    pub(super) fn snapshot(head: u64, news: Vec<News>) -> Snapshot {
        Snapshot {
            head: Sequence(head),
            news,
        }
    }

    impl Mirror {
        pub(super) fn load(&self, snapshot: Snapshot) {
            let mut loading = Box::new(self.begin_load());
            loading.add(&snapshot.news);
            loading.finish(snapshot.head);
            self.attest(snapshot.head, Duration::ZERO);
        }
    }

    const REVOKED: Standing = Standing::Revoked(Cause::User);

    #[test]
    fn it_knows_nothing_until_it_has_loaded() {
        let (mirror, _hand) = mirror(100);
        assert_eq!(
            mirror.standing(&token("alice")),
            Standing::Unknown { stale_for: None }
        );
        mirror.attest(Sequence(0), Duration::ZERO);
        assert_eq!(
            mirror.standing(&token("alice")),
            Standing::Unknown { stale_for: None }
        );
        mirror.load(snapshot(0, vec![]));
        assert_eq!(mirror.standing(&token("alice")), Standing::Live);
    }

    #[test]
    fn a_ban_bites_at_once_and_only_its_user() {
        let (mirror, _hand) = mirror(100);
        mirror.load(snapshot(0, vec![]));
        mirror.apply(&[ban(1, "mallory")], Sequence(1));
        assert_eq!(mirror.standing(&token("mallory")), REVOKED);
        assert_eq!(mirror.standing(&token("alice")), Standing::Live);
        let mut elsewhere = ban(2, "alice");
        if let News::Revocation(entry) = &mut elsewhere {
            entry.issuer = "https://other.example".into();
        }
        mirror.apply(&[elsewhere], Sequence(2));
        assert_eq!(mirror.standing(&token("alice")), Standing::Live);
    }

    #[test]
    fn old_news_is_unknown_and_what_is_known_keeps_biting() {
        let (mirror, hand) = mirror(100);
        mirror.load(snapshot(1, vec![ban(1, "mallory")]));
        hand.advance(STALE);
        assert_eq!(mirror.standing(&token("alice")), Standing::Live);
        hand.advance(Duration::from_millis(1));
        let stale_for = Some(STALE + Duration::from_millis(1));
        assert_eq!(mirror.standing(&token("alice")), Standing::Unknown { stale_for });
        assert_eq!(mirror.standing(&token("mallory")), REVOKED);
        mirror.attest(Sequence(1), Duration::ZERO);
        assert_eq!(mirror.standing(&token("alice")), Standing::Live);
    }

    #[test]
    fn a_head_beyond_what_was_applied_is_unknown_until_it_is_applied() {
        let (mirror, hand) = mirror(100);
        mirror.load(snapshot(1, vec![]));
        hand.advance(Duration::from_secs(1));
        mirror.attest(Sequence(3), Duration::ZERO);
        let stale_for = Some(Duration::from_secs(1));
        assert_eq!(mirror.standing(&token("alice")), Standing::Unknown { stale_for });
        mirror.apply(&[ban(2, "x")], Sequence(2));
        assert_eq!(mirror.standing(&token("alice")), Standing::Unknown { stale_for });
        mirror.apply(&[ban(3, "y")], Sequence(3));
        assert_eq!(mirror.standing(&token("alice")), Standing::Live);
    }

    #[test]
    fn a_snapshot_that_nobody_attested_is_of_any_age() {
        let (mirror, _hand) = mirror(100);
        mirror.attest(Sequence(1), Duration::ZERO);
        let mut loading = Box::new(mirror.begin_load());
        loading.add(&[ban(1, "mallory")]);
        loading.finish(Sequence(1));
        assert!(!mirror.is_loaded());
        assert_eq!(
            mirror.standing(&token("alice")),
            Standing::Unknown { stale_for: None }
        );
        assert_eq!(mirror.standing(&token("mallory")), REVOKED);
        mirror.attest(Sequence(1), Duration::ZERO);
        assert_eq!(mirror.standing(&token("alice")), Standing::Live);
    }

    #[test]
    fn news_is_as_old_as_the_reading_that_it_rests_on() {
        let (mirror, hand) = mirror(100);
        mirror.load(snapshot(1, vec![]));
        hand.advance(STALE * 2);
        mirror.apply(&[ban(2, "x")], Sequence(2));
        assert!(matches!(
            mirror.standing(&token("alice")),
            Standing::Unknown { .. }
        ));
        mirror.attest(Sequence(3), STALE);
        mirror.apply(&[ban(3, "y")], Sequence(3));
        assert_eq!(
            mirror.standing(&token("alice")),
            Standing::Live,
            "as old as allowed"
        );
        mirror.attest(Sequence(3), STALE * 2);
        assert_eq!(mirror.staleness(), STALE, "an older reading says nothing new");
        hand.advance(Duration::from_millis(1));
        assert!(matches!(
            mirror.standing(&token("alice")),
            Standing::Unknown { .. }
        ));
    }

    #[test]
    fn a_log_that_went_backwards_is_unknown_until_it_is_loaded_again() {
        let (mirror, _hand) = mirror(100);
        mirror.load(snapshot(5, vec![ban(5, "mallory")]));
        mirror.attest(Sequence(4), Duration::ZERO);
        mirror.apply(&[ban(6, "x")], Sequence(6));
        mirror.attest(Sequence(6), Duration::ZERO);
        assert!(matches!(
            mirror.standing(&token("alice")),
            Standing::Unknown { stale_for: Some(_) }
        ));
        assert_eq!(mirror.standing(&token("mallory")), REVOKED);
        mirror.load(snapshot(4, vec![]));
        assert_eq!(mirror.standing(&token("alice")), Standing::Live);
    }

    #[test]
    fn full_is_unknown_for_whoever_is_not_in_it() {
        let (mirror, _hand) = mirror(2);
        mirror.load(snapshot(2, vec![ban(1, "a"), ban(2, "b")]));
        assert_eq!(mirror.standing(&token("alice")), Standing::Live);
        mirror.apply(&[ban(3, "c")], Sequence(3));
        assert_eq!(
            mirror.standing(&token("alice")),
            Standing::Unknown { stale_for: None }
        );
        assert_eq!(mirror.standing(&token("a")), REVOKED);
        mirror.load(snapshot(3, vec![ban(3, "c")]));
        assert_eq!(mirror.standing(&token("alice")), Standing::Live);
        assert_eq!(mirror.standing(&token("c")), REVOKED);
    }

    #[test]
    fn a_million_entries_load_in_good_time() {
        let (mirror, _hand) = mirror(2_000_000);
        let entries: Vec<_> = (0..1_000_000).map(|id| ban(id, &format!("user-{id}"))).collect();
        let start = Instant::now();
        mirror.load(snapshot(1_000_000, entries));
        println!("1,000,000 entries loaded in {:?}", start.elapsed());
        assert_eq!(mirror.len(), 1_000_000);
        assert_eq!(mirror.standing(&token("user-77")), REVOKED);
    }
}
