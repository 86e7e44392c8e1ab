//! `RateLimit-Policy` and `RateLimit`, by draft-ietf-httpapi-ratelimit-headers-11: what a route counts,
//! and how a request stands with it.
//!
//! A quota of so many at once (`q`) that is whole again within so many seconds (`w`): `"a";q=20;w=12`.
//! Of it, so many are left (`r`), and it is whole again in so many seconds (`t`): `"a";r=19;t=1`.

use std::fmt::Write;

use durward_policy::{Policy, RateLimit, Route, RouteId, whole_seconds};
use http::{HeaderName, HeaderValue};

use super::Standings;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What is said of each limit and of each route.
pub(crate) struct RateLimitFields {
    /// By rate limit.
    names: Vec<String>,
    /// By route; nothing where it counts nothing.
    policies: Vec<Option<HeaderValue>>,
}

/// What a response says.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    policy: HeaderValue,
    standing: HeaderValue,
}

impl RateLimitFields {
    pub(crate) fn new(policy: &Policy) -> Self {
        let limits = policy.rate_limits();
        Self {
            names: limits.iter().map(|limit| limit.name.clone()).collect(),
            policies: policy
                .routes()
                .iter()
                .map(|route| policy_of(route, limits))
                .collect(),
        }
    }

    /// What to say of a request on a route; nothing where nothing has counted it.
    pub(crate) fn of(&self, route: Option<RouteId>, standings: &Standings) -> Option<Said> {
        if standings.is_empty() {
            return None;
        }
        let policy = self.policies.get(route?.index())?.clone()?;
        let mut text = String::with_capacity(48);
        for standing in standings.iter() {
            let name = self.names.get(standing.limit.index())?;
            let (left, seconds) = (standing.remaining, standing.whole_in_seconds());
            push_item(&mut text, format_args!("\"{name}\";r={left};t={seconds}"));
        }
        Some(Said {
            policy,
            standing: HeaderValue::try_from(text).ok()?,
        })
    }
}

impl Said {
    /// The fields. They are lists: what a backend says in its own stays beside it.
    pub(crate) fn fields(self) -> [(HeaderName, HeaderValue); 2] {
        [(RATELIMIT_POLICY, self.policy), (RATELIMIT, self.standing)]
    }

    #[cfg(test)]
    pub(super) fn texts(&self) -> [&str; 2] {
        [&self.policy, &self.standing].map(|value| value.to_str().unwrap())
    }
}

fn policy_of(route: &Route, limits: &[RateLimit]) -> Option<HeaderValue> {
    let mut text = String::new();
    for limit in route.rate_limits.iter().filter_map(|id| limits.get(id.index())) {
        let (name, burst) = (&limit.name, limit.quota.burst());
        let window = whole_seconds(limit.quota.window());
        push_item(&mut text, format_args!("\"{name}\";q={burst};w={window}"));
    }
    (!text.is_empty())
        .then(|| HeaderValue::try_from(text).ok())
        .flatten()
}

fn push_item(list: &mut String, item: std::fmt::Arguments<'_>) {
    if !list.is_empty() {
        list.push_str(", ");
    }
    // Writing to a string does not fail.
    let _ = list.write_fmt(item);
}
