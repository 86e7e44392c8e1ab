//! A decision that waits for the store's answer, in lookup mode.

use std::borrow::Cow;
use std::sync::Arc;

use super::{LivePrincipal, Permit, Refusal, Rest};
use crate::claim_rule::Params;
use crate::lookup::{LookupAnswer, LookupKeys};
use crate::revocation::Standing;
use crate::route::{Route, RouteId};
use crate::trace::{Outcome, Step, Trace};
use crate::{Policy, Principal, Rejection, VerifiedToken};

/// A request that may pass if its credential is not revoked and its route's rules hold. Made by
/// [`crate::decide`] alone, and of use to nobody but [`Pending::conclude`].
#[derive(Debug)]
pub struct Pending<'p> {
    policy: &'p Policy,
    route: &'p Route,
    user: Principal,
    keys: LookupKeys,
    params: KeptParams,
    target: Option<Box<[u8]>>,
}

impl<'p> Pending<'p> {
    pub(super) fn new(
        policy: &'p Policy,
        route: &'p Route,
        token: Arc<VerifiedToken>,
        keys: LookupKeys,
        params: &impl Params,
        target: Option<Box<[u8]>>,
    ) -> Self {
        Self {
            policy,
            route,
            user: Principal::User(token),
            keys,
            params: KeptParams::of(route, params),
            target,
        }
    }

    /// The route.
    pub fn route(&self) -> RouteId {
        self.route.id
    }

    /// Whoever asks, if not revoked: always a user, since services have no place in lookup mode.
    pub fn principal(&self) -> &Principal {
        &self.user
    }

    /// What the store is to be asked for.
    pub fn keys(&self) -> &LookupKeys {
        &self.keys
    }

    /// Decides, now that the store has answered or failed to.
    pub fn conclude<T: Trace>(self, answer: &LookupAnswer, trace: &mut T) -> Result<Permit, Refusal> {
        let rest = Rest { policy: self.policy };
        let standing = self.keys.standing(answer);
        if let (Standing::Revoked(_), Some(place)) = (standing, self.keys.listed_at(answer)) {
            trace.step(|| Step::new("keys", Outcome::Hit, "the store has this key").at(place));
        }
        match rest.check_standing(self.route, standing, trace) {
            Ok(()) => self.proceed(trace),
            Err(rejection) => Err(self.refuse(rejection, trace)),
        }
    }

    /// What would come of it if the store had none of the keys: for an explanation, which says so.
    pub(crate) fn conclude_unasked<T: Trace>(self, trace: &mut T) -> Result<Permit, Refusal> {
        trace.step(|| {
            let detail = format!("the store was not asked for {}", self.keys);
            Step::new("revocation", Outcome::Skipped, detail)
        });
        self.proceed(trace)
    }

    fn proceed<T: Trace>(self, trace: &mut T) -> Result<Permit, Refusal> {
        let rest = Rest { policy: self.policy };
        let principal = LivePrincipal(self.user.clone());
        rest.check_rules(self.route, Some(&principal), &self.params, trace)
            .and_then(|()| rest.permit_on(self.route, Some(principal), self.target.clone(), trace))
            .map_err(|rejection| self.refuse(rejection, trace))
    }

    fn refuse<T: Trace>(&self, rejection: Rejection, trace: &mut T) -> Refusal {
        Refusal::told(Some(self.route.id), rejection, trace)
    }
}

/// The parameters of the path, kept while the store is asked: its header is not held on to.
#[derive(Debug)]
struct KeptParams(Vec<Option<Vec<u8>>>);

impl KeptParams {
    fn of(route: &Route, params: &impl Params) -> Self {
        let kept = |index| params.value(index).map(Cow::into_owned);
        Self((0..route.param_names().len()).map(kept).collect())
    }
}

impl Params for KeptParams {
    fn value(&self, index: usize) -> Option<Cow<'_, [u8]>> {
        self.0.get(index)?.as_deref().map(Cow::Borrowed)
    }
}
