//! The end of a decision, once it is known how the credential stands: revocation, rules, identity.
//! For a decision in one go and for one that was pending it is the same code.

use std::sync::Arc;
use std::time::Duration;

use super::{LivePrincipal, Permit};
use crate::claim_rule::Params;
use crate::identity_headers::{IdentityHeaders, Said};
use crate::revocation::{Cause, Standing};
use crate::route::{Route, WhenUnknown};
use crate::trace::{Outcome, Phase, Step, Trace};
use crate::{Policy, Principal, Reason, Rejection, RevocationsMode, VerifiedToken};

/// What is left to do once it is known how the credential stands: the same for a decision in one go
/// and for one that was pending.
pub(super) struct Rest<'p> {
    pub(super) policy: &'p Policy,
}

impl Rest<'_> {
    /// No error is ever read as "not revoked": what is not known is the route's to judge.
    pub(super) fn check_standing<T: Trace>(
        &self,
        route: &Route,
        standing: Standing,
        trace: &mut T,
    ) -> Result<(), Rejection> {
        match standing {
            Standing::Live if matches!(self.policy.revocations(), RevocationsMode::None) => {
                trace.step(|| Step::new("revocation", Outcome::Skipped, "not asked: `revocations: none`"));
                Ok(())
            }
            Standing::Live => {
                trace.step(|| Step::new("revocation", Outcome::Hit, "nothing is revoked"));
                Ok(())
            }
            Standing::Revoked(cause) => Err(Rejection::new(Reason::Revoked, revoked(cause))),
            Standing::Unknown { stale_for } => {
                accept_unknown(route.when_unknown, stale_for)?;
                trace.step(|| {
                    let detail = format!("the news is stale ({stale_for:?}), and the route allows that");
                    Step::new("when_unknown", Outcome::Hit, detail).at(route.place)
                });
                Ok(())
            }
        }
    }

    pub(super) fn check_rules<T: Trace>(
        &self,
        route: &Route,
        principal: Option<&LivePrincipal>,
        params: &impl Params,
        trace: &mut T,
    ) -> Result<(), Rejection> {
        trace.enter(Phase::Rules);
        if route.requirement.is_empty() {
            return Ok(());
        }
        match principal {
            Some(LivePrincipal(principal)) => route.requirement.check(principal.claims(), params, trace),
            None => Err(Rejection::new(
                Reason::NoCredential,
                "the route has rules and the request is anonymous",
            )),
        }
    }

    pub(super) fn permit_on<T: Trace>(
        &self,
        route: &Route,
        principal: Option<LivePrincipal>,
        target: Option<Box<[u8]>>,
        trace: &mut T,
    ) -> Result<Permit, Rejection> {
        trace.enter(Phase::Identity);
        let Some(strip) = self.policy.strip_set(route.id) else {
            return Err(Rejection::new(
                Reason::Internal,
                "the route has no set of names to strip",
            ));
        };
        let said = match &principal {
            None => Said::Nobody,
            Some(LivePrincipal(Principal::User(token))) => {
                self.trace_user_headers(token, trace)?;
                Said::User(Arc::clone(token))
            }
            Some(LivePrincipal(Principal::Service(key))) => {
                let plan = self.policy.service_headers();
                plan.trace(key, trace);
                Said::Service(Arc::clone(key), Arc::clone(plan))
            }
        };
        Ok(Permit {
            route: route.id,
            upstream: route.upstream,
            forward_credentials: route.forward_credentials,
            identity: IdentityHeaders::new(Arc::clone(strip), said),
            target,
        })
    }

    fn trace_user_headers<T: Trace>(&self, token: &VerifiedToken, trace: &mut T) -> Result<(), Rejection> {
        let values = token.identity_values().as_ref().map_err(Rejection::clone)?;
        for (name, claim, place) in self.policy.identity().iter() {
            trace.step(|| {
                let value = values.iter().find(|(set, _)| set == name);
                let said = value.map(|(_, value)| String::from_utf8_lossy(value.as_bytes()));
                let outcome = if said.is_some() {
                    Outcome::Hit
                } else {
                    Outcome::Miss
                };
                let detail = said.unwrap_or_else(|| format!("claim `{claim}` is absent").into());
                Step::new(name.to_string(), outcome, detail.into_owned()).at(place)
            });
        }
        Ok(())
    }
}

const fn revoked(cause: Cause) -> &'static str {
    match cause {
        Cause::Token => "the token is revoked",
        Cause::Session => "the token's session is revoked",
        Cause::User => "the token's user is revoked",
        Cause::Client => "the token's client is revoked",
        Cause::SigningKey => "the key that signed the token is revoked",
        Cause::ApiKey => "the API key is revoked",
        Cause::Everyone => "all tokens of the issuer are revoked",
        Cause::Listed => "the token is on the application's list",
    }
}

fn accept_unknown(when_unknown: WhenUnknown, stale_for: Option<Duration>) -> Result<(), Rejection> {
    if when_unknown.allows(stale_for) {
        return Ok(());
    }
    let cause = match stale_for {
        None => "revocations have not been loaded yet",
        Some(_) => "the news of revocations is stale",
    };
    Err(Rejection::new(Reason::RevocationUnknown, cause))
}
