//! Access tokens (RFC 9068) and the key set that they are checked with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use durward_contract::{ACCESS_TOKEN_TYPE, AccessTokenClaims, UnixSeconds};
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};

use crate::config::SigningAlgorithm;
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
    header: Header,
    key: EncodingKey,
    jwks: Arc<Vec<u8>>,
}

/// Why tokens cannot be made. Names no key.
#[derive(Debug, thiserror::Error)]
#[error("the signing key cannot be used: {0}")]
pub struct SigningError(#[from] jsonwebtoken::errors::Error);

impl TokenIssuer {
    /// Makes tokens with a PKCS#8 key. Its `kid` is its thumbprint (RFC 7638).
    pub fn new(
        issuer: &str,
        audience: &str,
        ttl: Duration,
        algorithm: SigningAlgorithm,
        pkcs8: &[u8],
    ) -> Result<Self, SigningError> {
        let (algorithm, key) = match algorithm {
            SigningAlgorithm::Es256 => (Algorithm::ES256, EncodingKey::from_ec_der(pkcs8)),
            SigningAlgorithm::EdDsa => (Algorithm::EdDSA, EncodingKey::from_ed_der(pkcs8)),
            SigningAlgorithm::Rs256 => (
                Algorithm::RS256,
                EncodingKey::from_rsa_pem(pem(pkcs8).as_bytes())?,
            ),
        };
        let mut jwk = Jwk::from_encoding_key(&key, algorithm)?;
        let kid = jwk.thumbprint(ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(kid.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let jwks =
            serde_json::to_vec(&JwkSet { keys: vec![jwk] }).map_err(jsonwebtoken::errors::Error::from)?;
        let header = Header {
            typ: Some(ACCESS_TOKEN_TYPE.to_owned()),
            kid: Some(kid),
            ..Header::new(algorithm)
        };
        Ok(Self {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            ttl,
            header,
            key,
            jwks: Arc::new(jwks),
        })
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
        Ok(Secret::new(jsonwebtoken::encode(
            &self.header,
            claims,
            &self.key,
        )?))
    }

    /// The longest that a token lives.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The key's id.
    pub fn kid(&self) -> &str {
        self.header.kid.as_deref().unwrap_or_default()
    }

    /// The key set (RFC 7517 section 5).
    pub fn jwks(&self) -> Arc<Vec<u8>> {
        Arc::clone(&self.jwks)
    }
}

/// RFC 7468. As DER, jsonwebtoken takes an RSA key only without its PKCS#8 envelope; as PEM it takes
/// the envelope off itself.
fn pem(pkcs8: &[u8]) -> String {
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in STANDARD.encode(pkcs8).as_bytes().chunks(64) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

impl fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenIssuer")
            .field("issuer", &self.issuer)
            .field("kid", &self.kid())
            .finish_non_exhaustive()
    }
}
