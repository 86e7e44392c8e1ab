//! The key that signs, the one that will, and the public halves of those that did: what the key set
//! (RFC 7517) is made of.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use durward_contract::{ACCESS_TOKEN_TYPE, AccessTokenClaims, UnixSeconds};
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};

use crate::config::SigningAlgorithm;
use crate::secret::Secret;
use crate::tokens::SigningError;

/// Most keys that are published beside the one that signs.
pub(crate) const MAX_RETIRING_KEYS: usize = 8;

/// A private key with its public half.
pub(crate) struct SigningKey {
    header: Header,
    key: EncodingKey,
    jwk: Jwk,
}

/// A key that is published and does not sign yet.
#[derive(Clone, Debug)]
pub(crate) struct AnnouncedKey {
    /// From then on it signs.
    pub signs_from: UnixSeconds,
    pub key: Arc<SigningKey>,
}

/// The public half of a key that signs no more. Published until its last token has expired.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetiringKey {
    /// From then on no token of it is valid.
    pub until: UnixSeconds,
    pub jwk: Jwk,
}

/// All keys that are published.
#[derive(Debug)]
pub(crate) struct KeyRing {
    pub signing: Arc<SigningKey>,
    pub announced: Option<AnnouncedKey>,
    pub retiring: Vec<RetiringKey>,
    jwks: Arc<Vec<u8>>,
}

impl SigningKey {
    /// Reads a PKCS#8 key. Its `kid` is its thumbprint (RFC 7638).
    pub fn new(algorithm: SigningAlgorithm, pkcs8: &[u8]) -> Result<Self, SigningError> {
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
        let header = Header {
            typ: Some(ACCESS_TOKEN_TYPE.to_owned()),
            kid: Some(kid),
            ..Header::new(algorithm)
        };
        Ok(Self { header, key, jwk })
    }

    /// The key's id.
    pub fn kid(&self) -> &str {
        self.header.kid.as_deref().unwrap_or_default()
    }

    /// Signs a token.
    pub fn sign(&self, claims: &AccessTokenClaims) -> Result<Secret, SigningError> {
        Ok(Secret::new(jsonwebtoken::encode(
            &self.header,
            claims,
            &self.key,
        )?))
    }

    /// The key once it signs no more.
    pub fn retired(&self, until: UnixSeconds) -> RetiringKey {
        RetiringKey {
            until,
            jwk: self.jwk.clone(),
        }
    }
}

impl RetiringKey {
    /// The `alg` of its tokens.
    pub fn algorithm(&self) -> Option<String> {
        self.jwk
            .common
            .key_algorithm
            .map(|algorithm| algorithm.to_string())
    }

    /// The key's id.
    pub fn kid(&self) -> &str {
        self.jwk.common.key_id.as_deref().unwrap_or_default()
    }
}

impl KeyRing {
    /// Puts keys together.
    pub fn new(
        signing: Arc<SigningKey>,
        announced: Option<AnnouncedKey>,
        retiring: Vec<RetiringKey>,
    ) -> Result<Self, SigningError> {
        let mut keys = vec![signing.jwk.clone()];
        keys.extend(announced.iter().map(|announced| announced.key.jwk.clone()));
        keys.extend(retiring.iter().map(|key| key.jwk.clone()));
        let jwks = serde_json::to_vec(&JwkSet { keys }).map_err(jsonwebtoken::errors::Error::from)?;
        Ok(Self {
            signing,
            announced,
            retiring,
            jwks: Arc::new(jwks),
        })
    }

    /// The key set.
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

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid())
            .finish_non_exhaustive()
    }
}
