//! Changing the signing key: in order, with an overlap, or at once, because it is not to be trusted any
//! more.
//!
//! What verifies learns of a new key before anything is signed with it. What is on disk changes before
//! what is in memory, so that a process that dies on the way comes back with the newer state.

use std::sync::Arc;

use durward_contract::{Target, UnixSeconds};
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::accounts::checked_reason;
use crate::audit::{self, Action, Actor};
use crate::key_ring::{KeyRing, MAX_RETIRING_KEYS, RetiringKey, SigningKey};
use crate::keys::NewKey;
use crate::problem::{Problem, Reason};
use crate::service::{Inner, detached};

/// Base64url digits of a thumbprint (RFC 7638), which every `kid` of this service is.
const KID_LENGTH: usize = 43;

/// What became of the signing key.
#[derive(Debug)]
pub(crate) struct Rotated {
    /// The key that signs now.
    pub signing: String,
    /// The key that did.
    pub retiring: String,
    /// Until when that is published.
    pub until: UnixSeconds,
}

/// What a revoked key was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyState {
    Signing,
    Retiring,
    /// Not of this service now: retired, revoked before, or never its own.
    Unknown,
}

/// What became of a revoked key.
#[derive(Debug)]
pub(crate) struct RevokedKey {
    pub was: KeyState,
    /// The key that signs now.
    pub signing: String,
}

impl KeyState {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::Retiring => "retiring",
            Self::Unknown => "unknown",
        }
    }
}

impl Inner {
    /// Signs with a new key from now on. The old one stays published until its last token has expired.
    pub async fn rotate_signing_key(self: &Arc<Self>, actor: Actor) -> Result<Rotated, Problem> {
        let service = Arc::clone(self);
        detached(async move {
            let _alone = service.changing_keys.lock().await;
            let ring = service.tokens.keys();
            if ring.retiring.len() >= MAX_RETIRING_KEYS {
                return Err(Reason::TooManyKeys.into());
            }
            let (new, signing) = service.new_signing_key().await?;
            let mut write = service.store.write().await?;
            let now = service.clock.now();
            let until = service.all_tokens_expired(write.connection(), now).await?;
            let retiring = ring.signing.retired(until);
            let rotated = Rotated {
                signing: signing.kid().to_owned(),
                retiring: retiring.kid().to_owned(),
                until,
            };
            let detail = json!({ "signing": rotated.signing, "retiring": rotated.retiring, "until": until });
            audit::record_revocation(
                &mut write,
                now,
                &actor,
                Action::SigningKeyRotated,
                &rotated.retiring,
                &detail,
            )
            .await?;
            service.keys.keep_retiring(&retiring).map_err(failed)?;
            let retiring = [vec![retiring], ring.retiring.clone()].concat();
            service.take_over(Some(new), signing, retiring)?;
            write.commit_without_news().await?;
            Ok(rotated)
        })
        .await
    }

    /// Refuses every token that a key signed, for ever, whatever the token says of its times. The key
    /// leaves the key set at once; where it is the one that signs, a new one takes its place first.
    /// Sessions go on: refresh tokens are not signed.
    pub async fn revoke_signing_key(
        self: &Arc<Self>,
        actor: Actor,
        kid: String,
        reason: Option<String>,
    ) -> Result<RevokedKey, Problem> {
        let reason = checked_reason(reason)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if kid.len() != KID_LENGTH || !kid.bytes().all(plain) {
            return Err(Problem::with_detail(
                Reason::InvalidRevocation,
                "A signing key is named by its kid: 43 characters.",
            ));
        }
        let service = Arc::clone(self);
        detached(async move {
            let _alone = service.changing_keys.lock().await;
            let was = service.state_of(&kid);
            let new = match was {
                KeyState::Signing => Some(service.new_signing_key().await?),
                KeyState::Retiring | KeyState::Unknown => None,
            };
            let mut write = service.store.write().await?;
            let now = service.clock.now();
            service
                .log
                .append_for_ever(&mut write, Target::SigningKey(kid.clone()), now);
            let detail = json!({ "signing_key": kid, "was": was.name(), "reason": reason });
            audit::record_revocation(&mut write, now, &actor, Action::SigningKeyRevoked, &kid, &detail)
                .await?;
            // From here on nothing is signed with it, even where the commit fails: then it can be
            // revoked again, by the name it has had.
            service.drop_key(&kid, new)?;
            service.log.commit(&service.store, write).await?;
            Ok(RevokedKey {
                was,
                signing: service.tokens.keys().signing.kid().to_owned(),
            })
        })
        .await
    }

    /// Takes keys out of the key set whose last token has expired.
    pub async fn retire_keys(&self, now: UnixSeconds) -> Result<(), Problem> {
        let _alone = self.changing_keys.lock().await;
        let ring = self.tokens.keys();
        let (stay, go): (Vec<RetiringKey>, Vec<RetiringKey>) =
            ring.retiring.iter().cloned().partition(|key| now < key.until);
        if go.is_empty() {
            return Ok(());
        }
        for key in &go {
            self.keys.forget_retiring(key.kid()).map_err(failed)?;
            tracing::info!(kid = key.kid(), "a signing key is retired");
        }
        self.take_over(None, Arc::clone(&ring.signing), stay)
    }

    fn state_of(&self, kid: &str) -> KeyState {
        let ring = self.tokens.keys();
        if ring.signing.kid() == kid {
            KeyState::Signing
        } else if ring.retiring.iter().any(|key| key.kid() == kid) {
            KeyState::Retiring
        } else {
            KeyState::Unknown
        }
    }

    fn drop_key(&self, kid: &str, new: Option<(NewKey, Arc<SigningKey>)>) -> Result<(), Problem> {
        let ring = self.tokens.keys();
        let mut retiring = ring.retiring.clone();
        retiring.retain(|key| key.kid() != kid);
        self.keys.forget_retiring(kid).map_err(failed)?;
        let (file, signing) = match new {
            Some((file, signing)) => (Some(file), signing),
            None => (None, Arc::clone(&ring.signing)),
        };
        self.take_over(file, signing, retiring)
    }

    async fn new_signing_key(&self) -> Result<(NewKey, Arc<SigningKey>), Problem> {
        let (folder, algorithm) = (self.keys.clone(), self.config.signing_algorithm);
        let made = spawn_blocking(move || folder.new_signing_key(algorithm)).await;
        let new = made.map_err(failed)?.map_err(failed)?;
        let signing = SigningKey::new(algorithm, new.document()).map_err(failed)?;
        Ok((new, Arc::new(signing)))
    }

    /// Changes the keys: on disk, for whoever verifies, and last for what signs.
    fn take_over(
        &self,
        new: Option<NewKey>,
        signing: Arc<SigningKey>,
        retiring: Vec<RetiringKey>,
    ) -> Result<(), Problem> {
        let ring = Arc::new(KeyRing::new(signing, retiring).map_err(failed)?);
        let own = self.own_tokens.read_keys(&ring.jwks()).map_err(failed)?;
        if let Some(new) = new {
            self.keys
                .replace_signing_key(self.config.signing_algorithm, new)
                .map_err(failed)?;
        }
        self.own_tokens.replace_keys(own);
        self.jwks.send_replace(ring.jwks());
        self.tokens.replace_keys(ring);
        Ok(())
    }
}

fn failed(error: impl std::fmt::Display) -> Problem {
    Problem::internal("changing the signing key", &error)
}
