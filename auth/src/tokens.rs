//! Access tokens (RFC 9068).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use durward_contract::{AccessTokenClaims, UnixSeconds};
use parking_lot::RwLock;

use crate::key_ring::KeyRing;
use crate::random;
use crate::secret::Secret;

/// The client of whoever logs in with a password. No user id looks like it (RFC 9700 section 4.15).
pub(crate) const FIRST_PARTY: &str = "first-party";

/// Whom a token is for, as read in the transaction that issues it.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub user_id: String,
    pub epoch: u32,
    pub roles: Vec<String>,
    pub client_id: String,
    pub session_id: String,
    pub session_expires_at: UnixSeconds,
}

/// Makes access tokens.
pub(crate) struct TokenIssuer {
    issuer: String,
    audience: String,
    ttl: Duration,
    keys: RwLock<Arc<KeyRing>>,
}

/// Why tokens cannot be made. Names no key.
#[derive(Debug, thiserror::Error)]
#[error("the signing key cannot be used: {0}")]
pub struct SigningError(#[from] jsonwebtoken::errors::Error);

impl TokenIssuer {
    /// Makes tokens with the ring's signing key.
    pub fn new(issuer: &str, audience: &str, ttl: Duration, keys: KeyRing) -> Self {
        Self {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            ttl,
            keys: RwLock::new(Arc::new(keys)),
        }
    }

    /// The claims of a new token. It does not outlive its session.
    pub fn claims(&self, grant: Grant, now: UnixSeconds) -> AccessTokenClaims {
        AccessTokenClaims {
            iss: self.issuer.clone(),
            sub: grant.user_id,
            aud: self.audience.clone(),
            exp: now.plus(self.ttl).min(grant.session_expires_at),
            iat: now,
            jti: random::token_id(),
            client_id: grant.client_id,
            sid: grant.session_id,
            epoch: grant.epoch,
            roles: grant.roles,
        }
    }

    /// Signs a token.
    pub fn sign(&self, claims: &AccessTokenClaims) -> Result<Secret, SigningError> {
        self.keys().signing.sign(claims)
    }

    /// The longest that a token lives.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The keys as they are now.
    pub fn keys(&self) -> Arc<KeyRing> {
        Arc::clone(&self.keys.read())
    }

    /// Signs with these keys from now on. Whoever verifies must know them already.
    pub fn replace_keys(&self, keys: Arc<KeyRing>) {
        *self.keys.write() = keys;
    }
}

impl fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenIssuer")
            .field("issuer", &self.issuer)
            .field("keys", &self.keys())
            .finish_non_exhaustive()
    }
}
