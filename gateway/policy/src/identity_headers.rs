//! The identity namespace: which header names belong to the gateway, and what it says in them.
//!
//! Strip always, insert maybe, in one function ([`IdentityHeaders::apply_to`]). The names are
//! stripped under every spelling that a backend could fold to them (CGI turns `X-User-Id` and
//! `x_user.id` into the same variable), from every request, public and upgrade requests too.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{GrantedKey, Principal, VerifiedToken};

mod compile;
mod plan;
mod service_plan;
mod strip_set;

pub(crate) use compile::extra_names;
pub use compile::identity_name as identity_header_name;
pub(crate) use plan::{IdentityPlan, IdentityValues};
pub use service_plan::ServiceHeaders;
pub(crate) use strip_set::fold;
use strip_set::strip_where;
pub use strip_set::{StripSet, canonical};

/// The longest value of an identity header, in bytes.
pub const MAX_IDENTITY_VALUE_BYTES: usize = 4096;
/// The most identity headers.
pub const MAX_IDENTITY_HEADERS: usize = 32;

/// Where identity headers are put: the header section of the request to the upstream.
pub trait HeaderSink {
    /// Every name that is there, once or more often.
    fn names(&self) -> impl Iterator<Item = &HeaderName>;
    /// Removes every field of that name.
    fn remove(&mut self, name: &HeaderName);
    /// Sets the one field of that name.
    fn insert(&mut self, name: &HeaderName, value: &HeaderValue);
}

impl HeaderSink for HeaderMap {
    fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.keys()
    }

    fn remove(&mut self, name: &HeaderName) {
        Self::remove(self, name);
    }

    fn insert(&mut self, name: &HeaderName, value: &HeaderValue) {
        Self::insert(self, name.clone(), value.clone());
    }
}

/// What a permit does to the header section. Only a [`crate::Permit`] yields one.
#[derive(Clone, Debug)]
pub struct IdentityHeaders {
    strip: Arc<StripSet>,
    principal: Option<Principal>,
    /// Of a service alone.
    service_headers: Option<Arc<ServiceHeaders>>,
}

/// In whose name a request goes on: the headers of users are never set for a service, nor those of
/// services for a user.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Nobody,
    User(Arc<VerifiedToken>),
    Service(Arc<GrantedKey>, Arc<ServiceHeaders>),
}

impl IdentityHeaders {
    pub(crate) fn new(strip: Arc<StripSet>, said: Said) -> Self {
        let (principal, service_headers) = match said {
            Said::Nobody => (None, None),
            Said::User(token) => (Some(Principal::User(token)), None),
            Said::Service(key, plan) => (Some(Principal::Service(key)), Some(plan)),
        };
        Self {
            strip,
            principal,
            service_headers,
        }
    }

    /// Strips what belongs to the gateway, then says who is asking, if anybody proved to be.
    ///
    /// Call it after hop-by-hop headers were removed: a client could otherwise have an identity
    /// header removed by naming it in Connection (RFC 9110 section 7.6.1).
    pub fn apply_to(&self, headers: &mut impl HeaderSink) {
        self.apply_and_strip(headers, |_| false);
    }

    /// Like [`Self::apply_to`], and strips in the same pass what else `strips` says.
    pub fn apply_and_strip(&self, headers: &mut impl HeaderSink, strips: impl Fn(&str) -> bool) {
        strip_where(headers, |name| self.strip.strips(name) || strips(name));
        for (name, value) in self.iter() {
            headers.insert(name, value);
        }
    }

    pub(crate) fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    /// The headers that are set.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let user = match &self.principal {
            Some(Principal::User(token)) => token.identity_values().as_ref().ok(),
            Some(Principal::Service(_)) | None => None,
        };
        let service = match (&self.principal, &self.service_headers) {
            (Some(Principal::Service(key)), Some(plan)) => Some(plan.values(key)),
            _ => None,
        };
        let user = user.into_iter().flatten().map(|(name, value)| (name, value));
        user.chain(service.into_iter().flatten())
    }

    /// Whether a header of that name, as the client spelled it, is kept from the upstream.
    pub fn strips(&self, name: &str) -> bool {
        self.strip.strips(name)
    }
}
