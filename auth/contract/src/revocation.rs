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
    /// All tokens that one key signed, by `kid`.
    SigningKey(String),
    /// One API key of a service, by its id.
    ApiKey(String),
    /// Everybody of the issuer: its tokens, not its API keys.
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
