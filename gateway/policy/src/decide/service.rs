//! The way of an API key: the grants say whose it is, and everything after is as for a token.

use std::sync::Arc;

use super::{Inquiry, LivePrincipal};
use crate::api_key::{ApiKey, GrantStanding, GrantedKey};
use crate::revocation::Revocations;
use crate::route::Route;
use crate::trace::{Outcome, Phase, Step, Trace};
use crate::{Principal, Reason, Rejection};

impl<R: Revocations + ?Sized> Inquiry<'_, '_, R> {
    pub(super) fn service<T: Trace>(
        &self,
        route: &Route,
        presented: &ApiKey<'_>,
        trace: &mut T,
    ) -> Result<LivePrincipal, Rejection> {
        let key = self.granted(presented)?;
        trace.step(|| {
            let detail = format!("key {} of service {}", key.id(), key.service());
            Step::new("grant", Outcome::Hit, detail)
        });
        self.live_service(route, key, trace)
    }

    /// The same once it is known whose key it is.
    pub(super) fn live_service<T: Trace>(
        &self,
        route: &Route,
        key: Arc<GrantedKey>,
        trace: &mut T,
    ) -> Result<LivePrincipal, Rejection> {
        self.check_end(&key, trace)?;
        trace.enter(Phase::Revocation);
        let standing = self.revocations.key_standing(&key);
        self.rest().check_standing(route, standing, trace)?;
        Ok(LivePrincipal(Principal::Service(key)))
    }

    /// A secret that is not known is never accepted, whatever the route says of unknown revocation:
    /// fresh news says that it is nobody's, and stale news says nothing.
    fn granted(&self, presented: &ApiKey<'_>) -> Result<Arc<GrantedKey>, Rejection> {
        let digest = presented.digest();
        match self.revocations.granted_key(&digest) {
            // The table is not taken at its word: the grant is of these very bytes, or of none.
            GrantStanding::Known(key) if key.digest() == digest => Ok(key),
            GrantStanding::Known(_) => Err(Rejection::new(
                Reason::Internal,
                "the grants gave another key than was asked for",
            )),
            GrantStanding::Absent => Err(Rejection::new(
                Reason::ApiKeyUnknown,
                format!("nobody holds the key {}, or its grant has ended", presented.id()),
            )),
            GrantStanding::Unknown { stale_for } => {
                let news = match stale_for {
                    None => "grants have not been loaded yet, or not all of them",
                    Some(_) => "the news of grants is stale",
                };
                let cause = format!("the key {} is not known here, and {news}", presented.id());
                Err(Rejection::new(Reason::RevocationUnknown, cause))
            }
        }
    }

    fn check_end<T: Trace>(&self, key: &GrantedKey, trace: &mut T) -> Result<(), Rejection> {
        if key.is_expired(self.now) {
            let cause = format!("the time of the key {} has passed", key.id());
            return Err(Rejection::new(Reason::ApiKeyExpired, cause));
        }
        trace.step(|| match key.expires_at() {
            Some(end) => {
                let left = end.0.saturating_sub(self.now.0);
                Step::new("times", Outcome::Hit, format!("it ends in {left} s"))
            }
            None => Step::new("times", Outcome::Hit, "it has no end"),
        });
        Ok(())
    }
}
