//! An issuer's keys, each bound to exactly one algorithm (RFC 8725 section 3.1).
//!
//! A set is replaced as a whole, never merged: a key that its issuer no longer publishes is gone.

use jsonwebtoken::DecodingKey;

use crate::issuer::{Algorithm, Issuer, KeySource, KeyType};

mod jwks;
mod material;

/// The most keys in one set.
pub const MAX_KEYS: usize = 64;
/// The longest JWKS or PEM that is read, in bytes; shells need not fetch more.
pub const MAX_KEY_SET_BYTES: usize = crate::json::Limits::KEY_SET.bytes;
/// The longest `kid`, in bytes.
pub const MAX_KID_BYTES: usize = 256;

/// The keys of one issuer, as of one reading.
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    ignored: Vec<String>,
    generation: u64,
}

/// A key that is for one algorithm.
#[derive(Clone)]
pub(crate) struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    material: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            kid,
            algorithm,
            material: _,
        } = self;
        f.debug_struct("Key")
            .field("kid", kid)
            .field("algorithm", algorithm)
            .finish_non_exhaustive()
    }
}

/// Why keys are refused. Says nothing of a key but its `kid`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Longer than [`MAX_KEY_SET_BYTES`].
    #[error("longer than {MAX_KEY_SET_BYTES} bytes")]
    TooLong,
    /// Not a JWKS (RFC 7517 section 5).
    #[error("not a JSON Web Key Set: {0}")]
    NotAKeySet(String),
    /// More than [`MAX_KEYS`].
    #[error("more than {MAX_KEYS} keys")]
    TooManyKeys,
    /// Nothing in it can verify a token of this issuer.
    #[error("no key that can be used for {algorithms}{ignored}")]
    NoKey {
        /// What the issuer may sign with.
        algorithms: String,
        /// What was ignored, and why.
        ignored: String,
    },
    /// Two keys of one `kid`, of whatever type (RFC 7517 section 4.5).
    #[error("two keys have the kid {0:?}")]
    DuplicateKid(String),
    /// A secret or private key where public keys are published.
    #[error("key {0} is not a public key")]
    NotPublic(String),
    /// A key whose members are not what its type asks for.
    #[error("key {key}: {problem}")]
    Malformed {
        /// Which key.
        key: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A key that is too weak to be trusted (RFC 7518 sections 3.2 and 3.3).
    #[error("key {key} is too weak: {problem}")]
    Weak {
        /// Which key.
        key: String,
        /// What it lacks.
        problem: String,
    },
    /// A key without `alg` that the issuer's algorithms do not bind to one.
    #[error("key {key} names no alg and fits several of the issuer's algorithms: configure one of {fits}")]
    Ambiguous {
        /// Which key.
        key: String,
        /// The algorithms that it fits.
        fits: String,
    },
}

impl KeySet {
    /// Reads what the issuer's [`KeySource`] yielded: a JWKS, a PEM or the bytes of a secret. Every
    /// reading has a generation of its own, given by the caller, so that no proof outlives its keys.
    pub fn read(issuer: &Issuer, bytes: &[u8], generation: u64) -> Result<Self, KeySetError> {
        match &issuer.keys {
            KeySource::Own | KeySource::JwksUrl { .. } | KeySource::JwksFile(_) => {
                Self::from_jwks(bytes, issuer, generation)
            }
            KeySource::Pem { algorithm, .. } => Self::from_pem(bytes, *algorithm, generation),
            KeySource::Secret { algorithm, .. } => Self::from_secret(bytes, *algorithm, generation),
        }
    }

    /// Reads a JWKS (RFC 7517). Keys for other uses, of unknown types, or for algorithms that the
    /// issuer does not list are ignored; a key that is weak, malformed, not public, or twice there
    /// refuses the whole set, because whoever publishes that has to know.
    pub fn from_jwks(bytes: &[u8], issuer: &Issuer, generation: u64) -> Result<Self, KeySetError> {
        let (keys, ignored) = jwks::read(bytes, &issuer.algorithms)?;
        if keys.is_empty() {
            let names: Vec<_> = issuer
                .algorithms
                .iter()
                .map(|algorithm| algorithm.name())
                .collect();
            let ignored: String = ignored.iter().map(|reason| format!("; {reason}")).collect();
            return Err(KeySetError::NoKey {
                algorithms: names.join(", "),
                ignored,
            });
        }
        Ok(Self {
            keys,
            ignored,
            generation,
        })
    }

    /// Reads one public key: `PUBLIC KEY` (RFC 5280) or `RSA PUBLIC KEY` (RFC 8017).
    pub fn from_pem(pem: &[u8], algorithm: Algorithm, generation: u64) -> Result<Self, KeySetError> {
        if pem.len() > MAX_KEY_SET_BYTES {
            return Err(KeySetError::TooLong);
        }
        Ok(Self::single(
            material::from_pem(pem, algorithm)?,
            algorithm,
            generation,
        ))
    }

    /// Takes a shared secret, of at least the size of the hash (RFC 7518 section 3.2) and not one byte
    /// over and over, which is a placeholder and no secret.
    pub fn from_secret(secret: &[u8], algorithm: Algorithm, generation: u64) -> Result<Self, KeySetError> {
        let key = || "of the secret".to_owned();
        let KeyType::Secret(least) = algorithm.key_type() else {
            let problem = "the algorithm does not use a secret";
            return Err(KeySetError::Malformed { key: key(), problem });
        };
        if secret.len() < least {
            let problem = format!(
                "{algorithm} needs a secret of {least} bytes, and this has {}",
                secret.len()
            );
            return Err(KeySetError::Weak { key: key(), problem });
        }
        if secret.windows(2).all(|pair| pair[0] == pair[1]) {
            let problem = "it is one byte over and over".to_owned();
            return Err(KeySetError::Weak { key: key(), problem });
        }
        if secret.len() > MAX_KEY_SET_BYTES {
            return Err(KeySetError::TooLong);
        }
        Ok(Self::single(
            DecodingKey::from_secret(secret),
            algorithm,
            generation,
        ))
    }

    fn single(material: DecodingKey, algorithm: Algorithm, generation: u64) -> Self {
        Self {
            keys: vec![Key {
                kid: None,
                algorithm,
                material,
            }],
            ignored: Vec::new(),
            generation,
        }
    }

    /// Which reading this is.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How many keys can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none; never so for a set that was read.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What was ignored, and why; for the log.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// The key that a token's header asks for.
    ///
    /// A key that has a name is found by that name only. A key that has none (a PEM, a secret) is
    /// the one key of its set, and serves tokens with a `kid` as well as those without. A token
    /// without `kid` is never tried against several keys.
    pub(crate) fn find(&self, kid: Option<&str>) -> Option<&Key> {
        if let [only] = self.keys.as_slice()
            && (kid.is_none() || only.kid.is_none())
        {
            return Some(only);
        }
        let kid = kid?;
        self.keys.iter().find(|key| key.kid.as_deref() == Some(kid))
    }
}

impl Key {
    /// Its id, if it has one: by it all that it signed can be revoked.
    pub(crate) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether the signature is this key's over the message. The one thing that the JWT library is
    /// asked for.
    pub(crate) fn verifies(&self, message: &str, signature: &str) -> bool {
        let algorithm = self.algorithm.in_library();
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.material, algorithm)
            .unwrap_or(false)
    }
}
