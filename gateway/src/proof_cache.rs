//! Proofs that are remembered. Proofs, never decisions: times, revocation and rules are judged on
//! every request.
//!
//! The key is a digest of the entire token. An entry counts only while the key set that proved it is
//! its issuer's current one, so that any change of keys undoes all that rested on the old ones. What
//! fails is not remembered.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use aws_lc_rs::digest::{SHA256, digest};
use durward_policy::{Policy, Proofs, Rejection, VerifiedToken, prove};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::issuer_keys::IssuerKeys;
use crate::sharded::Counters;

/// Longest token that is hashed and remembered, in bytes.
const MAX_REMEMBERED_TOKEN: usize = 16 << 10;
/// What an entry takes beside its value: key, table and its share of the ghosts.
const ENTRY_OVERHEAD: usize = 128;
/// About what a proof takes, to size the table.
const TYPICAL_PROOF: u64 = 2048;

const HITS: usize = 0;
const MISSES: usize = 1;

type Key = [u8; 32];

pub(crate) struct ProofCache {
    keys: Arc<IssuerKeys>,
    cache: Cache<Key, Arc<VerifiedToken>, ByMemory>,
    counts: Arc<Counters>,
}

#[derive(Clone)]
struct ByMemory;

impl Weighter<Key, Arc<VerifiedToken>> for ByMemory {
    fn weight(&self, _key: &Key, token: &Arc<VerifiedToken>) -> u64 {
        (token.memory_bytes() + ENTRY_OVERHEAD) as u64
    }
}

impl ProofCache {
    /// A cache of at most `bytes`, for the one policy whose issuers `keys` are of.
    pub(crate) fn new(keys: Arc<IssuerKeys>, bytes: u64) -> Self {
        Self::counted(keys, bytes, Arc::new(Counters::new(2)))
    }

    /// An empty one for another policy: no proof is carried over, whatever its issuers were. The
    /// counts go on.
    pub(crate) fn successor(&self, keys: Arc<IssuerKeys>, bytes: u64) -> Self {
        Self::counted(keys, bytes, Arc::clone(&self.counts))
    }

    fn counted(keys: Arc<IssuerKeys>, bytes: u64, counts: Arc<Counters>) -> Self {
        let items = usize::try_from(bytes / TYPICAL_PROOF)
            .unwrap_or(usize::MAX)
            .max(16);
        Self {
            keys,
            cache: Cache::with_weighter(items, bytes, ByMemory),
            counts,
        }
    }

    pub(crate) fn keys(&self) -> &Arc<IssuerKeys> {
        &self.keys
    }

    pub(crate) fn hits(&self) -> u64 {
        self.counts.get(HITS)
    }

    pub(crate) fn misses(&self) -> u64 {
        self.counts.get(MISSES)
    }

    /// Proofs that are remembered, and about the bytes that they take.
    pub(crate) fn size(&self) -> (usize, u64) {
        (self.cache.len(), self.cache.weight())
    }

    /// Forgets all: the policy is no longer the one that is asked.
    pub(crate) fn forget_all(&self) {
        self.cache.clear();
    }

    fn find(&self, key: &Key) -> Option<Arc<VerifiedToken>> {
        let token = self.cache.get(key)?;
        let is_current = self
            .keys
            .is_current(token.issuer(), token.key_generation(), Ordering::Acquire);
        is_current.then(|| {
            self.counts.add(HITS, 1);
            token
        })
    }

    fn prove_afresh(&self, policy: &Policy, token: &str) -> Result<Arc<VerifiedToken>, Rejection> {
        self.counts.add(MISSES, 1);
        let mut proof = prove(policy, token, &*self.keys);
        // The auth service in this process may have signed with a key that it has just published.
        if matches!(&proof, Err(error) if error.unknown_key.is_some()) && self.keys.catch_up_with_own() {
            proof = prove(policy, token, &*self.keys);
        }
        proof.map(Arc::new).map_err(|error| {
            if let Some(issuer) = error.unknown_key {
                self.keys.ask_for_refresh(issuer);
            }
            error.rejection
        })
    }
}

impl Proofs for ProofCache {
    fn prove(&self, policy: &Policy, token: &str) -> Result<Arc<VerifiedToken>, Rejection> {
        let Some(key) = key_of(token.as_bytes()) else {
            return self.prove_afresh(policy, token);
        };
        if let Some(token) = self.find(&key) {
            return Ok(token);
        }
        let proof = self.prove_afresh(policy, token)?;
        self.cache.insert(key, Arc::clone(&proof));
        Ok(proof)
    }

    fn remembered(&self, token: &[u8]) -> Option<Arc<VerifiedToken>> {
        self.find(&key_of(token)?)
    }
}

/// The key of a token; nothing where it is too long to be remembered.
fn key_of(token: &[u8]) -> Option<Key> {
    if token.len() > MAX_REMEMBERED_TOKEN {
        return None;
    }
    let mut key = Key::default();
    key.copy_from_slice(digest(&SHA256, token).as_ref());
    Some(key)
}

#[cfg(test)]
mod tests {
    use durward_policy::Reason;

    use super::*;
    use crate::testing::{own_policy, sign, signing_key};

    #[test]
    fn a_key_that_was_published_a_moment_ago_proves_the_first_token_signed_with_it() {
        let policy = own_policy();
        let keys = Arc::new(IssuerKeys::new(&policy, std::path::Path::new(".")).unwrap());
        let (first, second) = (signing_key("k1"), signing_key("k2"));
        let (publish, published) = tokio::sync::watch::channel(Arc::new(first.jwks()));
        keys.follow_own(published);
        let cache = ProofCache::new(Arc::clone(&keys), 1 << 20);
        let (old, new) = (sign(&first, "alice", &[]), sign(&second, "alice", &[]));
        cache.prove(&policy, &old).unwrap();
        let refused = cache.prove(&policy, &new).unwrap_err();
        assert_eq!(refused.reason, Reason::UnknownKey);
        publish.send_replace(Arc::new(second.jwks()));
        cache.prove(&policy, &new).unwrap();
        assert_eq!(cache.prove(&policy, &old).unwrap_err().reason, Reason::UnknownKey);
    }

    #[test]
    fn a_proof_is_made_once_and_a_change_of_keys_undoes_it() {
        let policy = own_policy();
        let (first, second) = (signing_key("k1"), signing_key("k2"));
        let keys = Arc::new(IssuerKeys::new(&policy, std::path::Path::new(".")).unwrap());
        let cache = ProofCache::new(Arc::clone(&keys), 1 << 20);
        let token = sign(&first, "alice", &[]);

        assert_eq!(
            cache.prove(&policy, &token).unwrap_err().reason,
            Reason::KeysUnavailable
        );
        keys.set_own(&first.jwks());
        assert!(cache.remembered(token.as_bytes()).is_none());
        let proof = cache.prove(&policy, &token).unwrap();
        assert!(Arc::ptr_eq(&proof, &cache.prove(&policy, &token).unwrap()));
        assert_eq!((cache.hits(), cache.misses()), (1, 2));
        assert!(Arc::ptr_eq(&proof, &cache.remembered(token.as_bytes()).unwrap()));
        assert!(cache.remembered(&token.as_bytes()[1..]).is_none());

        keys.set_own(&second.jwks());
        assert!(cache.remembered(token.as_bytes()).is_none());
        assert_eq!(
            cache.prove(&policy, &token).unwrap_err().reason,
            Reason::UnknownKey,
            "replaced, not merged"
        );
        keys.set_own(&first.jwks());
        assert!(
            !Arc::ptr_eq(&proof, &cache.prove(&policy, &token).unwrap()),
            "proved again under the new set"
        );
    }

    #[test]
    fn what_fails_is_not_remembered_and_memory_is_bounded() {
        let policy = own_policy();
        let key = signing_key("k1");
        let keys = Arc::new(IssuerKeys::new(&policy, std::path::Path::new(".")).unwrap());
        keys.set_own(&key.jwks());
        let cache = ProofCache::new(keys, 64 << 10);
        for bad in ["", "a.b.c", &"x".repeat(MAX_REMEMBERED_TOKEN + 1)] {
            assert!(cache.prove(&policy, bad).is_err());
        }
        assert_eq!(cache.size().0, 0);
        for user in 0..200 {
            cache
                .prove(&policy, &sign(&key, &format!("user-{user}"), &[]))
                .unwrap();
        }
        let (entries, bytes) = cache.size();
        assert!(
            entries > 0 && entries < 200 && bytes <= 64 << 10,
            "{entries} {bytes}"
        );
    }
}
