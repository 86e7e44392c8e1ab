//! What is of one configuration: a request is judged and forwarded by one generation from its
//! beginning to its end, whatever is taken over meanwhile.
//!
//! What belongs to the process, and outlives every configuration, is in [`crate::proxy::Shared`].

use std::sync::Arc;

use durward_contract::UnixSeconds;
use durward_policy::{Permit, Policy, Principal, Route, RouteId};
use http::HeaderName;

use crate::config::GatewayConfig;
use crate::decision;
use crate::failure_limit::FailureLimit;
use crate::forward_auth::ForwardAuthConfig;
use crate::forward_limits::Limits;
use crate::issuer_keys::IssuerKeys;
use crate::metrics::{Metrics, RouteCounts};
use crate::proof_cache::ProofCache;
use crate::rate_limits::{RateLimits, Tallies};
use crate::upstreams::Upstream;

/// One configuration, ready for requests.
pub(crate) struct Generation {
    /// Counts from 1.
    pub(crate) number: u64,
    pub(crate) config: GatewayConfig,
    pub(crate) policy: Arc<Policy>,
    pub(crate) proofs: ProofCache,
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    /// By route.
    limits: Vec<Limits>,
    /// By route, and then those of requests without one.
    counts: Vec<Arc<RouteCounts>>,
    /// What bounds how many credentials of an address may fail.
    pub(crate) failures: Option<FailureLimit>,
    pub(crate) rate_limits: RateLimits,
}

impl Generation {
    /// The generation of a start.
    pub(crate) fn first(
        config: GatewayConfig,
        policy: Arc<Policy>,
        keys: IssuerKeys,
        assertion: Option<&HeaderName>,
        metrics: &Metrics,
        tallies: &Tallies,
    ) -> Self {
        let proofs = ProofCache::new(Arc::new(keys), config.proof_cache_bytes);
        let upstreams = config
            .upstreams
            .iter()
            .map(|upstream| Arc::new(Upstream::new(upstream, assertion)))
            .collect();
        Self::of(1, config, policy, proofs, upstreams, metrics, tallies)
    }

    /// The one that comes after this. An upstream of which the file says the same stays what it is,
    /// with all that is known of its servers; of one that changed, the counts go on.
    pub(crate) fn next(
        &self,
        config: GatewayConfig,
        policy: Arc<Policy>,
        keys: IssuerKeys,
        assertion: Option<&HeaderName>,
        metrics: &Metrics,
        tallies: &Tallies,
    ) -> Self {
        let proofs = self.proofs.successor(Arc::new(keys), config.proof_cache_bytes);
        let upstreams = config
            .upstreams
            .iter()
            .map(|new| {
                let known = self.config.upstreams.iter().zip(&self.upstreams);
                let before = known.into_iter().find(|(old, _)| old.name == new.name);
                match before {
                    Some((old, upstream)) if old.says_the_same(new) => Arc::clone(upstream),
                    Some((_, upstream)) => Arc::new(upstream.successor(new, assertion)),
                    None => Arc::new(Upstream::new(new, assertion)),
                }
            })
            .collect();
        Self::of(
            self.number + 1,
            config,
            policy,
            proofs,
            upstreams,
            metrics,
            tallies,
        )
    }

    fn of(
        number: u64,
        config: GatewayConfig,
        policy: Arc<Policy>,
        proofs: ProofCache,
        upstreams: Vec<Arc<Upstream>>,
        metrics: &Metrics,
        tallies: &Tallies,
    ) -> Self {
        let of_route = |route: &Route| {
            let upstream = &config.upstreams[route.upstream.index()];
            Limits::new(route.limits.or(upstream.limits), upstream.protocol)
        };
        Self {
            number,
            limits: policy.routes().iter().map(of_route).collect(),
            counts: metrics.of_routes(&policy),
            failures: tallies.failure_limit(config.client_limits.failures),
            rate_limits: RateLimits::new(&policy, tallies),
            config,
            policy,
            proofs,
            upstreams,
        }
    }

    pub(crate) fn ends_at(&self, principal: &Principal) -> UnixSeconds {
        decision::ends_at(&self.policy, principal)
    }

    pub(crate) fn upstream(&self, permit: &Permit) -> Option<&Arc<Upstream>> {
        self.upstreams.get(permit.upstream().index())
    }

    pub(crate) fn limits(&self, permit: &Permit) -> Option<&Limits> {
        self.limits.get(permit.route().index())
    }

    /// What is counted of a route, or of requests without one.
    pub(crate) fn counts(&self, route: Option<RouteId>) -> &RouteCounts {
        let none = self.counts.len() - 1;
        let index = route.map_or(none, |route| route.index().min(none));
        &self.counts[index]
    }

    pub(crate) fn forward_auth(&self) -> Option<&ForwardAuthConfig> {
        self.config.forward_auth.as_ref()
    }
}

/// Whether every route's upstream is there.
pub(crate) fn upstreams_are_there(policy: &Policy, config: &GatewayConfig) -> bool {
    let there = |route: &Route| route.upstream.index() < config.upstreams.len();
    policy.routes().iter().all(there)
}
