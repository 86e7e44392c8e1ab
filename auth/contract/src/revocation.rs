//! Revocation entries: what is refused from when to when.

use serde::{Deserialize, Serialize};

use crate::UnixSeconds;

/// A position in the revocation log. Monotonic and commit-ordered: a reader that has seen `n`
/// never later finds a new entry at or below `n`. The empty log is at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(pub u64);

/// Whom an entry concerns. Always within one issuer: user 42 of one issuer is not user 42 of
/// another. Ids, never token bytes: an ECDSA signature has valid twins.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "id")]
pub enum Target {
    /// One token, by `jti`.
    Token(String),
    /// One session, by `sid`.
    Session(String),
    /// One user, by `sub`.
    User(String),
    /// One client, by `client_id`.
    Client(String),
    /// Everybody of the issuer.
    Everyone,
}

/// Which credentials of the target are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "value")]
pub enum Bar {
    /// All of them.
    Always,
    /// Those with an epoch lower than this one. A credential without an epoch is refused.
    EpochBelow(u32),
    /// Those issued at or before this instant. A credential without an `iat` is refused.
    IssuedAtOrBefore(UnixSeconds),
}

/// One revocation. Entries only ever narrow access; applying one twice, or two in either order,
/// gives the same result.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RevocationEntry {
    /// Its place in the log.
    pub sequence: Sequence,
    /// The issuer whose credentials it concerns.
    pub issuer: String,
    /// Whom it concerns.
    pub target: Target,
    /// What of theirs is refused.
    pub bar: Bar,
    /// When it may be forgotten: no credential that it covers is valid then, slack included
    /// ([`crate::RETENTION_SLACK`]). Nothing means that it holds until it is lifted.
    pub forget_at: Option<UnixSeconds>,
}

/// All entries that still matter, as of `head`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The log's head when the entries were read.
    pub head: Sequence,
    /// The entries, in any order.
    pub entries: Vec<RevocationEntry>,
}

/// A gateway in the same process that follows the revocation log.
///
/// The calls are synchronous: when `apply` returns, no later decision of that gateway accepts what
/// the entries refuse, and the open streams that they reach have been told to end. That is what
/// lets a ban be acknowledged. The caller serialises its calls in log order.
pub trait Follower: Send + Sync {
    /// Replaces all that is known by a snapshot. Counts as news.
    fn load(&self, snapshot: Snapshot);

    /// Applies entries that were committed, in order, up to `head`. Counts as news.
    fn apply(&self, entries: &[RevocationEntry], head: Sequence);

    /// The log was read just now and its head is `head`: nothing is missing up to there. A head
    /// beyond what was applied, or behind it, makes what is known stale.
    fn attest(&self, head: Sequence);
}
