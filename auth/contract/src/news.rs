//! What travels from the auth service to the gateways, and the door through which it enters one.

use std::time::Duration;

use crate::{RevocationEntry, Sequence, UnixSeconds};

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Something is refused from now on.
    Revocation(RevocationEntry),
    /// A secret is accepted from now on.
    Grant(Grant),
}

/// An API key that a gateway may accept. Only the secret's hash leaves the auth service.
///
/// A grant only ever ends: by its expiry, or by a [`crate::Target::ApiKey`] entry. An id is never
/// given twice, so applying both in either order refuses the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its place in the log.
    pub sequence: Sequence,
    /// The issuer that vouches for it.
    pub issuer: String,
    /// The key's id, which is no secret.
    pub key: String,
    /// SHA-256 of the whole key as a client sends it.
    pub digest: [u8; 32],
    /// The service that it is of. Never a user: the two have no name in common.
    pub service: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Its end; nothing means that it holds until it is revoked.
    pub expires_at: Option<UnixSeconds>,
}

impl News {
    /// Its place in the log.
    pub fn sequence(&self) -> Sequence {
        match self {
            Self::Revocation(entry) => entry.sequence,
            Self::Grant(grant) => grant.sequence,
        }
    }

    /// When it may be forgotten; nothing where it has to be kept.
    pub fn forget_at(&self) -> Option<UnixSeconds> {
        match self {
            Self::Revocation(entry) => entry.forget_at,
            Self::Grant(grant) => grant.expires_at,
        }
    }
}

/// All that still matters, as of `head`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The log's head when it was read.
    pub head: Sequence,
    /// The news, in any order.
    pub news: Vec<News>,
}

/// A gateway that follows the log.
///
/// The calls are synchronous: when `apply` returns, no later decision of that gateway accepts what
/// the entries refuse, and the open streams that they reach have been told to end. That is what
/// lets a ban be acknowledged. The caller serialises its calls in log order.
pub trait Follower: Send + Sync {
    /// Begins to replace all that is known. What was known keeps biting until the replacement is
    /// whole; one that is dropped before that changes nothing.
    fn begin_load(&self) -> Box<dyn Loading + '_>;

    /// Applies entries that were committed, in order, up to `head`. Says nothing of how fresh that
    /// is: the entries may have been long on their way.
    fn apply(&self, news: &[News], head: Sequence);

    /// The log was read `age` ago, or later, and its head was `head`: nothing is missing up to
    /// there. Only this makes what is known fresh, once all up to `head` was applied. A head beyond
    /// what was applied, or behind it, makes what is known stale.
    fn attest(&self, head: Sequence, age: Duration);

    /// Replaces all that is known by a snapshot that was read just now.
    fn load(&self, snapshot: Snapshot) {
        let mut loading = self.begin_load();
        loading.add(&snapshot.news);
        loading.finish(snapshot.head);
        self.attest(snapshot.head, Duration::ZERO);
    }
}

/// A replacement of all that is known, in pieces: the whole may be larger than one would hold in
/// memory twice.
pub trait Loading: Send {
    /// Adds entries, in any order.
    fn add(&mut self, news: &[News]);

    /// It is whole, as of `head`: from now on it is what is known. How fresh that is, an attestation
    /// says.
    fn finish(self: Box<Self>, head: Sequence);
}
