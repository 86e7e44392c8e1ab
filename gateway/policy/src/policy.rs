//! The configuration's policy half, compiled: nothing is validated at request time.

use std::sync::Arc;
use std::time::Duration;

use durward_config::{Diagnostics, Node, Place};
use http::{HeaderName, HeaderValue};

use crate::forwarded_request::IdentityNames;
use crate::identity_headers::{IdentityPlan, ServiceHeaders, StripSet};
use crate::issuer::{Issuers, OwnIssuer};
use crate::lookup::Lookup;
use crate::revocation::DigestKey;
use crate::route::{Route, RouteId, UpstreamId};
use crate::route_table::RouteTable;
use crate::{Permit, RateLimit};

mod compile;

pub use compile::publishes_revocations;

/// The default of `max_staleness`.
pub const DEFAULT_MAX_STALENESS: Duration = Duration::from_secs(5);

/// The sections of the file that make the policy.
#[derive(Clone, Debug)]
pub struct PolicySections<'a> {
    /// `issuers:`
    pub issuers: Option<&'a Node>,
    /// `identity_headers:`
    pub identity_headers: Option<&'a Node>,
    /// `service_headers:`
    pub service_headers: Option<&'a Node>,
    /// `strip:`
    pub strip: Option<&'a Node>,
    /// `routes:`
    pub routes: Option<&'a Node>,
    /// `revocations:`
    pub revocations: Option<&'a Node>,
    /// `rate_limits:`
    pub rate_limits: Option<&'a Node>,
    /// The names under `upstreams:`, in the order of the file: a route's upstream is an index of it.
    pub upstream_names: &'a [(String, Place)],
    /// What the `auth:` section says, where the file has one.
    pub own_issuer: Option<OwnIssuer>,
    /// Whether the auth service runs in this process; embedded revocations come from there.
    pub auth_in_process: bool,
    /// Where to report what concerns the file as a whole.
    pub file_place: Place,
}

/// How the gateway learns of revocations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevocationsMode {
    /// `revocations: none`, written out: nothing is ever revoked.
    None,
    /// `store: embedded`: from the auth service in this process.
    Embedded,
    /// `store: redis://...`: from auth services elsewhere, through Redis. Where exactly, the shell
    /// reads from the file.
    Redis,
    /// `mode: lookup`: a store that is the application's own is asked for each request.
    Lookup(Lookup),
}

/// Everything that [`crate::decide`] works on.
#[derive(Clone, Debug)]
pub struct Policy {
    issuers: Issuers,
    identity: IdentityPlan,
    service_headers: Arc<ServiceHeaders>,
    /// Of users and of services.
    identity_names: IdentityNames,
    routes: RouteTable,
    /// By [`RouteId`].
    strips: Vec<Arc<StripSet>>,
    /// By [`UpstreamId`].
    upstream_names: Vec<String>,
    revocations: RevocationsMode,
    max_staleness: Duration,
    /// By [`RateLimitId`](crate::RateLimitId).
    rate_limits: Vec<RateLimit>,
    /// Whether a route counts requests before their credential is looked at.
    limits_on_arrival: bool,
    digest_key: DigestKey,
}

impl Policy {
    /// Compiles the sections. All errors are reported; with any of them there is no policy.
    pub fn compile(
        sections: PolicySections<'_>,
        digest_key: DigestKey,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        compile::policy(sections, digest_key, diagnostics)
    }

    /// The policy of whoever has none: no route, no access.
    pub fn refuse_everything(digest_key: DigestKey) -> Self {
        Self {
            issuers: Issuers::default(),
            identity: IdentityPlan::default(),
            service_headers: Arc::default(),
            identity_names: IdentityNames::default(),
            routes: RouteTable::default(),
            strips: Vec::new(),
            upstream_names: Vec::new(),
            revocations: RevocationsMode::None,
            max_staleness: DEFAULT_MAX_STALENESS,
            rate_limits: Vec::new(),
            limits_on_arrival: false,
            digest_key,
        }
    }

    /// Every route.
    pub fn routes(&self) -> &RouteTable {
        &self.routes
    }

    /// The route of an id.
    pub fn route(&self, id: RouteId) -> Option<&Route> {
        self.routes.get(id)
    }

    /// The name of an upstream.
    pub fn upstream_name(&self, id: UpstreamId) -> Option<&str> {
        self.upstream_names
            .get(usize::try_from(id.0).ok()?)
            .map(String::as_str)
    }

    /// Every issuer.
    pub fn issuers(&self) -> &Issuers {
        &self.issuers
    }

    /// How the gateway learns of revocations.
    pub fn revocations(&self) -> &RevocationsMode {
        &self.revocations
    }

    /// What to ask of whom, in lookup mode.
    pub fn lookup(&self) -> Option<&Lookup> {
        match &self.revocations {
            RevocationsMode::Lookup(lookup) => Some(lookup),
            RevocationsMode::None | RevocationsMode::Embedded | RevocationsMode::Redis => None,
        }
    }

    /// How old the news may be before what it does not say is unknown.
    pub fn max_staleness(&self) -> Duration {
        self.max_staleness
    }

    /// Every rate limit, in the order of the file.
    pub fn rate_limits(&self) -> &[RateLimit] {
        &self.rate_limits
    }

    /// Whether a route counts requests before their credential is looked at.
    pub fn limits_on_arrival(&self) -> bool {
        self.limits_on_arrival
    }

    /// The secret under which revocations are keyed.
    pub fn digest_key(&self) -> DigestKey {
        self.digest_key
    }

    /// Whether a header of that name, as the client spelled it, is kept from a route's upstream.
    pub fn strips(&self, route: RouteId, name: &str) -> bool {
        self.strip_set(route).is_none_or(|set| set.strips(name))
    }

    /// What is said of services.
    pub fn service_headers(&self) -> &Arc<ServiceHeaders> {
        &self.service_headers
    }

    /// Every identity header there is, with what a permit says in it, or empty: whoever copies all of
    /// them leaves nothing of what a client sent in their place.
    pub fn identity_answer<'p>(
        &'p self,
        permit: &'p Permit,
    ) -> impl Iterator<Item = (&'p HeaderName, HeaderValue)> {
        self.identity_names.iter().map(|name| {
            let mut said = permit.identity_headers().iter();
            let value = said.find_map(|(set, value)| (set == name).then(|| value.clone()));
            (name, value.unwrap_or(HeaderValue::from_static("")))
        })
    }

    /// The names in which it says who asks.
    pub fn identity_header_names(&self) -> impl Iterator<Item = &HeaderName> {
        self.identity_names.iter()
    }

    pub(crate) fn identity_names(&self) -> &IdentityNames {
        &self.identity_names
    }

    pub(crate) fn identity(&self) -> &IdentityPlan {
        &self.identity
    }

    pub(crate) fn strip_set(&self, route: RouteId) -> Option<&Arc<StripSet>> {
        self.strips.get(usize::try_from(route.0).ok()?)
    }
}
