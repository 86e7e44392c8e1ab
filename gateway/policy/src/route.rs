//! One route of the file: which requests it is for, and what it asks of them. Data only.

use std::time::Duration;

use durward_config::Place;
use http::HeaderName;

use crate::request_facts::MethodSet;
use crate::{
    AcceptedIssuers, Cors, CredentialKinds, ForwardLimits, Requirement, ResponseHeaders, Rewrite,
    RouteRateLimits,
};

mod compile;
mod pattern;

pub(crate) use compile::routes;
pub use compile::{MAX_ROUTES, RouteContext};
pub(crate) use pattern::{HostPattern, PathPattern, Segment};
pub use pattern::{MAX_PARAMS, MAX_PATTERN_BYTES, MAX_PATTERN_SEGMENTS};

/// A route's index in the table, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u32);

impl RouteId {
    /// Its index, from 0.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// An upstream's index, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamId(pub u32);

impl UpstreamId {
    /// Its index, from 0.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Whether a route asks for a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Credentials are not looked at.
    Public,
    /// A request without a credential is anonymous; a bad credential is refused.
    Optional,
    /// A credential is required.
    Authenticated,
}

/// What a route does where it is not known whether a credential is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenUnknown {
    /// It refuses.
    Refuse,
    /// It accepts what the last news said for so long after that news.
    AllowFor(Duration),
}

impl WhenUnknown {
    /// Whether it accepts news of this age, which is too old to be believed without asking the route.
    /// `allow_for` counts from the last news, and never applies before there was any.
    pub fn allows(self, stale_for: Option<Duration>) -> bool {
        match (self, stale_for) {
            (Self::AllowFor(bound), Some(age)) => age <= bound,
            (Self::AllowFor(_), None) | (Self::Refuse, _) => false,
        }
    }
}

/// One route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its index.
    pub id: RouteId,
    /// Its host and path pattern as written, for metrics and logs. Routes that differ only in their
    /// methods share it.
    pub name: String,
    /// Where the file speaks of it.
    pub place: Place,
    /// The methods that it lists; nothing where it lists none and takes every one.
    pub methods: Option<MethodSet>,
    /// Where its requests go.
    pub upstream: UpstreamId,
    /// Whether it asks for a credential.
    pub access: Access,
    /// Which kinds of credential it accepts; none where it is public.
    pub credentials: CredentialKinds,
    /// What the token must have.
    pub requirement: Requirement,
    /// Whose tokens it accepts.
    pub issuers: AcceptedIssuers,
    /// What it does where revocation is unknown.
    pub when_unknown: WhenUnknown,
    /// Whether the gateway's own credentials go on to the upstream.
    pub forward_credentials: bool,
    /// Further names to strip.
    pub strip: Vec<HeaderName>,
    /// How long its requests may take, and how large they may be; the upstream says the rest.
    pub limits: ForwardLimits,
    /// How its target is made, where that is not the one that was sent.
    pub rewrite: Option<Rewrite>,
    /// What is changed in its backend's responses.
    pub response_headers: ResponseHeaders,
    /// What counts its requests.
    pub rate_limits: RouteRateLimits,
    /// Which origins' pages may read its responses.
    pub cors: Option<Cors>,
    pub(crate) host: HostPattern,
    pub(crate) path: PathPattern,
}

impl Route {
    /// The names of its path's parameters, in order.
    pub fn param_names(&self) -> &[String] {
        self.path.param_names()
    }
}
