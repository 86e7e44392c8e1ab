//! API keys of services: made, listed, revoked. The HTTP API and the command line both come through
//! here. A key is acknowledged, like a ban, once every follower has applied it.

use std::sync::Arc;
use std::time::Duration;

use durward_contract::{Bar, RETENTION_SLACK, Target, UnixSeconds};
use durward_policy::{ApiKey, CertificateName, MAX_SCOPES, is_scope, is_service_name};
use serde::Deserialize;

use crate::audit::{self, Action, Actor};
use crate::problem::{Problem, Reason};
use crate::random;
use crate::secret::Secret;
use crate::service::{Inner, detached};
use crate::store::Write;
use crate::store::api_keys::{self, StoredKey};
use crate::store::revocations::{self, PendingEntry};

/// Most keys that are accepted at a time. Every gateway holds all of them in memory.
pub const MAX_LIVE_API_KEYS: i64 = 10_000;
/// How long a key holds where nothing is said.
pub const DEFAULT_API_KEY_TTL: Duration = Duration::from_secs(90 * 24 * 3600);
/// The longest that a key may hold, unless it is said that it never ends.
pub const MAX_API_KEY_TTL: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Largest page of keys.
pub(crate) const MAX_PAGE: u32 = 200;
/// The word for a key without an end.
const NEVER: &str = "never";

/// What a key is to be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewApiKey {
    service: String,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    expires_in: Option<ExpiresIn>,
    /// The name of a client certificate, which is then granted instead of a key.
    #[serde(default)]
    certificate: Option<String>,
}

/// Seconds, or `never`: that a key has no end must be written out.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ExpiresIn {
    Seconds(u64),
    Word(String),
}

/// A key that was made. Its text cannot be shown again.
#[derive(Debug)]
pub(crate) struct MadeApiKey {
    pub stored: StoredKey,
    /// Nothing where a client certificate is granted.
    pub secret: Option<Secret>,
}

impl Inner {
    /// Makes a key.
    pub async fn make_api_key(self: &Arc<Self>, actor: Actor, new: NewApiKey) -> Result<MadeApiKey, Problem> {
        if !is_service_name(&new.service) {
            return Err(Reason::InvalidService.into());
        }
        let scopes = checked_scopes(new.scopes)?;
        let lifetime = lifetime(new.expires_in)?;
        let certificate = match new.certificate {
            None => None,
            Some(name) => Some(CertificateName::parse(&name).ok_or(Reason::InvalidCertificate)?),
        };
        let service = Arc::clone(self);
        detached(async move {
            let mut write = service.store.write().await?;
            service.judge_actor(&mut write, &actor).await?;
            let now = service.clock.now();
            if api_keys::count_live(write.connection(), now).await? >= MAX_LIVE_API_KEYS {
                return Err(Reason::TooManyApiKeys.into());
            }
            let text = Secret::new(ApiKey::compose(random::bytes(), random::bytes()));
            let key = ApiKey::parse(text.expose())
                .map_err(|format| Problem::internal("making an API key", &format.cause()))?;
            let digest = match &certificate {
                None => key.digest(),
                Some(name) => name.digest(),
            };
            if certificate.is_some() && api_keys::has_digest(write.connection(), digest).await? {
                return Err(Reason::CertificateTaken.into());
            }
            let stored = StoredKey {
                id: key.id().to_owned(),
                issuer: service.config.issuer.clone(),
                certificate: certificate.as_ref().map(|name| name.as_str().to_owned()),
                service: new.service,
                scopes,
                created_at: now,
                created_by: actor.name().to_owned(),
                expires_at: lifetime.map(|lifetime| now.plus(lifetime)),
                revoked_at: None,
            };
            api_keys::insert(&mut write, stored.clone(), digest);
            let mut detail = format!("{} [{}]", stored.service, stored.scopes.join(" "));
            let secret = match &stored.certificate {
                None => Some(text),
                Some(name) => {
                    detail.push_str(&format!(" {name}"));
                    None
                }
            };
            audit::record(&mut write, now, &actor, Action::ApiKeyMade, &stored.id, &detail).await?;
            match service.log.commit(&service.store, write).await {
                Ok(()) => Ok(MadeApiKey { stored, secret }),
                // Another replica was first.
                Err(error) if certificate.is_some() && error.is_unique_violation() => {
                    Err(Reason::CertificateTaken.into())
                }
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// Revokes a key. Revoking a revoked one says the same again.
    pub async fn revoke_api_key(self: &Arc<Self>, actor: Actor, id: String) -> Result<StoredKey, Problem> {
        let service = Arc::clone(self);
        detached(async move {
            let mut write = service.store.write().await?;
            service.judge_actor(&mut write, &actor).await?;
            let now = service.clock.now();
            let key = find(&mut write, &id).await?;
            api_keys::revoke(write.connection(), &id, actor.name(), now).await?;
            // A key without an end is refused without an end.
            let forget_at = key.expires_at.map(|end| end.max(now).plus(RETENTION_SLACK));
            let target = Target::ApiKey(key.id);
            // Of the key's own issuer: the configuration may have been given another name since.
            let entry = PendingEntry {
                issuer: key.issuer,
                target,
                bar: Bar::Always,
                forget_at,
                created_at: now,
            };
            revocations::append(&mut write, entry);
            audit::record(&mut write, now, &actor, Action::ApiKeyRevoked, &id, &key.service).await?;
            let key = find(&mut write, &id).await?;
            service.log.commit(&service.store, write).await?;
            Ok(key)
        })
        .await
    }

    /// Keys in the order of their ids, ended ones too.
    pub async fn api_keys(&self, after: &str, limit: u32) -> Result<Vec<StoredKey>, Problem> {
        let mut read = self.store.read().await?;
        Ok(api_keys::page(&mut read, after, limit.clamp(1, MAX_PAGE)).await?)
    }
}

impl StoredKey {
    /// What is shown by whoever it is of.
    pub fn kind(&self) -> &'static str {
        match self.certificate {
            Some(_) => "client_certificate",
            None => "api_key",
        }
    }

    /// Whether it is accepted at `now`, and if not, why.
    pub fn state(&self, now: UnixSeconds) -> &'static str {
        if self.revoked_at.is_some() {
            "revoked"
        } else if self.expires_at.is_some_and(|end| now >= end) {
            "expired"
        } else {
            "live"
        }
    }
}

async fn find(write: &mut Write, id: &str) -> Result<StoredKey, Problem> {
    let key = api_keys::by_id(write.connection(), id).await?;
    key.ok_or_else(|| Reason::NoSuchApiKey.into())
}

fn checked_scopes(mut scopes: Vec<String>) -> Result<Vec<String>, Problem> {
    scopes.sort();
    scopes.dedup();
    if scopes.len() > MAX_SCOPES || !scopes.iter().all(|scope| is_scope(scope)) {
        return Err(Reason::InvalidScope.into());
    }
    Ok(scopes)
}

/// How long a key is to hold; nothing where that is without an end.
fn lifetime(asked: Option<ExpiresIn>) -> Result<Option<Duration>, Problem> {
    match asked {
        None => Ok(Some(DEFAULT_API_KEY_TTL)),
        Some(ExpiresIn::Word(word)) if word == NEVER => Ok(None),
        Some(ExpiresIn::Seconds(seconds)) if (1..=MAX_API_KEY_TTL.as_secs()).contains(&seconds) => {
            Ok(Some(Duration::from_secs(seconds)))
        }
        Some(ExpiresIn::Word(_) | ExpiresIn::Seconds(_)) => Err(Reason::InvalidExpiry.into()),
    }
}
