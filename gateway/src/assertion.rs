//! The gateway's signature under who asks: a short JWT, for backends that want proof that a request
//! came through here.
//!
//! It is made from a permit and from nothing else, for one upstream (`aud`) and one principal, and is
//! used again for half of its lifetime: to sign costs more than to decide. It is therefore not bound
//! to a method or path. Whoever has no principal has no assertion.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use durward_policy::{Permit, Policy, Principal, StripSet, canonical};
use http::{HeaderName, HeaderValue};
use quick_cache::sync::Cache;

use crate::clock;
use crate::generation::Generation;

mod config;
mod key;

pub use config::AssertionConfig;
pub(crate) use config::compile_assertion;
use key::AssertionKey;

/// Most assertions that are kept to be used again; each takes less than 1 KiB.
const MAX_KEPT: usize = 8192;

/// What signs, and what was signed a moment ago.
pub(crate) struct Assertions {
    config: AssertionConfig,
    key: AssertionKey,
    /// By generation, since an upstream is a number in each; upstream; and principal.
    kept: Cache<(u64, u32, u128), Arc<Kept>>,
    signed: AtomicU64,
}

struct Kept {
    issued_at: i64,
    value: HeaderValue,
}

impl Assertions {
    /// Reads the key, or makes one where there is none yet.
    pub(crate) fn new(config: &AssertionConfig) -> Result<Self, String> {
        Ok(Self {
            key: AssertionKey::read_or_make(&config.key)?,
            config: config.clone(),
            kept: Cache::new(MAX_KEPT),
            signed: AtomicU64::new(0),
        })
    }

    /// The header that it is sent in.
    pub(crate) fn header(&self) -> &HeaderName {
        &self.config.header
    }

    /// That backends can check it with.
    pub(crate) fn jwks(&self) -> String {
        self.key.jwks()
    }

    /// How many were signed.
    pub(crate) fn signed(&self) -> u64 {
        self.signed.load(Ordering::Relaxed)
    }

    /// The assertion of a permit, made at `wall`; nothing where nobody is proved. Without a value
    /// that was asked for there is an error: the request must not go on as an anonymous one.
    pub(crate) fn of(
        &self,
        generation: &Generation,
        permit: &Permit,
        wall: Duration,
    ) -> Result<Option<HeaderValue>, &'static str> {
        let Some(principal) = permit.principal() else {
            return Ok(None);
        };
        let who = match principal {
            Principal::User(token) => token.digests().user.0,
            Principal::Service(key) => key.revocation().0,
        };
        let now = clock::unix_seconds(wall).0;
        let place = (generation.number, permit.upstream().0, who);
        if let Some(kept) = self.kept.get(&place)
            && self.is_fresh(&kept, now)
        {
            return Ok(Some(kept.value.clone()));
        }
        let value = self.sign(&generation.policy, permit, principal, now)?;
        let kept = Kept {
            issued_at: now,
            value: value.clone(),
        };
        self.kept.insert(place, Arc::new(kept));
        Ok(Some(value))
    }

    /// Used again for half of its lifetime, and not at all once the clock was set back.
    fn is_fresh(&self, kept: &Kept, now: i64) -> bool {
        let half = self.config.lifetime_seconds() / 2;
        (0..half).contains(&now.saturating_sub(kept.issued_at))
    }

    fn sign(
        &self,
        policy: &Policy,
        permit: &Permit,
        principal: &Principal,
        now: i64,
    ) -> Result<HeaderValue, &'static str> {
        let upstream = policy
            .upstream_name(permit.upstream())
            .ok_or("the upstream has no name")?;
        let mut claims = serde_json::Map::new();
        let mut claim = |name: &str, value: serde_json::Value| claims.insert(name.to_owned(), value);
        claim("iss", self.config.issuer.as_str().into());
        claim("aud", upstream.into());
        match principal {
            Principal::User(token) => {
                let issuer = policy
                    .issuers()
                    .get(token.issuer())
                    .ok_or("the user's issuer is not configured")?;
                claim("sub", token.subject().into());
                claim("sub_iss", issuer.issuer.as_str().into());
            }
            // Not as `sub`: nobody must take a service for the user of that name.
            Principal::Service(key) => {
                claim("service", key.service().into());
            }
        }
        claim("iat", now.into());
        claim("exp", now.saturating_add(self.config.lifetime_seconds()).into());
        self.signed.fetch_add(1, Ordering::Relaxed);
        let token = self
            .key
            .sign(&serde_json::Value::Object(claims).to_string())
            .ok_or("the assertion could not be signed")?;
        let mut value = HeaderValue::try_from(token).map_err(|_| "the assertion is no header value")?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl AssertionConfig {
    /// Whether a header of that name could be taken for the assertion's.
    pub fn is_taken_for(&self, name: &str) -> bool {
        canonical(name) == canonical(self.header.as_str())
    }

    /// Reads the key where there is one, as a start would. The error says why it cannot be used.
    pub fn check_key(&self) -> Result<(), String> {
        AssertionKey::check(&self.key)
    }
}

/// The names to keep from an upstream, with the assertion's where there is one.
pub(crate) fn strip_set<'n>(
    names: impl Iterator<Item = &'n str>,
    assertion: Option<&'n HeaderName>,
) -> StripSet {
    StripSet::new(names.chain(assertion.map(HeaderName::as_str)))
}

/// Where a key file is, relative to the configuration file's folder.
fn key_path(base: &Path, path: &str) -> std::path::PathBuf {
    base.join(path)
}
