//! Rate limits, counted.
//!
//! What a route counts by address is counted before the credential is looked at, everything else once
//! the request is permitted and before it is forwarded. A request that one limit refuses has counted for
//! those before it. A limit that gateways share is asked for in a store; where that does not answer, the
//! gateway counts for itself or refuses, and never lets everything pass.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use durward_policy::{
    LimitBy, MAX_RATE_LIMITS_OF_ROUTE, Permit, Policy, Principal, Quota, RateLimit, RateLimitId, Reason,
    Rejection, Route, SharedLimit, Spent, Taken, WhenStoreFails, whole_seconds,
};
use parking_lot::Mutex;

use crate::failure_limit::FailureLimit;
use crate::quota_table::{ClientKey, QuotaTable};

mod config;
mod fields;
mod store;

pub(crate) use config::compile_rate_limit_store;
pub(crate) use fields::{RateLimitFields, Said};
pub use store::RateLimitStore;
pub(crate) use store::SharedQuotas;

/// What has been counted, for as long as the process runs: a reload forgets nothing.
pub(crate) struct Tallies {
    failures: Arc<QuotaTable>,
    /// By the name of the definition; no more than the current policy has.
    limits: Mutex<HashMap<String, Arc<LimitCounts>>>,
    hashers: Hashers,
    /// Where shared limits are counted.
    store: Option<Arc<SharedQuotas>>,
}

/// Two of them make the 128 bits of whoever is no address.
type Hashers = Arc<[RandomState; 2]>;

impl Tallies {
    /// Nothing yet; shared limits will be counted in `store`.
    pub(crate) fn new(store: Option<&RateLimitStore>) -> Self {
        Self {
            failures: Arc::new(QuotaTable::new()),
            limits: Mutex::default(),
            hashers: Arc::new([RandomState::new(), RandomState::new()]),
            store: store.map(|store| Arc::new(SharedQuotas::new(store))),
        }
    }

    /// The limit on failures, where there is one.
    pub(crate) fn failure_limit(&self, quota: Option<Quota>) -> Option<FailureLimit> {
        quota.map(|quota| FailureLimit::new(quota, Arc::clone(&self.failures)))
    }

    /// The store of shared limits.
    pub(crate) fn store(&self) -> Option<&Arc<SharedQuotas>> {
        self.store.as_ref()
    }

    fn of(&self, limits: &[RateLimit]) -> Vec<Arc<LimitCounts>> {
        let mut known = self.limits.lock();
        known.retain(|name, _| limits.iter().any(|limit| limit.name == *name));
        let counts = limits.iter().map(|limit| {
            let counts = known.entry(limit.name.clone());
            Arc::clone(counts.or_insert_with(|| Arc::new(LimitCounts::new(&limit.name))))
        });
        counts.collect()
    }
}

/// The limits of a policy, and what they have counted.
pub(crate) struct RateLimits {
    /// By [`RateLimitId`].
    limits: Vec<Limit>,
    fields: RateLimitFields,
    hashers: Hashers,
    shared: Option<Arc<SharedQuotas>>,
}

struct Limit {
    by: LimitBy,
    quota: Quota,
    shared: Option<SharedLimit>,
    counts: Arc<LimitCounts>,
}

/// What belongs to a definition's name.
#[derive(Debug)]
pub(crate) struct LimitCounts {
    name: String,
    table: QuotaTable,
    refused: AtomicU64,
}

impl LimitCounts {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            table: QuotaTable::new(),
            refused: AtomicU64::new(0),
        }
    }

    /// The definition's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Requests that were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How often a client took over what another owed.
    pub(crate) fn taken_over(&self) -> u64 {
        self.table.taken_over()
    }
}

/// How a request stands with one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    limit: RateLimitId,
    remaining: u32,
    whole_in: Duration,
}

/// How it stands with all that have counted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standings([Option<Standing>; MAX_RATE_LIMITS_OF_ROUTE]);

impl Standings {
    fn push(&mut self, standing: Standing) {
        if let Some(free) = self.0.iter_mut().find(|place| place.is_none()) {
            *free = Some(standing);
        }
    }

    fn iter(&self) -> impl Iterator<Item = Standing> {
        self.0.iter().copied().flatten()
    }

    /// Whether none has.
    pub(crate) fn is_empty(&self) -> bool {
        self.0[0].is_none()
    }
}

impl RateLimits {
    /// Those of a policy, with what has been counted under their names.
    pub(crate) fn new(policy: &Policy, tallies: &Tallies) -> Self {
        let limits = policy.rate_limits();
        let counts = tallies.of(limits);
        Self {
            limits: limits
                .iter()
                .zip(counts)
                .map(|(limit, counts)| Limit {
                    by: limit.by,
                    quota: limit.quota,
                    shared: limit.shared,
                    counts,
                })
                .collect(),
            fields: RateLimitFields::new(policy),
            hashers: Arc::clone(&tallies.hashers),
            shared: tallies.store.clone(),
        }
    }

    /// What has been counted, by definition.
    pub(crate) fn counts(&self) -> impl Iterator<Item = &LimitCounts> {
        self.limits.iter().map(|limit| &*limit.counts)
    }

    /// The fields that say how a request stands.
    pub(crate) fn fields(&self) -> &RateLimitFields {
        &self.fields
    }

    /// Whether any is counted in a store.
    pub(crate) fn has_store(&self) -> bool {
        self.shared.is_some()
    }

    /// Whether any of these is counted in the store.
    pub(crate) fn are_shared(&self, ids: &[RateLimitId]) -> bool {
        let mut limits = ids.iter().filter_map(|id| self.limits.get(id.index()));
        limits.any(|limit| limit.shared.is_some())
    }

    /// Counts a request of `client` that has arrived for a route.
    pub(crate) fn on_arrival(
        &self,
        route: &Route,
        client: ClientKey,
        now: Instant,
        standings: &mut Standings,
    ) -> Result<(), Rejection> {
        let mut ids = route.rate_limits.on_arrival.iter();
        ids.try_for_each(|id| self.take(*id, client, now, standings))
    }

    /// Counts a request that is permitted.
    pub(crate) fn on_permit(
        &self,
        policy: &Policy,
        permit: &Permit,
        now: Instant,
        standings: &mut Standings,
    ) -> Result<(), Rejection> {
        let Some(route) = policy.route(permit.route()) else {
            return Ok(());
        };
        for id in &route.rate_limits.on_permit {
            if let Some(client) = self.client(*id, policy, route, permit) {
                self.take(*id, client, now, standings)?;
            }
        }
        Ok(())
    }

    fn take(
        &self,
        id: RateLimitId,
        client: ClientKey,
        now: Instant,
        standings: &mut Standings,
    ) -> Result<(), Rejection> {
        let Some(limit) = self.limits.get(id.index()) else {
            return Err(Rejection::new(Reason::Internal, "the rate limit is not there"));
        };
        let taken = limit.counts.table.take(client, limit.quota, now);
        limit.settle(id, taken, standings)
    }

    /// The same where some of the route's limits may be shared.
    pub(crate) async fn on_arrival_together(
        &self,
        route: &Route,
        address: IpAddr,
        now: Instant,
        standings: &mut Standings,
    ) -> Result<(), Rejection> {
        for id in &route.rate_limits.on_arrival {
            let client = ClientKey::of_address(address);
            self.take_together(*id, client, || name_of(address), now, standings)
                .await?;
        }
        Ok(())
    }

    /// Counts a permitted request of a route some of whose limits are shared.
    pub(crate) async fn on_permit_together(
        &self,
        policy: &Policy,
        permit: &Permit,
        now: Instant,
        standings: &mut Standings,
    ) -> Result<(), Rejection> {
        let Some(route) = policy.route(permit.route()) else {
            return Ok(());
        };
        for id in &route.rate_limits.on_permit {
            if let Some(client) = self.client(*id, policy, route, permit) {
                let name = || self.name(*id, policy, route, permit);
                self.take_together(*id, client, name, now, standings).await?;
            }
        }
        Ok(())
    }

    async fn take_together(
        &self,
        id: RateLimitId,
        client: ClientKey,
        name: impl Fn() -> String,
        now: Instant,
        standings: &mut Standings,
    ) -> Result<(), Rejection> {
        let (Some(limit), Some(store)) = (self.limits.get(id.index()), &self.shared) else {
            return self.take(id, client, now, standings);
        };
        let Some(shared) = limit.shared else {
            return self.take(id, client, now, standings);
        };
        match store.take(&limit.counts.name, &name(), limit.quota).await {
            Some(taken) => limit.settle(id, taken, standings),
            None if shared.when_store_fails == WhenStoreFails::Refuse => Err(Rejection::new(
                Reason::RateLimitUnknown,
                "the store of shared rate limits does not answer",
            )),
            None => self.take(id, client, now, standings),
        }
    }

    /// The name in the store of whoever [`Self::client`] is: a digest, the same in every gateway.
    fn name(&self, id: RateLimitId, policy: &Policy, route: &Route, permit: &Permit) -> String {
        let by = self.limits.get(id.index()).map(|limit| limit.by);
        let named = match (by, permit.principal()) {
            (Some(LimitBy::User), Some(Principal::User(token))) => {
                let issuer = policy.issuers().get(token.issuer()).map(|issuer| issuer.name());
                [issuer.unwrap_or_default(), token.subject()].join("\n")
            }
            (Some(LimitBy::ApiKey), Some(Principal::Service(key))) => key.id().to_owned(),
            (Some(LimitBy::Service), Some(Principal::Service(key))) => key.service().to_owned(),
            _ => route.name.clone(),
        };
        let digest = digest(&SHA256, named.as_bytes());
        let half = digest.as_ref().get(..16).unwrap_or_default();
        half.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whose quota a permitted request counts against, if anybody's.
    fn client(&self, id: RateLimitId, policy: &Policy, route: &Route, permit: &Permit) -> Option<ClientKey> {
        let limit = self.limits.get(id.index())?;
        match (limit.by, permit.principal()) {
            (LimitBy::User, Some(Principal::User(token))) => {
                let issuer = policy.issuers().get(token.issuer())?.name();
                Some(self.digest(&(issuer, token.subject())))
            }
            (LimitBy::ApiKey, Some(Principal::Service(key))) => Some(self.digest(&key.id())),
            (LimitBy::Service, Some(Principal::Service(key))) => Some(self.digest(&key.service())),
            (LimitBy::Route, _) => Some(self.digest(&route.name)),
            (LimitBy::Address | LimitBy::User | LimitBy::Service | LimitBy::ApiKey, _) => None,
        }
    }

    fn digest(&self, value: &impl std::hash::Hash) -> ClientKey {
        let [high, low] = self.hashers.each_ref().map(|hasher| hasher.hash_one(value));
        ClientKey::of_digest(u128::from(high) << 64 | u128::from(low))
    }
}

impl Limit {
    fn settle(
        &self,
        id: RateLimitId,
        taken: Result<Taken, Spent>,
        standings: &mut Standings,
    ) -> Result<(), Rejection> {
        standings.push(standing(id, &taken));
        taken.map(drop).map_err(|spent| {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            let cause = format!("the rate limit {} is spent", self.counts.name);
            Rejection::spent(Reason::RateLimited, cause, spent)
        })
    }
}

/// The name in the store of an address, or of its /64.
fn name_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            format!("{}/64", Ipv6Addr::from(network))
        }
    }
}

fn standing(limit: RateLimitId, taken: &Result<Taken, Spent>) -> Standing {
    let (remaining, whole_in) = match taken {
        Ok(taken) => (taken.remaining, taken.whole_in),
        Err(spent) => (0, spent.whole_in),
    };
    Standing {
        limit,
        remaining,
        whole_in,
    }
}

impl Standing {
    fn whole_in_seconds(&self) -> u32 {
        whole_seconds(self.whole_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::policy;

    const POLICY: &str = "issuers: [{ use: auth }]\nrevocations: none\n\
         rate_limits:\n  burst-of-two: { by: address, rate: 1/m, burst: 2 }\n  hourly: { by: address, rate: 100/h }\n\
         routes: [{ path: /api/**, upstream: api, rate_limit: [burst-of-two, hourly] }]\n";

    #[test]
    fn a_request_counts_for_each_limit_and_its_response_says_how_it_stands() {
        let policy = policy(POLICY);
        let limits = RateLimits::new(&policy, &Tallies::new(None));
        let route = policy.routes().iter().next().unwrap();
        let client = ClientKey::of_address([192, 0, 2, 1].into());
        let now = Instant::now();
        let said = |at| {
            let mut standings = Standings::default();
            let counted = limits.on_arrival(route, client, at, &mut standings);
            let said = limits.fields().of(Some(route.id), &standings).unwrap();
            (counted, said.texts().map(str::to_owned))
        };
        let policy_field = r#""burst-of-two";q=2;w=120, "hourly";q=100;w=3600"#;
        let (counted, [first, second]) = said(now);
        assert_eq!(counted, Ok(()));
        assert_eq!(first, policy_field);
        assert_eq!(second, r#""burst-of-two";r=1;t=60, "hourly";r=99;t=36"#);
        let (counted, [_, second]) = said(now);
        assert_eq!(counted, Ok(()));
        assert_eq!(second, r#""burst-of-two";r=0;t=120, "hourly";r=98;t=72"#);
        let (counted, [_, second]) = said(now + Duration::from_secs(1));
        let refused = counted.unwrap_err();
        assert_eq!(
            (refused.reason, refused.retry_after),
            (Reason::RateLimited, Some(59))
        );
        assert_eq!(
            second, r#""burst-of-two";r=0;t=119"#,
            "what comes after it has not counted"
        );
        assert_eq!(
            limits.counts().map(LimitCounts::refused).collect::<Vec<_>>(),
            [1, 0]
        );
        assert!(
            limits
                .fields()
                .of(Some(route.id), &Standings::default())
                .is_none()
        );
    }

    #[test]
    fn another_policy_goes_on_with_what_was_counted() {
        let before = policy(POLICY);
        let after = policy(
            &POLICY
                .replace("rate: 1/m, burst: 2", "rate: 1/m, burst: 3")
                .replace("hourly", "daily"),
        );
        let tallies = Tallies::new(None);
        let (client, now) = (ClientKey::of_address([192, 0, 2, 1].into()), Instant::now());
        let take = |policy: &Policy, limits: &RateLimits| {
            let mut standings = Standings::default();
            let route = policy.routes().iter().next().unwrap();
            limits.on_arrival(route, client, now, &mut standings).is_ok()
        };
        let limits = RateLimits::new(&before, &tallies);
        assert_eq!([(); 3].map(|()| take(&before, &limits)), [true, true, false]);
        let limits = RateLimits::new(&after, &tallies);
        assert_eq!(
            [(); 2].map(|()| take(&after, &limits)),
            [true, false],
            "two of three are spent"
        );
        let names: Vec<_> = limits.counts().map(LimitCounts::name).collect();
        assert_eq!(names, ["burst-of-two", "daily"]);
        assert_eq!(tallies.limits.lock().len(), 2);
    }
}
