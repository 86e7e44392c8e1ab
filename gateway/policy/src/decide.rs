//! THE function: what becomes of a request. The proxy, `durward explain`, the benchmarks and the
//! fuzz targets all call this one; no rule has a second implementation.
//!
//! The order is fixed: route, credential, proof, issuer, times, revocation, rules, identity. A later
//! check never runs where an earlier one refused, and nothing but the end of it makes a [`Permit`].
//!
//! In lookup mode it stops before the answer about revocation, which only the shell can fetch, with a
//! [`Pending`]; [`Pending::conclude`] goes on from there, in the same order and by the same code.

use std::sync::Arc;

use durward_contract::UnixSeconds;

use crate::api_key::ApiKey;
use crate::client_certificate::ClientCertificate;
use crate::credential::{Candidate, Credential, CredentialKinds};
use crate::identity_headers::{HeaderSink, IdentityHeaders};
use crate::lookup::LookupKeys;
use crate::revocation::Revocations;
use crate::route::{Access, Route, RouteId, UpstreamId};
use crate::route_table::RouteMatch;
use crate::trace::{Outcome, Phase, Step, Trace};
use crate::{Policy, Principal, Reason, Rejection, RequestFacts, VerifiedToken};

mod certificate;
mod pending;
mod rest;
mod service;

pub use pending::Pending;

use rest::Rest;

/// Proves tokens, perhaps from a cache of proofs. A cache may hold proofs, never decisions, and must
/// tell policies and generations of keys apart.
pub trait Proofs {
    /// The proof of a token, as [`crate::prove`] makes it.
    fn prove(&self, policy: &Policy, token: &str) -> Result<Arc<VerifiedToken>, Rejection>;

    /// A proof of the very same bytes that [`Self::prove`] made before and would make again.
    fn remembered(&self, _token: &[u8]) -> Option<Arc<VerifiedToken>> {
        None
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Decision<'p> {
    /// It goes to the upstream, as the permit says.
    Permit(Permit),
    /// It is answered with a refusal.
    Refuse(Refusal),
    /// In lookup mode: nothing is decided before the store was asked.
    Pending(Box<Pending<'p>>),
}

/// A refusal, and on which route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The route that was chosen, if one was.
    pub route: Option<RouteId>,
    /// Why.
    pub rejection: Rejection,
}

/// That a request may pass: to which upstream, and in whose name. Made by [`decide`], or by
/// [`Pending::conclude`], alone.
#[derive(Clone, Debug)]
pub struct Permit {
    route: RouteId,
    upstream: UpstreamId,
    forward_credentials: bool,
    /// With the principal, whom they speak of.
    identity: IdentityHeaders,
    /// The target, where the route rewrites it.
    target: Option<Box<[u8]>>,
}

/// A proved token or a granted key whose times hold and that is not revoked, at the moment of the
/// decision.
#[derive(Clone, Debug)]
struct LivePrincipal(Principal);

/// Where the principal of a request comes from: the request itself, or what `explain` assumes.
pub(crate) trait Evidence {
    /// What the request proves; nothing where it has no credential.
    fn proof<'r, T: Trace>(
        &self,
        policy: &Policy,
        facts: &'r RequestFacts<'_>,
        accepted: CredentialKinds,
        trace: &mut T,
    ) -> Result<Option<Proof<'r>>, Rejection>;
}

/// What a request proves before anybody is asked about it.
pub(crate) enum Proof<'r> {
    /// A token that its issuer signed.
    Token(Arc<VerifiedToken>),
    /// A key that has the form of one. Whose it is, the grants say.
    ApiKey(ApiKey<'r>),
    /// A certificate that an authority signed, with the key of which the connection was opened.
    Certificate(&'r ClientCertificate),
}

/// Decides on a request at `now`. In lookup mode `revocations` is not asked.
pub fn decide<'p, T: Trace>(
    policy: &'p Policy,
    facts: &RequestFacts<'_>,
    proofs: &(impl Proofs + ?Sized),
    revocations: &(impl Revocations + ?Sized),
    now: UnixSeconds,
    trace: &mut T,
) -> Decision<'p> {
    decide_on(policy, facts, &FromRequest(proofs), revocations, now, trace)
}

pub(crate) fn decide_on<'p, T: Trace>(
    policy: &'p Policy,
    facts: &RequestFacts<'_>,
    evidence: &impl Evidence,
    revocations: &(impl Revocations + ?Sized),
    now: UnixSeconds,
    trace: &mut T,
) -> Decision<'p> {
    match Routed::find(policy, facts, trace) {
        Ok(routed) => routed.decide_on(evidence, revocations, now, trace),
        Err(refusal) => Decision::Refuse(refusal),
    }
}

/// A request whose route is found, and nothing else: for whoever does something between that and the
/// rest of [`decide`], such as to count it.
pub struct Routed<'p, 'r> {
    policy: &'p Policy,
    facts: &'r RequestFacts<'r>,
    found: RouteMatch<'p, 'r>,
}

impl<'p, 'r> Routed<'p, 'r> {
    /// Finds the route of a request. With [`Self::decide`] it is [`decide`].
    #[inline]
    pub fn find<T: Trace>(
        policy: &'p Policy,
        facts: &'r RequestFacts<'_>,
        trace: &mut T,
    ) -> Result<Self, Refusal> {
        trace.enter(Phase::Route);
        let found = match policy.routes().lookup(facts) {
            Ok(found) => found,
            Err(rejection) => return Err(Refusal::told(None, rejection, trace)),
        };
        Ok(Self { policy, facts, found })
    }

    /// The route.
    pub fn route(&self) -> &'p Route {
        self.found.route
    }

    /// Decides on it at `now`. In lookup mode `revocations` is not asked.
    #[inline]
    pub fn decide<T: Trace>(
        &self,
        proofs: &(impl Proofs + ?Sized),
        revocations: &(impl Revocations + ?Sized),
        now: UnixSeconds,
        trace: &mut T,
    ) -> Decision<'p> {
        self.decide_on(&FromRequest(proofs), revocations, now, trace)
    }

    fn decide_on<T: Trace>(
        &self,
        evidence: &impl Evidence,
        revocations: &(impl Revocations + ?Sized),
        now: UnixSeconds,
        trace: &mut T,
    ) -> Decision<'p> {
        let inquiry = Inquiry {
            policy: self.policy,
            facts: self.facts,
            revocations,
            now,
        };
        match inquiry.judge(evidence, &self.found, trace) {
            Ok(Judged::Permitted(permit)) => Decision::Permit(permit),
            Ok(Judged::Unasked(pending)) => Decision::Pending(pending),
            Err(rejection) => Decision::Refuse(Refusal::told(Some(self.found.route.id), rejection, trace)),
        }
    }
}

impl Refusal {
    fn told<T: Trace>(route: Option<RouteId>, rejection: Rejection, trace: &mut T) -> Self {
        trace.step(|| Step::new(rejection.reason.code(), Outcome::Refused, rejection.cause.clone()));
        Self { route, rejection }
    }
}

/// The one credential of the request, proved by the shell's [`Proofs`].
struct FromRequest<'p, P: ?Sized>(&'p P);

impl<P: Proofs + ?Sized> Evidence for FromRequest<'_, P> {
    fn proof<'r, T: Trace>(
        &self,
        policy: &Policy,
        facts: &'r RequestFacts<'_>,
        accepted: CredentialKinds,
        trace: &mut T,
    ) -> Result<Option<Proof<'r>>, Rejection> {
        let Some(candidate) = Candidate::find(facts, accepted)? else {
            return Ok(None);
        };
        trace.enter(Phase::Proof);
        // Those bytes were read before they were proved: they need not be read again.
        if let Candidate::Bearer(bytes) = &candidate
            && let Some(token) = self.0.remembered(bytes)
        {
            return Ok(Some(Proof::Token(token)));
        }
        match candidate.read()? {
            Credential::Bearer(token) => self.0.prove(policy, token).map(Proof::Token).map(Some),
            Credential::ApiKey(key) => Ok(Some(Proof::ApiKey(key))),
            Credential::Certificate(certificate) => Ok(Some(Proof::Certificate(certificate))),
        }
    }
}

/// All that a decision looks at.
struct Inquiry<'p, 'i, R: ?Sized> {
    policy: &'p Policy,
    facts: &'i RequestFacts<'i>,
    revocations: &'i R,
    now: UnixSeconds,
}

/// How far a request got that was not refused.
enum Judged<'p> {
    Permitted(Permit),
    Unasked(Box<Pending<'p>>),
}

/// Who asks.
enum Asker {
    /// Nobody who says so, on a route that lets that be.
    Anonymous,
    /// Somebody with a credential that holds now.
    Live(LivePrincipal),
    /// A user whose token would hold, if only it is not revoked: the store is to be asked.
    Unasked(Arc<VerifiedToken>, LookupKeys),
}

impl<'p, R: Revocations + ?Sized> Inquiry<'p, '_, R> {
    fn judge<T: Trace>(
        &self,
        evidence: &impl Evidence,
        found: &RouteMatch<'p, '_>,
        trace: &mut T,
    ) -> Result<Judged<'p>, Rejection> {
        let rest = self.rest();
        let route = found.route;
        trace.step(|| Step::new(route.name.clone(), Outcome::Hit, "the most specific route").at(route.place));
        let rewritten = self.rewritten(route)?;
        if let Some(target) = &rewritten {
            trace.step(|| {
                let detail = format!("forwarded as {}", String::from_utf8_lossy(target));
                Step::new("rewrite", Outcome::Hit, detail).at(route.place)
            });
        }
        if route.access == Access::Public {
            trace.step(|| {
                Step::new("access", Outcome::Hit, "public: credentials are not looked at").at(route.place)
            });
            return rest
                .permit_on(route, None, rewritten, trace)
                .map(Judged::Permitted);
        }
        let principal = match self.asker(route, evidence, trace)? {
            Asker::Anonymous => None,
            Asker::Live(principal) => Some(principal),
            Asker::Unasked(token, keys) => {
                let pending = Pending::new(self.policy, route, token, keys, &found.params, rewritten);
                return Ok(Judged::Unasked(Box::new(pending)));
            }
        };
        rest.check_rules(route, principal.as_ref(), &found.params, trace)?;
        rest.permit_on(route, principal, rewritten, trace)
            .map(Judged::Permitted)
    }

    fn rewritten(&self, route: &Route) -> Result<Option<Box<[u8]>>, Rejection> {
        let Some(rewrite) = &route.rewrite else {
            return Ok(None);
        };
        let target = rewrite.apply(self.facts.judged_path(), self.facts.query())?;
        Ok(Some(target.into()))
    }

    fn rest(&self) -> Rest<'p> {
        Rest { policy: self.policy }
    }

    fn asker<T: Trace>(
        &self,
        route: &Route,
        evidence: &impl Evidence,
        trace: &mut T,
    ) -> Result<Asker, Rejection> {
        trace.enter(Phase::Credential);
        let Some(proof) = evidence.proof(self.policy, self.facts, route.credentials, trace)? else {
            if route.access == Access::Optional {
                trace.step(|| Step::new("access", Outcome::Hit, "optional: anonymous").at(route.place));
                return Ok(Asker::Anonymous);
            }
            return Err(Rejection::new(
                Reason::NoCredential,
                "the request has no credential",
            ));
        };
        match proof {
            Proof::Token(token) => self.user(route, token, trace),
            Proof::ApiKey(key) => self.service(route, &key, trace).map(Asker::Live),
            Proof::Certificate(certificate) => self.certified(route, certificate, trace).map(Asker::Live),
        }
    }

    fn user<T: Trace>(
        &self,
        route: &Route,
        token: Arc<VerifiedToken>,
        trace: &mut T,
    ) -> Result<Asker, Rejection> {
        self.check_issuer_and_times(route, &token, trace)?;
        trace.enter(Phase::Revocation);
        if let Some(lookup) = self.policy.lookup() {
            let keys = lookup.keys(&token)?;
            return Ok(Asker::Unasked(token, keys));
        }
        let standing = self.revocations.standing(&token, self.now);
        self.rest().check_standing(route, standing, trace)?;
        Ok(Asker::Live(LivePrincipal(Principal::User(token))))
    }

    fn check_issuer_and_times<T: Trace>(
        &self,
        route: &Route,
        token: &VerifiedToken,
        trace: &mut T,
    ) -> Result<(), Rejection> {
        let issuer = self.policy.issuers().get(token.issuer());
        let Some(issuer) = issuer.filter(|issuer| route.issuers.contains(issuer.id)) else {
            return Err(Rejection::new(
                Reason::IssuerNotAccepted,
                "the route does not accept the token's issuer",
            ));
        };
        trace.step(|| {
            let detail = format!("the route accepts tokens of {}", issuer.name());
            Step::new("issuers", Outcome::Hit, detail).at(route.place)
        });
        token.check_times(self.now, issuer.leeway)?;
        trace.step(|| {
            let left = token.expires_at().0.saturating_sub(self.now.0);
            let detail = format!("exp in {left} s, leeway {:?}", issuer.leeway);
            Step::new("times", Outcome::Hit, detail).at(issuer.place)
        });
        Ok(())
    }
}

impl Permit {
    /// The route.
    pub fn route(&self) -> RouteId {
        self.route
    }

    /// Where the request goes.
    pub fn upstream(&self) -> UpstreamId {
        self.upstream
    }

    /// What is forwarded instead of the target that was sent, where the route rewrites it.
    pub fn rewritten_target(&self) -> Option<&[u8]> {
        self.target.as_deref()
    }

    /// Whoever asks; nothing on public routes and for anonymous requests.
    pub fn principal(&self) -> Option<&Principal> {
        self.identity.principal()
    }

    /// Whether the gateway's own credentials go on to the upstream.
    pub fn forward_credentials(&self) -> bool {
        self.forward_credentials
    }

    /// What is stripped from the header section, and what is said in it.
    pub fn identity_headers(&self) -> &IdentityHeaders {
        &self.identity
    }

    /// Strips, then sets: see [`IdentityHeaders::apply_to`].
    pub fn apply_to(&self, headers: &mut impl HeaderSink) {
        self.identity.apply_to(headers);
    }
}
