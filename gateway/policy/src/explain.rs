//! Why: any decision again, step by step, by the same [`crate::decide`]. Yields words, never a
//! [`crate::Permit`], and never a token's bytes.

use std::borrow::Cow;
use std::sync::Arc;

use durward_contract::{UnixSeconds, claim};
use serde::Serialize;

use crate::credential::{Credential, CredentialKinds};
use crate::decide::{Decision, Evidence, Pending, Permit, Proof, Refusal, decide_on};
use crate::json::{self, Json, Limits, Object};
use crate::lookup::{LookupAnswer, LookupKeys};
use crate::revocation::Revocations;
use crate::trace::{Outcome, Phase, Step, Trace};
use crate::verify::{Keys, VerifiedToken, prove_traced};
use crate::{Issuer, Policy, Principal, Reason, Rejection, RequestFacts};

/// How long a token is taken to live whose `exp` is not given.
const ASSUMED_LIFETIME_SECONDS: i64 = 60;

/// Whose request it is taken to be.
#[derive(Clone, Copy)]
pub enum ExplainCredential<'e> {
    /// The request's own credential, proved with these keys.
    FromRequest {
        /// The running keys.
        keys: &'e dyn Keys,
    },
    /// A token with these claims (a JSON object), as if its signature had been proved. Claims that
    /// every token has and that are absent here are filled in.
    AssumedClaims(&'e str),
}

/// A decision in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Whether the request would pass.
    pub verdict: Verdict,
    /// The status of the refusal; nothing where the upstream answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The code of the refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Its cause, as the log has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The pattern of the route that was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The name of the upstream that it would go to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// The subject of the principal, where it is a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The name of the principal, where it is a service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The identity headers that would be set.
    pub identity_headers: Vec<(String, String)>,
    /// Every step, in order.
    pub steps: Vec<ExplainedStep>,
}

/// The end of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The request would go to the upstream.
    Permit,
    /// The request would be refused.
    Refuse,
}

/// A step and its phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedStep {
    /// The phase; nothing before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The step.
    #[serde(flatten)]
    pub step: Step,
}

/// An explanation, or what it needs to know of the store first.
#[derive(Debug)]
pub enum Explaining<'p> {
    /// All is said.
    Done(Explanation),
    /// In lookup mode the store is to be asked, or not.
    Pending(Box<PendingExplanation<'p>>),
}

/// An explanation that waits for the store's answer. Yields words, as every explanation.
#[derive(Debug)]
pub struct PendingExplanation<'p> {
    policy: &'p Policy,
    pending: Box<Pending<'p>>,
    record: Record,
}

/// Explains what [`crate::decide`] would say of the request at `now`.
pub fn explain<'p>(
    policy: &'p Policy,
    facts: &RequestFacts<'_>,
    credential: ExplainCredential<'_>,
    revocations: &(impl Revocations + ?Sized),
    now: UnixSeconds,
) -> Explaining<'p> {
    let mut record = Record::default();
    let decision = match credential {
        ExplainCredential::FromRequest { keys } => {
            decide_on(policy, facts, &Proved { keys }, revocations, now, &mut record)
        }
        ExplainCredential::AssumedClaims(claims) => decide_on(
            policy,
            facts,
            &Assumed { claims, now },
            revocations,
            now,
            &mut record,
        ),
    };
    let decided = match decision {
        Decision::Permit(permit) => Ok(permit),
        Decision::Refuse(refusal) => Err(refusal),
        Decision::Pending(pending) => {
            return Explaining::Pending(Box::new(PendingExplanation {
                policy,
                pending,
                record,
            }));
        }
    };
    Explaining::Done(Explanation::of(policy, &decided, record))
}

impl PendingExplanation<'_> {
    /// What the store is to be asked for.
    pub fn keys(&self) -> &LookupKeys {
        self.pending.keys()
    }

    /// Explains, now that the store has answered or failed to.
    pub fn conclude(mut self, answer: &LookupAnswer) -> Explanation {
        let decided = self.pending.conclude(answer, &mut self.record);
        Explanation::of(self.policy, &decided, self.record)
    }

    /// Explains what would be if the store had none of the keys, and says that it was not asked.
    pub fn conclude_unasked(mut self) -> Explanation {
        let decided = self.pending.conclude_unasked(&mut self.record);
        Explanation::of(self.policy, &decided, self.record)
    }
}

impl Explaining<'_> {
    /// The explanation without the store.
    pub fn unasked(self) -> Explanation {
        match self {
            Self::Done(explanation) => explanation,
            Self::Pending(pending) => pending.conclude_unasked(),
        }
    }
}

impl Explanation {
    /// Of a request that is refused before it is decided on, because it is not clean HTTP.
    pub fn of_unclean(rejection: &Rejection) -> Self {
        let cause = rejection.cause.clone();
        let step = ExplainedStep {
            phase: None,
            step: Step::new(rejection.reason.code(), Outcome::Refused, cause),
        };
        Self::refused(rejection, None, vec![step])
    }

    fn of(policy: &Policy, decided: &Result<Permit, Refusal>, record: Record) -> Self {
        match decided {
            Ok(permit) => Self::of_permit(policy, permit, record.steps),
            Err(refusal) => Self::of_refusal(policy, refusal, record.steps),
        }
    }

    fn of_refusal(policy: &Policy, refusal: &Refusal, steps: Vec<ExplainedStep>) -> Self {
        let route = refusal
            .route
            .and_then(|id| policy.route(id))
            .map(|route| route.name.to_string());
        Self::refused(&refusal.rejection, route, steps)
    }

    fn refused(rejection: &Rejection, route: Option<String>, steps: Vec<ExplainedStep>) -> Self {
        Self {
            verdict: Verdict::Refuse,
            status: Some(rejection.reason.status().as_u16()),
            reason: Some(rejection.reason.code()),
            cause: Some(rejection.cause.clone().into_owned()),
            route,
            upstream: None,
            subject: None,
            service: None,
            identity_headers: Vec::new(),
            steps,
        }
    }

    fn of_permit(policy: &Policy, permit: &Permit, steps: Vec<ExplainedStep>) -> Self {
        let headers = permit.identity_headers().iter();
        let (user, service) = (
            permit.principal().and_then(Principal::user),
            permit.principal().and_then(Principal::service),
        );
        let spoken = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Self {
            verdict: Verdict::Permit,
            status: None,
            reason: None,
            cause: None,
            route: policy.route(permit.route()).map(|route| route.name.to_string()),
            upstream: policy.upstream_name(permit.upstream()).map(str::to_owned),
            subject: user.map(|token| token.subject().to_owned()),
            service: service.map(|key| key.service().to_owned()),
            identity_headers: headers
                .map(|(name, value)| (name.to_string(), spoken(value)))
                .collect(),
            steps,
        }
    }
}

/// Writes every step down.
#[derive(Debug, Default)]
struct Record {
    phase: Option<Phase>,
    steps: Vec<ExplainedStep>,
}

impl Trace for Record {
    fn enter(&mut self, phase: Phase) {
        self.phase = Some(phase);
    }

    fn step(&mut self, make: impl FnOnce() -> Step) {
        self.steps.push(ExplainedStep {
            phase: self.phase,
            step: make(),
        });
    }
}

/// The request's own credential, proved before the eyes of the trace.
struct Proved<'e> {
    keys: &'e dyn Keys,
}

impl Evidence for Proved<'_> {
    fn proof<'r, T: Trace>(
        &self,
        policy: &Policy,
        facts: &'r RequestFacts<'_>,
        accepted: CredentialKinds,
        trace: &mut T,
    ) -> Result<Option<Proof<'r>>, Rejection> {
        let proof = match Credential::find(facts, accepted)? {
            None => return Ok(None),
            Some(Credential::Bearer(token)) => {
                trace.step(|| Step::new("authorization", Outcome::Hit, "one Bearer token"));
                trace.enter(Phase::Proof);
                let token = prove_traced(policy, token, self.keys, trace).map_err(|error| error.rejection)?;
                Proof::Token(Arc::new(token))
            }
            Some(Credential::ApiKey(key)) => {
                trace.step(|| Step::new("x-api-key", Outcome::Hit, "one API key"));
                trace.enter(Phase::Proof);
                trace.step(|| {
                    let detail = format!("form and checksum are right, id {}", key.id());
                    Step::new("form", Outcome::Hit, detail)
                });
                Proof::ApiKey(key)
            }
            Some(Credential::Certificate(certificate)) => {
                trace.step(|| Step::new("client certificate", Outcome::Hit, "proved by the handshake"));
                trace.enter(Phase::Proof);
                Proof::Certificate(certificate)
            }
        };
        Ok(Some(proof))
    }
}

/// A token that nobody signed.
struct Assumed<'e> {
    claims: &'e str,
    now: UnixSeconds,
}

impl Evidence for Assumed<'_> {
    fn proof<'r, T: Trace>(
        &self,
        policy: &Policy,
        _facts: &'r RequestFacts<'_>,
        accepted: CredentialKinds,
        trace: &mut T,
    ) -> Result<Option<Proof<'r>>, Rejection> {
        if !accepted.bearer {
            return Err(Rejection::new(
                Reason::CredentialNotAccepted,
                "the route does not accept tokens, and claims are a token's",
            ));
        }
        trace.step(|| Step::new("credential", Outcome::Skipped, "the claims are assumed"));
        trace.enter(Phase::Proof);
        let mut claims = json::parse_object(self.claims.as_bytes(), Limits::TOKEN).map_err(|error| {
            Rejection::new(
                Reason::TokenMalformed,
                format!("the assumed claims are not accepted: {error}"),
            )
        })?;
        let issuer = self.issuer(policy, &mut claims)?;
        let filled = self.fill_in(&mut claims, issuer);
        trace.step(|| {
            let detail = match filled.as_slice() {
                [] => Cow::Borrowed("no claim was filled in"),
                names => Cow::Owned(format!("filled in: {}", names.join(", "))),
            };
            Step::new("signature", Outcome::Skipped, detail).at(issuer.place)
        });
        VerifiedToken::new(policy, issuer, claims, None, 0).map(|token| Some(Proof::Token(Arc::new(token))))
    }
}

impl Assumed<'_> {
    /// The issuer that the claims name; the only one, where they name none.
    fn issuer<'p>(&self, policy: &'p Policy, claims: &mut Object) -> Result<&'p Issuer, Rejection> {
        let issuer = match claims.get(claim::ISSUER) {
            Some(named) => named.as_text().and_then(|name| policy.issuers().by_issuer(name)),
            None if policy.issuers().len() == 1 => policy.issuers().iter().next(),
            None => {
                return Err(Rejection::new(
                    Reason::ClaimMissing,
                    "name an `iss`: there are several issuers",
                ));
            }
        };
        issuer.ok_or_else(|| Rejection::new(Reason::UnknownIssuer, "`iss` is no configured issuer"))
    }

    /// Adds what every token of the issuer has; says which.
    fn fill_in(&self, claims: &mut Object, issuer: &Issuer) -> Vec<&'static str> {
        let text = |text: &str| Json::Text(text.to_owned());
        let mut defaults = vec![
            (claim::ISSUER, text(&issuer.issuer)),
            (
                claim::AUDIENCE,
                text(issuer.audience.first().map_or("", String::as_str)),
            ),
            (claim::ISSUED_AT, Json::Integer(self.now.0)),
            (
                claim::EXPIRES_AT,
                Json::Integer(self.now.0.saturating_add(ASSUMED_LIFETIME_SECONDS)),
            ),
        ];
        let ids = [claim::TOKEN_ID, claim::CLIENT_ID, claim::SESSION_ID];
        let required = |name: &&str| issuer.required_claims.iter().any(|required| required == name);
        defaults.extend(
            ids.into_iter()
                .filter(required)
                .map(|name| (name, text("assumed"))),
        );
        if issuer.own {
            // The newest there can be: only what is revoked whatever the epoch refuses it.
            defaults.push((claim::EPOCH, Json::Integer(i64::from(u32::MAX))));
        }
        defaults
            .into_iter()
            .filter_map(|(name, value)| claims.insert_if_absent(name, value).then_some(name))
            .collect()
    }
}
