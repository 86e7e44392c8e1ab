//! The API keys that were granted, as the news tells of them: found by the digest of the whole key.
//!
//! Looking a secret up by its SHA-256 gives nothing away by how long it takes: who does not know the
//! secret cannot choose digests that come near one that is here.

use std::collections::HashMap;
use std::sync::Arc;

use durward_contract::UnixSeconds;
use durward_policy::{GrantedKey, KeyDigest, RevocationDigest};
use parking_lot::RwLock;

/// Most grants. A table that is full says of whoever is not in it that it does not know.
pub(crate) const MAX_GRANTS: usize = 100_000;

/// Grants that a gateway accepts, replaced as a whole by each snapshot.
#[derive(Default)]
pub(crate) struct GrantTable(RwLock<Grants>);

/// Some grants.
#[derive(Default)]
pub(crate) struct Grants {
    by_digest: HashMap<KeyDigest, Arc<GrantedKey>>,
    by_end: HashMap<RevocationDigest, KeyDigest>,
    full: bool,
}

impl GrantTable {
    /// The grant of a key, or whether its absence means anything.
    pub(crate) fn get(&self, digest: &KeyDigest) -> Found {
        let grants = self.0.read();
        match grants.by_digest.get(digest) {
            Some(key) => Found::Grant(Arc::clone(key)),
            None if grants.full => Found::NoRoom,
            None => Found::Nothing,
        }
    }

    /// Whether this very grant is still there, not another one of the same certificate.
    pub(crate) fn holds(&self, key: &GrantedKey) -> bool {
        let grants = self.0.read();
        let held = grants.by_digest.get(&key.digest());
        held.is_some_and(|held| held.revocation() == key.revocation())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.read().by_digest.len()
    }

    /// Adds a grant.
    pub(crate) fn insert(&self, key: GrantedKey) {
        self.0.write().insert(key, MAX_GRANTS);
    }

    /// Takes a grant back.
    pub(crate) fn end(&self, end: RevocationDigest) {
        self.0.write().end(end);
    }

    /// Takes over what was loaded, and forgets the rest.
    pub(crate) fn replace(&self, grants: Grants) {
        let before = std::mem::replace(&mut *self.0.write(), grants);
        // Not under the lock: it may be large.
        drop(before);
    }

    /// Forgets what has expired at `now`.
    pub(crate) fn sweep(&self, now: UnixSeconds) {
        if self.0.read().by_digest.values().any(|key| key.is_expired(now)) {
            self.0.write().retain(|key| !key.is_expired(now));
        }
    }
}

/// What was found of a key.
pub(crate) enum Found {
    Grant(Arc<GrantedKey>),
    /// There is no grant of it.
    Nothing,
    /// There is none here, and not all have found room.
    NoRoom,
}

impl Grants {
    /// Adds a grant. No id is given twice: the first one stays. The name of a certificate is, once its
    /// grant was taken back: the grant that is later in the log stays, in whatever order they arrive.
    pub(crate) fn insert(&mut self, key: GrantedKey, limit: usize) {
        let (digest, end) = (key.digest(), key.revocation());
        if self.by_end.contains_key(&end) {
            return;
        }
        if let Some(held) = self.by_digest.get(&digest) {
            if held.sequence() >= key.sequence() {
                return;
            }
            // Its end may still be on the way, and is not the end of this one.
            self.by_end.remove(&held.revocation());
        } else if self.by_digest.len() >= limit {
            if !std::mem::replace(&mut self.full, true) {
                tracing::error!(
                    limit,
                    "there is no room for all API keys: unknown ones count as unknown"
                );
            }
            return;
        }
        self.by_end.insert(end, digest);
        self.by_digest.insert(digest, Arc::new(key));
    }

    /// Keeps the grants that `keep` says.
    pub(crate) fn retain(&mut self, keep: impl Fn(&GrantedKey) -> bool) {
        self.by_digest.retain(|_, key| keep(key));
        let left = &self.by_digest;
        self.by_end.retain(|_, digest| left.contains_key(digest));
    }

    fn end(&mut self, end: RevocationDigest) {
        if let Some(digest) = self.by_end.remove(&end) {
            self.by_digest.remove(&digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{granted_key, granted_name};

    fn holds(grants: &Grants, id: &str) -> bool {
        grants.by_digest.contains_key(&granted_key(id, None).digest())
    }

    #[test]
    fn an_id_is_not_given_twice_and_ends_once() {
        let mut grants = Grants::default();
        grants.insert(granted_key("a", None), 10);
        grants.insert(granted_key("a", Some(5)), 10);
        grants.insert(granted_key("b", None), 10);
        assert_eq!((grants.by_digest.len(), grants.by_end.len()), (2, 2));
        let kept = &grants.by_digest[&granted_key("a", None).digest()];
        assert_eq!(kept.expires_at(), None, "the first one stays");
        grants.end(granted_key("a", None).revocation());
        grants.end(granted_key("a", None).revocation());
        assert!(!holds(&grants, "a") && holds(&grants, "b"));
        assert_eq!(grants.by_end.len(), 1);
    }

    #[test]
    fn a_certificate_that_is_granted_anew_is_of_the_later_grant_in_any_order() {
        use Arrival::{End, Grant};
        /// What arrives of two grants of one name: the grant, or the entry that takes it back.
        #[derive(Clone, Copy)]
        enum Arrival {
            Grant(u64),
            End(u64),
        }
        // The first is number 1 and taken back by 2, the second is number 3.
        for order in [
            [Grant(1), End(1), Grant(3)],
            [Grant(1), Grant(3), End(1)],
            [End(1), Grant(3), Grant(1)],
            [Grant(3), End(1), Grant(1)],
            [Grant(3), Grant(1), End(1)],
        ] {
            let table = GrantTable::default();
            for arrival in order.iter().chain(&order) {
                match *arrival {
                    Grant(sequence) => table.insert(granted_name(sequence)),
                    End(sequence) => table.end(granted_name(sequence).revocation()),
                }
            }
            let (first, second) = (granted_name(1), granted_name(3));
            assert!(table.holds(&second) && !table.holds(&first));
            let Found::Grant(held) = table.get(&first.digest()) else {
                panic!("the second grant was lost");
            };
            assert_eq!(held.id(), second.id());
            assert_eq!(table.0.read().by_end.len(), 1);
            table.end(second.revocation());
            assert_eq!((table.len(), table.0.read().by_end.len()), (0, 0));
        }
    }

    #[test]
    fn a_full_table_does_not_say_that_a_key_is_nobodys() {
        let table = GrantTable::default();
        let mut grants = Grants::default();
        for id in ["a", "b", "c"] {
            grants.insert(granted_key(id, None), 2);
        }
        table.replace(grants);
        assert_eq!(table.len(), 2);
        let digest = |id| granted_key(id, None).digest();
        assert!(matches!(table.get(&digest("b")), Found::Grant(_)));
        assert!(matches!(table.get(&digest("c")), Found::NoRoom));
        table.replace(Grants::default());
        assert!(matches!(table.get(&digest("c")), Found::Nothing));
    }

    #[test]
    fn the_expired_are_forgotten() {
        let table = GrantTable::default();
        table.insert(granted_key("a", Some(10)));
        table.insert(granted_key("b", None));
        table.sweep(UnixSeconds(9));
        assert_eq!(table.len(), 2);
        table.sweep(UnixSeconds(10));
        assert_eq!(table.len(), 1);
        assert!(table.holds(&granted_key("b", None)));
        assert_eq!(table.0.read().by_end.len(), 1);
    }
}
