//! The limit on credentials of one address that fail.
//!
//! A failure takes one from the quota of the client's address. While that is spent, no token is proved
//! for this address that is not remembered already: neither a signature is verified nor a store asked.
//! Whoever holds a token that was proved before, or an API key that is granted, is let through, however
//! many others fail behind the same address.

use std::sync::Arc;
use std::time::Instant;

use durward_policy::{Policy, Proofs, Quota, Reason, Rejection, VerifiedToken};

use crate::proof_cache::ProofCache;
use crate::quota_table::{ClientKey, QuotaTable};

/// What is counted against whom.
#[derive(Clone, Debug)]
pub(crate) struct FailureLimit {
    quota: Quota,
    table: Arc<QuotaTable>,
}

/// The limit for one request.
#[derive(Clone, Copy)]
pub(crate) struct FailuresOf<'l> {
    limit: &'l FailureLimit,
    client: ClientKey,
    now: Instant,
}

/// The proofs of one request: remembered ones, and others as long as the limit allows.
pub(crate) struct LimitedProofs<'l> {
    pub(crate) proofs: &'l ProofCache,
    pub(crate) failures: Option<FailuresOf<'l>>,
}

impl FailureLimit {
    /// A limit whose counts are kept in `table`.
    pub(crate) fn new(quota: Quota, table: Arc<QuotaTable>) -> Self {
        Self { quota, table }
    }

    /// The limit for a request of `client` at `now`.
    pub(crate) fn of(&self, client: ClientKey, now: Instant) -> FailuresOf<'_> {
        FailuresOf {
            limit: self,
            client,
            now,
        }
    }

    /// How often a client took over what another owed.
    pub(crate) fn taken_over(&self) -> u64 {
        self.table.taken_over()
    }
}

impl FailuresOf<'_> {
    fn check(&self) -> Result<(), Rejection> {
        let FailureLimit { quota, table } = self.limit;
        table.check(self.client, *quota, self.now).map_err(|spent| {
            let cause = "no token is proved: too many credentials of this address have failed";
            Rejection::spent(Reason::TooManyFailures, cause, spent)
        })
    }

    /// Counts a refusal, where the credential was at fault. What comes back is what the client is to be
    /// told.
    pub(crate) fn count(&self, rejection: Rejection) -> Rejection {
        if !rejection.reason.is_failed_credential() {
            return rejection;
        }
        let FailureLimit { quota, table } = self.limit;
        match table.take(self.client, *quota, self.now) {
            Ok(_) => rejection,
            Err(spent) => {
                let cause = format!("one failure too many: {rejection}");
                Rejection::spent(Reason::TooManyFailures, cause, spent)
            }
        }
    }
}

impl Proofs for LimitedProofs<'_> {
    fn prove(&self, policy: &Policy, token: &str) -> Result<Arc<VerifiedToken>, Rejection> {
        if let Some(failures) = &self.failures {
            failures.check()?;
        }
        self.proofs.prove(policy, token)
    }

    fn remembered(&self, token: &[u8]) -> Option<Arc<VerifiedToken>> {
        self.proofs.remembered(token)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use durward_policy::Rate;

    use super::*;
    use crate::issuer_keys::IssuerKeys;
    use crate::testing::{own_policy, sign, signing_key};

    #[test]
    fn a_spent_limit_stops_proofs_and_not_what_is_remembered() {
        let policy = own_policy();
        let (key, forger) = (signing_key("k1"), signing_key("k1"));
        let keys = Arc::new(IssuerKeys::new(&policy, Path::new(".")).unwrap());
        keys.set_own(&key.jwks());
        let cache = ProofCache::new(keys, 1 << 20);
        let limit = FailureLimit::new(
            Quota::new(Rate::new(1, Duration::from_secs(1)), 2),
            Arc::new(QuotaTable::new()),
        );
        let now = Instant::now();
        let proofs = |address: [u8; 4], now| LimitedProofs {
            proofs: &cache,
            failures: Some(limit.of(ClientKey::of_address(address.into()), now)),
        };
        let (here, there) = ([192, 0, 2, 1], [192, 0, 2, 2]);
        let known = sign(&key, "alice", &[]);
        proofs(here, now).prove(&policy, &known).unwrap();

        let fail = |address, now| {
            let proofs = proofs(address, now);
            let refused = proofs.prove(&policy, &sign(&forger, "mallory", &[])).unwrap_err();
            proofs.failures.unwrap().count(refused).reason
        };
        assert_eq!(fail(here, now), Reason::BadSignature);
        assert_eq!(fail(here, now), Reason::BadSignature);
        let misses = cache.misses();
        assert_eq!(fail(here, now), Reason::TooManyFailures);
        assert_eq!(cache.misses(), misses, "nothing was proved");

        assert!(proofs(here, now).remembered(known.as_bytes()).is_some());
        let fresh = sign(&key, "bob", &[]);
        let refused = proofs(here, now).prove(&policy, &fresh).unwrap_err();
        assert_eq!(refused.reason, Reason::TooManyFailures);
        assert_eq!(refused.retry_after, Some(1));
        proofs(there, now).prove(&policy, &fresh).unwrap();
        assert_eq!(fail(there, now), Reason::BadSignature);
        proofs(here, now + Duration::from_secs(1))
            .prove(&policy, &sign(&key, "carol", &[]))
            .unwrap();
    }

    #[test]
    fn only_credentials_at_fault_are_counted() {
        let limit = FailureLimit::new(
            Quota::new(Rate::new(1, Duration::from_secs(1)), 1),
            Arc::new(QuotaTable::new()),
        );
        let failures = limit.of(ClientKey::of_address([192, 0, 2, 1].into()), Instant::now());
        let count = |reason| failures.count(Rejection::new(reason, "cause"));
        for reason in [
            Reason::TokenExpired,
            Reason::Revoked,
            Reason::NoRoute,
            Reason::RuleRefused,
        ] {
            assert_eq!(count(reason).reason, reason);
        }
        assert_eq!(count(Reason::ApiKeyUnknown).reason, Reason::ApiKeyUnknown);
        let told = count(Reason::ApiKeyUnknown);
        assert_eq!(told.reason, Reason::TooManyFailures);
        assert_eq!(told.cause, "one failure too many: api_key_unknown: cause");
    }
}
