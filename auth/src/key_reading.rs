//! Following the key folder. Processes that share it change it one at a time; the others take over
//! what changed within [`READ_INTERVAL`], and at once where something shows that they lag.
//!
//! Files are the only way in: who changes a key writes it down first and then reads it like everyone
//! else, so memory never holds what the folder does not. A folder that cannot be read changes
//! nothing: the last good keys stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use crate::config::SigningAlgorithm;
use crate::key_ring::{AnnouncedKey, KeyRing, MAX_RETIRING_KEYS, SigningKey};
use crate::keys::{Fingerprint, KeyError, KeyFolder};
use crate::problem::{Problem, Reason};
use crate::service::{Inner, StartError};
use crate::store::{Connection, revocations};

/// How often the folder is looked at.
pub(crate) const READ_INTERVAL: Duration = Duration::from_secs(1);
/// The least time between two looks that strangers can ask for.
const ASKED_INTERVAL: Duration = Duration::from_millis(100);
/// How often a reading starts over because files changed under it.
const MAX_ATTEMPTS: u32 = 10;

/// What was last read.
#[derive(Debug)]
pub(crate) struct KeyReading {
    /// Held while files are read and taken over: an older state never follows a newer one. Never
    /// held over an await.
    last: Mutex<Last>,
    asked_at: Mutex<Option<Instant>>,
    signing_is_revoked: AtomicBool,
}

#[derive(Debug)]
struct Last {
    seen: Fingerprint,
    /// Whether the last reading failed: only the first failure of several is told.
    failing: bool,
}

impl KeyReading {
    /// Reads the folder for the first time.
    pub fn first(folder: &KeyFolder, algorithm: SigningAlgorithm) -> Result<(Self, KeyRing), StartError> {
        let (seen, ring) = read_settled(folder, algorithm)?;
        let reading = Self {
            last: Mutex::new(Last { seen, failing: false }),
            asked_at: Mutex::default(),
            signing_is_revoked: AtomicBool::new(false),
        };
        Ok((reading, ring))
    }

    /// Whether the key that signs was found to be revoked: nothing is signed then.
    pub fn signing_is_revoked(&self) -> bool {
        self.signing_is_revoked.load(Ordering::Relaxed)
    }

    fn may_be_asked(&self) -> bool {
        let mut asked_at = self.asked_at.lock();
        let now = Instant::now();
        if asked_at.is_some_and(|at| now - at < ASKED_INTERVAL) {
            return false;
        }
        *asked_at = Some(now);
        true
    }
}

impl Inner {
    /// Reads the folder again where it has changed, and has an announced key sign once its time has
    /// come.
    pub async fn follow_keys(self: &Arc<Self>) -> Result<(), Problem> {
        self.read_keys().await?;
        let due = self.earliest_now();
        let announced = self.tokens.keys().announced.clone();
        if announced.is_some_and(|key| key.signs_from <= due) {
            self.take_announced_key().await?;
        }
        let mut read = self.store.read().await?;
        self.check_signing_key(&mut read).await
    }

    /// Reads the folder again where it has changed.
    pub async fn read_keys(self: &Arc<Self>) -> Result<(), Problem> {
        let service = Arc::clone(self);
        let read = spawn_blocking(move || service.read_keys_here()).await;
        read.map_err(|error| Problem::internal("reading the keys", &error))?
    }

    /// The same, because a stranger names a key that is not known, or asks for the keys; however
    /// often, it is done only now and then.
    pub async fn read_keys_when_asked(self: &Arc<Self>) {
        if self.reading_keys.may_be_asked() {
            let _ = self.read_keys().await;
        }
    }

    /// To be called in a transaction that issues a token. Another process may have revoked the key
    /// that signs here: the folder has its successor by the time that the revocation is committed.
    pub async fn check_signing_key(&self, connection: &mut Connection) -> Result<(), Problem> {
        let revoked = &self.reading_keys.signing_is_revoked;
        for attempt in 0..2 {
            let kid = self.tokens.keys().signing.kid().to_owned();
            if !revocations::signing_key_is_revoked(connection, &kid).await? {
                revoked.store(false, Ordering::Relaxed);
                return Ok(());
            }
            if attempt == 0 {
                // A few small files, once in a revocation.
                self.read_keys_here()?;
            }
        }
        if !revoked.swap(true, Ordering::Relaxed) {
            let error = self.keys.revoked(self.config.signing_algorithm);
            tracing::error!(%error, "nothing is signed");
        }
        Err(Reason::KeysUnavailable.into())
    }

    /// Reads the folder again where it has changed. Blocks.
    fn read_keys_here(&self) -> Result<(), Problem> {
        let mut last = self.reading_keys.last.lock();
        let read = self.take_over_if_changed(&mut last);
        let outcome = if read.is_ok() { "success" } else { "failure" };
        self.metrics.key_reads.with_label_values(&[outcome]).inc();
        let failed_before = std::mem::replace(&mut last.failing, read.is_err());
        read.map_err(|error| {
            if !failed_before {
                tracing::error!(%error, "the keys cannot be read; the last good ones stay");
            }
            Problem::new(Reason::KeysUnavailable)
        })
    }

    fn take_over_if_changed(&self, last: &mut Last) -> Result<(), StartError> {
        let algorithm = self.config.signing_algorithm;
        if self.keys.fingerprint(algorithm)? == last.seen {
            return Ok(());
        }
        let (seen, ring) = read_settled(&self.keys, algorithm)?;
        self.take_over(ring)?;
        last.seen = seen;
        Ok(())
    }

    /// Changes the keys: first for whoever verifies, and last for what signs.
    fn take_over(&self, ring: KeyRing) -> Result<(), StartError> {
        let ring = Arc::new(ring);
        let own = self.own_tokens.read_keys(&ring.jwks());
        self.own_tokens.replace_keys(own.map_err(StartError::OwnTokens)?);
        self.jwks.send_replace(ring.jwks());
        let before = self.tokens.keys();
        if before.signing.kid() != ring.signing.kid() {
            tracing::info!(kid = ring.signing.kid(), "another key signs from now on");
        }
        self.tokens.replace_keys(ring);
        Ok(())
    }
}

/// Reads the keys as they were at one moment: between two looks at the folder that see the same.
fn read_settled(
    folder: &KeyFolder,
    algorithm: SigningAlgorithm,
) -> Result<(Fingerprint, KeyRing), StartError> {
    let mut before = folder.fingerprint(algorithm)?;
    for _ in 0..MAX_ATTEMPTS {
        let ring = read(folder, algorithm);
        let after = folder.fingerprint(algorithm)?;
        if before == after {
            return Ok((after, ring?));
        }
        before = after;
    }
    Err(StartError::Internal("the keys change all the time".to_owned()))
}

/// Each step of a change leaves files that make sense: what is left of a key in its former place is
/// not looked at.
fn read(folder: &KeyFolder, algorithm: SigningAlgorithm) -> Result<KeyRing, StartError> {
    let signing = SigningKey::new(algorithm, &folder.signing_key(algorithm)?)?;
    let announced = match folder.announced(algorithm)? {
        None => None,
        Some(file) => Some(AnnouncedKey {
            signs_from: file.signs_from,
            key: Arc::new(SigningKey::new(algorithm, &file.document)?),
        }),
    };
    let announced = announced.filter(|announced| announced.key.kid() != signing.kid());
    let mut retiring = folder.retiring_keys()?;
    retiring.retain(|key| key.kid() != signing.kid());
    retiring.truncate(MAX_RETIRING_KEYS);
    Ok(KeyRing::new(Arc::new(signing), announced, retiring)?)
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        Self::internal("changing the signing key", &error)
    }
}
