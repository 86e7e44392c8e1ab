//! Changing the signing key: in order, announced before it signs, or at once, because it is not to be
//! trusted any more.
//!
//! One process at a time changes the folder, and begins with what it holds then. What is on disk
//! changes before what is in memory, so that a process that dies on the way comes back with the newer
//! state, and before the revocation is committed, so that whoever sees that finds the successor.

use std::sync::Arc;
use std::time::Duration;

use durward_contract::{Target, UnixSeconds};
use serde_json::json;
use tokio::sync::OwnedMutexGuard;
use tokio::task::spawn_blocking;

use crate::accounts::checked_reason;
use crate::audit::{self, Action, Actor};
use crate::key_ring::{MAX_RETIRING_KEYS, RetiringKey, SigningKey};
use crate::keys::{FolderLock, NewKey};
use crate::problem::{Problem, Reason};
use crate::service::{Inner, detached};
use crate::store::revocations;

/// Base64url digits of a thumbprint (RFC 7638), which every `kid` of this service is.
const KID_LENGTH: usize = 43;
/// How long other processes may go on signing with a key that signs no more here: far more than they
/// take to notice.
const OTHERS_LAG: Duration = Duration::from_secs(60);

/// What came of a rotation.
#[derive(Debug)]
pub(crate) enum Rotation {
    /// The new key is published, and will sign.
    Announced(Announced),
    /// It signs.
    Done(Rotated),
}

/// A key that will sign.
#[derive(Debug)]
pub(crate) struct Announced {
    /// The new key.
    pub announced: String,
    /// From when on it signs.
    pub signs_from: UnixSeconds,
    /// The key that signs until then.
    pub signing: String,
}

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

/// What a key is, or a revoked one was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyState {
    Signing,
    Announced,
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

/// Held while keys change.
struct Change {
    _process: OwnedMutexGuard<()>,
    _folder: FolderLock,
}

impl KeyState {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::Announced => "announced",
            Self::Retiring => "retiring",
            Self::Unknown => "unknown",
        }
    }
}

impl Inner {
    /// Announces a new key, which signs once everybody has had the time to learn of it; with `at_once`
    /// it signs from now on, or one that is announced does. The old key stays published until its
    /// last token has expired.
    pub async fn rotate_signing_key(
        self: &Arc<Self>,
        actor: Actor,
        at_once: bool,
    ) -> Result<Rotation, Problem> {
        let service = Arc::clone(self);
        detached(async move {
            let _change = service.begin_change().await?;
            if at_once {
                service.change_signing_key(actor).await.map(Rotation::Done)
            } else {
                service.announce_signing_key(actor).await.map(Rotation::Announced)
            }
        })
        .await
    }

    /// Has the announced key sign, if there is one and its time has come.
    pub async fn take_announced_key(self: &Arc<Self>) -> Result<(), Problem> {
        let service = Arc::clone(self);
        detached(async move {
            let _change = service.begin_change().await?;
            let due = service.earliest_now();
            let announced = service.tokens.keys().announced.clone();
            // Another process may have been first.
            if announced.is_none_or(|announced| announced.signs_from > due) {
                return Ok(());
            }
            service.change_signing_key(Actor::Service).await.map(drop)
        })
        .await
    }

    /// Refuses every token that a key signed, for ever, whatever the token says of its times. The key
    /// leaves the key set at once; where it is the one that signs, a new one takes its place first.
    /// Sessions go on: refresh tokens are not signed.
    ///
    /// A key that was announced beside the one that signs is revoked with it: it lay in the same
    /// folder, and who has the one may have the other.
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
            let _change = service.begin_change().await?;
            let was = service.state_of(&kid);
            let new = match was {
                KeyState::Signing => Some(service.new_signing_key().await?),
                KeyState::Announced | KeyState::Retiring | KeyState::Unknown => None,
            };
            let beside = service.tokens.keys().announced.clone();
            let beside = beside.filter(|_| was == KeyState::Signing);
            let beside = beside.map(|announced| announced.key.kid().to_owned());
            let mut write = service.store.write().await?;
            service.judge_actor(&mut write, &actor).await?;
            let now = service.clock.now();
            for kid in std::iter::once(&kid).chain(&beside) {
                let target = Target::SigningKey(kid.clone());
                service.log.append_for_ever(&mut write, target, now);
            }
            let mut detail = json!({ "signing_key": kid, "was": was.name(), "reason": reason });
            if let Some(beside) = beside {
                detail["announced"] = json!(beside);
            }
            audit::record_revocation(&mut write, now, &actor, Action::SigningKeyRevoked, &kid, &detail)
                .await?;
            // From here on nothing is signed with it, even where the commit fails: then it can be
            // revoked again, by the name it has had.
            service.drop_key(&kid, was, new).await?;
            service.log.commit(&service.store, write).await?;
            Ok(RevokedKey {
                was,
                signing: service.tokens.keys().signing.kid().to_owned(),
            })
        })
        .await
    }

    /// Takes keys out of the key set whose last token has expired.
    pub async fn retire_keys(self: &Arc<Self>) -> Result<(), Problem> {
        if self.expired_keys().is_empty() {
            return Ok(());
        }
        let _change = self.begin_change().await?;
        for key in self.expired_keys() {
            self.keys.forget_retiring(key.kid())?;
            tracing::info!(kid = key.kid(), "a signing key is retired");
        }
        self.read_keys().await
    }

    fn expired_keys(&self) -> Vec<RetiringKey> {
        let now = self.earliest_now();
        let ring = self.tokens.keys();
        let expired = ring.retiring.iter().filter(|key| key.until <= now);
        expired.cloned().collect()
    }

    /// Keeps everybody else from changing keys, and knows them as they are.
    async fn begin_change(self: &Arc<Self>) -> Result<Change, Problem> {
        let process = Arc::clone(&self.changing_keys).lock_owned().await;
        let folder = self.keys.clone();
        let locked = spawn_blocking(move || folder.lock()).await;
        let folder = locked.map_err(|error| Problem::internal("locking the keys", &error))?;
        let change = Change {
            _process: process,
            _folder: folder?,
        };
        self.read_keys().await?;
        Ok(change)
    }

    async fn announce_signing_key(self: &Arc<Self>, actor: Actor) -> Result<Announced, Problem> {
        let ring = self.tokens.keys();
        if ring.announced.is_some() {
            return Err(Reason::KeyAnnounced.into());
        }
        if ring.retiring.len() >= MAX_RETIRING_KEYS {
            return Err(Reason::TooManyKeys.into());
        }
        let mut write = self.store.write().await?;
        self.judge_actor(&mut write, &actor).await?;
        let now = self.clock.now();
        let signs_from = now.plus(self.config.signing_key_announce);
        let (folder, algorithm) = (self.keys.clone(), self.config.signing_algorithm);
        let made = spawn_blocking(move || folder.announce(algorithm, signs_from)).await;
        made.map_err(|error| Problem::internal("making a signing key", &error))??;
        self.read_keys().await?;
        let ring = self.tokens.keys();
        let announced = ring.announced.as_ref().ok_or(Reason::KeysUnavailable)?;
        let announced = Announced {
            announced: announced.key.kid().to_owned(),
            signs_from,
            signing: ring.signing.kid().to_owned(),
        };
        let kid = &announced.announced;
        let detail = json!({ "announced": kid, "signs_from": signs_from, "signing": announced.signing });
        audit::record_revocation(&mut write, now, &actor, Action::SigningKeyAnnounced, kid, &detail).await?;
        write.commit_without_news().await?;
        Ok(announced)
    }

    /// Signs with another key from now on: with the one that is announced, or else with a new one.
    async fn change_signing_key(self: &Arc<Self>, actor: Actor) -> Result<Rotated, Problem> {
        let (ring, algorithm) = (self.tokens.keys(), self.config.signing_algorithm);
        if ring.retiring.len() >= MAX_RETIRING_KEYS {
            return Err(Reason::TooManyKeys.into());
        }
        let new = match self.keys.announced(algorithm)? {
            Some(file) if ring.announced.is_some() => self.keys.stage(file.document)?,
            _ => self.new_signing_key().await?,
        };
        let kid = SigningKey::new(algorithm, new.document());
        let kid = kid.map_err(|error| Problem::internal("reading a signing key", &error))?;
        let kid = kid.kid().to_owned();
        let mut write = self.store.write().await?;
        self.judge_actor(&mut write, &actor).await?;
        if revocations::signing_key_is_revoked(write.connection(), &kid).await? {
            tracing::error!(kid, "a key that was to sign is revoked: it is forgotten");
            self.keys.forget_announced(algorithm)?;
            self.read_keys().await?;
            return Err(Reason::KeysUnavailable.into());
        }
        let now = self.clock.now();
        let until = self.all_tokens_expired(write.connection(), now).await?;
        let retiring = ring.signing.retired(until.plus(OTHERS_LAG));
        let rotated = Rotated {
            signing: kid,
            retiring: retiring.kid().to_owned(),
            until: retiring.until,
        };
        let detail =
            json!({ "signing": rotated.signing, "retiring": rotated.retiring, "until": rotated.until });
        let (action, old) = (Action::SigningKeyRotated, &rotated.retiring);
        audit::record_revocation(&mut write, now, &actor, action, old, &detail).await?;
        self.keys.keep_retiring(&retiring)?;
        self.keys.replace_signing_key(algorithm, new)?;
        self.keys.forget_announced(algorithm)?;
        self.read_keys().await?;
        write.commit_without_news().await?;
        Ok(rotated)
    }

    fn state_of(&self, kid: &str) -> KeyState {
        let ring = self.tokens.keys();
        let announced = ring.announced.as_ref();
        if ring.signing.kid() == kid {
            KeyState::Signing
        } else if announced.is_some_and(|announced| announced.key.kid() == kid) {
            KeyState::Announced
        } else if ring.retiring.iter().any(|key| key.kid() == kid) {
            KeyState::Retiring
        } else {
            KeyState::Unknown
        }
    }

    async fn drop_key(
        self: &Arc<Self>,
        kid: &str,
        was: KeyState,
        new: Option<NewKey>,
    ) -> Result<(), Problem> {
        let algorithm = self.config.signing_algorithm;
        self.keys.forget_retiring(kid)?;
        if matches!(was, KeyState::Signing | KeyState::Announced) {
            self.keys.forget_announced(algorithm)?;
        }
        if let Some(new) = new {
            self.keys.replace_signing_key(algorithm, new)?;
        }
        self.read_keys().await
    }

    async fn new_signing_key(&self) -> Result<NewKey, Problem> {
        let (folder, algorithm) = (self.keys.clone(), self.config.signing_algorithm);
        let made = spawn_blocking(move || folder.new_signing_key(algorithm)).await;
        Ok(made.map_err(|error| Problem::internal("making a signing key", &error))??)
    }
}
