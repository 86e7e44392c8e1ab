//! The proof that a token is what it says: its form, its signature by a key that is bound to its
//! issuer and to one algorithm, its type, and the shape of its claims.
//!
//! Nothing here depends on the time, so that a proof may be kept; [`crate::decide`] checks the
//! token's times, revocation and rules on every request. The JWT library is asked for the signature
//! only: every other check is ours (RFC 8725).

use std::sync::Arc;
use std::time::Duration;

use durward_contract::UnixSeconds;

use crate::identity_headers::IdentityValues;
use crate::issuer::{Issuer, IssuerId};
use crate::json::{Json, Object};
use crate::key_set::{Key, KeySet};
use crate::revocation::{RevocationDigests, RevocationIds};
use crate::trace::{NoTrace, Outcome, Step, Trace};
use crate::{Policy, Reason, Rejection};

use claims::Shape;
use compact::Compact;

mod claims;
mod compact;
#[cfg(test)]
mod vectors;

pub use claims::MAX_ID_BYTES;
pub use compact::MAX_TOKEN_BYTES;

/// Knows each issuer's keys.
pub trait Keys {
    /// The keys of an issuer; nothing where none have been read yet.
    fn key_set(&self, issuer: IssuerId) -> Option<Arc<KeySet>>;
}

/// Why a token is not proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofError {
    /// The refusal.
    pub rejection: Rejection,
    /// The issuer whose keys do not include the one that the token names: reading them again may
    /// help. The token's claims are unproved then, so the shell must bound how often it does that.
    pub unknown_key: Option<IssuerId>,
}

impl From<Rejection> for ProofError {
    fn from(rejection: Rejection) -> Self {
        Self {
            rejection,
            unknown_key: None,
        }
    }
}

/// A token whose signature, issuer, type and claims were proved, made by [`prove`] alone.
///
/// It belongs to the [`Policy`] that it was proved under: a cache must not carry it over to another
/// policy, nor past a change of its issuer's keys ([`VerifiedToken::key_generation`]).
#[derive(Clone, Debug)]
pub struct VerifiedToken {
    issuer: IssuerId,
    claims: Object,
    shape: Shape,
    key_generation: u64,
    digests: RevocationDigests,
    identity: IdentityValues,
}

/// Proves a token: `token` is what followed `Bearer`.
///
/// The issuer is chosen by the token's `iss`, which is unproved at that point; from there on
/// everything is bound to that issuer's configuration and keys.
pub fn prove(policy: &Policy, token: &str, keys: &dyn Keys) -> Result<VerifiedToken, ProofError> {
    prove_traced(policy, token, keys, &mut NoTrace)
}

pub(crate) fn prove_traced<T: Trace>(
    policy: &Policy,
    token: &str,
    keys: &dyn Keys,
    trace: &mut T,
) -> Result<VerifiedToken, ProofError> {
    let compact = Compact::parse(token)?;
    trace.step(|| Step::new("form", Outcome::Hit, "a JWS in compact form"));
    let claims = compact.claims()?;
    let issuer = issuer_of(policy, &claims, trace)?;
    check_type(&compact, issuer)?;
    trace.step(|| {
        Step::new("type", Outcome::Hit, compact.typ().unwrap_or_default().to_owned()).at(issuer.place)
    });
    check_algorithm(&compact, issuer)?;
    let Some(set) = keys.key_set(issuer.id) else {
        let cause = format!("the keys of {} have not been read yet", issuer.name());
        return Err(Rejection::new(Reason::KeysUnavailable, cause).into());
    };
    let key = key_of(&compact, issuer, &set)?;
    trace.step(|| Step::new("key", Outcome::Hit, describe_key(&compact, key)).at(issuer.place));
    if !key.verifies(compact.message(), compact.signature()) {
        let cause = format!("the signature is not that of {}", issuer.name());
        return Err(Rejection::new(Reason::BadSignature, cause).into());
    }
    trace.step(|| Step::new("signature", Outcome::Hit, "it is the key's"));
    let token = VerifiedToken::new(policy, issuer, claims, key.kid(), set.generation())?;
    trace.step(|| {
        Step::new(
            "claims",
            Outcome::Hit,
            "all required ones are there and well-formed",
        )
        .at(issuer.place)
    });
    Ok(token)
}

fn issuer_of<'p, T: Trace>(
    policy: &'p Policy,
    claims: &Object,
    trace: &mut T,
) -> Result<&'p Issuer, Rejection> {
    let name = match claims.get(durward_contract::claim::ISSUER) {
        Some(Json::Text(name)) => name,
        Some(_) => {
            return Err(Rejection::new(
                Reason::ClaimInvalid,
                "claim `iss` is not a string",
            ));
        }
        None => return Err(Rejection::new(Reason::ClaimMissing, "claim `iss` is absent")),
    };
    let Some(issuer) = policy.issuers().by_issuer(name) else {
        return Err(Rejection::new(
            Reason::UnknownIssuer,
            format!("no issuer {} is configured", quoted(name)),
        ));
    };
    trace.step(|| Step::new("issuer", Outcome::Hit, name.clone()).at(issuer.place));
    Ok(issuer)
}

/// What a stranger wrote, fit for a log line: escaped, and not long.
fn quoted(text: &str) -> String {
    const MOST: usize = 64;
    let short: String = text.chars().take(MOST).collect();
    let dots = if short.len() < text.len() { "..." } else { "" };
    format!("{short:?}{dots}")
}

/// RFC 8725 section 3.11: a token of another kind is no access token.
fn check_type(compact: &Compact<'_>, issuer: &Issuer) -> Result<(), Rejection> {
    let wanted = &issuer.token_types;
    match compact.typ() {
        Some(typ) if wanted.iter().any(|wanted| wanted.is_said_by(typ)) => Ok(()),
        Some(typ) => {
            let cause = format!("typ {} is not what {} requires", quoted(typ), issuer.name());
            Err(Rejection::new(Reason::TokenType, cause))
        }
        None => Err(Rejection::new(
            Reason::TokenType,
            "typ is absent, or not a string",
        )),
    }
}

fn check_algorithm(compact: &Compact<'_>, issuer: &Issuer) -> Result<(), Rejection> {
    if issuer.algorithms.contains(&compact.algorithm()) {
        return Ok(());
    }
    let cause = format!("alg {} is not one of {}", compact.algorithm(), issuer.name());
    Err(Rejection::new(Reason::TokenAlgorithm, cause))
}

fn key_of<'k>(compact: &Compact<'_>, issuer: &Issuer, set: &'k KeySet) -> Result<&'k Key, ProofError> {
    let Some(key) = set.find(compact.kid()) else {
        return Err(match compact.kid() {
            None => Rejection::new(Reason::UnknownKey, "no kid, and the issuer has several keys").into(),
            Some(kid) => ProofError {
                rejection: Rejection::new(
                    Reason::UnknownKey,
                    format!("kid unknown: {}, issuer {}", quoted(kid), issuer.name()),
                ),
                unknown_key: Some(issuer.id),
            },
        });
    };
    if key.algorithm() != compact.algorithm() {
        let cause = format!(
            "alg {}, but the key is for {}",
            compact.algorithm(),
            key.algorithm()
        );
        return Err(Rejection::new(Reason::TokenAlgorithm, cause).into());
    }
    Ok(key)
}

fn describe_key(compact: &Compact<'_>, key: &Key) -> String {
    match compact.kid() {
        Some(kid) => format!("kid {}, {}", quoted(kid), key.algorithm()),
        None => format!("the issuer's one key, {}", key.algorithm()),
    }
}

impl VerifiedToken {
    /// Claims that are known to be the issuer's. Private to the crate: [`prove`] calls it when the
    /// signature is proved, and `explain` for claims that its caller assumes, which yields no permit.
    pub(crate) fn new(
        policy: &Policy,
        issuer: &Issuer,
        claims: Object,
        signing_key: Option<&str>,
        key_generation: u64,
    ) -> Result<Self, Rejection> {
        let shape = Shape::check(&claims, issuer)?;
        let digests = RevocationDigests::new(
            policy.digest_key(),
            &issuer.issuer,
            RevocationIds {
                subject: &shape.subject,
                token: shape.token_id.as_deref(),
                session: shape.session_id.as_deref(),
                client: shape.client_id.as_deref(),
                signing_key,
            },
        );
        Ok(Self {
            issuer: issuer.id,
            identity: policy
                .identity()
                .values(&claims, issuer.identity_prefix.as_deref()),
            claims,
            shape,
            key_generation,
            digests,
        })
    }

    /// Who issued it.
    pub fn issuer(&self) -> IssuerId {
        self.issuer
    }

    /// `sub`: the user, within the issuer.
    pub fn subject(&self) -> &str {
        &self.shape.subject
    }

    /// Every claim.
    pub fn claims(&self) -> &Object {
        &self.claims
    }

    /// `exp`, rounded down: it is not valid from then on, leeway aside.
    pub fn expires_at(&self) -> UnixSeconds {
        self.shape.expires_at
    }

    /// `iat`, rounded down.
    pub fn issued_at(&self) -> UnixSeconds {
        self.shape.issued_at
    }

    /// `nbf`, rounded up, if it has one.
    pub fn not_before(&self) -> Option<UnixSeconds> {
        self.shape.not_before
    }

    /// The user's epoch when it was issued; own tokens always have one, others never.
    pub fn epoch(&self) -> Option<u32> {
        self.shape.epoch
    }

    /// `jti`, if it has one.
    pub fn token_id(&self) -> Option<&str> {
        self.shape.token_id.as_deref()
    }

    /// `sid`, if it has one.
    pub fn session_id(&self) -> Option<&str> {
        self.shape.session_id.as_deref()
    }

    /// `client_id`, if it has one.
    pub fn client_id(&self) -> Option<&str> {
        self.shape.client_id.as_deref()
    }

    /// The reading of the issuer's keys that proved it.
    pub fn key_generation(&self) -> u64 {
        self.key_generation
    }

    /// The keys by which it can be revoked.
    pub fn digests(&self) -> &RevocationDigests {
        &self.digests
    }

    /// Roughly what it occupies, in bytes, for a cache that is bounded in bytes.
    pub fn memory_bytes(&self) -> usize {
        let header_bytes = |headers: &[(http::HeaderName, http::HeaderValue)]| {
            headers
                .iter()
                .map(|(name, value)| size_of_val(name) + size_of_val(value) + value.len())
                .sum()
        };
        let identity = match &self.identity {
            Ok(headers) => header_bytes(headers),
            Err(rejection) => rejection.cause.len(),
        };
        size_of::<Self>() + self.claims.heap_bytes() + self.shape.heap_bytes() + identity
    }

    pub(crate) fn identity_values(&self) -> &IdentityValues {
        &self.identity
    }

    /// Whether its times hold at `now`, by the issuer's leeway (RFC 7519 sections 4.1.4 to 4.1.6).
    pub(crate) fn check_times(&self, now: UnixSeconds, leeway: Duration) -> Result<(), Rejection> {
        let latest_start = now.plus(leeway);
        if now >= self.expires_at().plus(leeway) {
            return Err(Rejection::new(Reason::TokenExpired, "exp has passed"));
        }
        if self.not_before().is_some_and(|start| start > latest_start) {
            return Err(Rejection::new(Reason::TokenNotYetValid, "nbf lies ahead"));
        }
        if self.issued_at() > latest_start {
            return Err(Rejection::new(Reason::TokenNotYetValid, "iat lies ahead"));
        }
        Ok(())
    }
}
