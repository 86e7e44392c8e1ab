//! Whether a credential is revoked: the question, its three answers, and the keys to ask by.
//!
//! No error is ever read as "not revoked": what is not known is [`Standing::Unknown`], and each
//! route says what that means.

use std::hash::Hasher;
use std::time::Duration;

use durward_contract::{Bar, RevocationEntry, Target, UnixSeconds};
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::api_key::{GrantStanding, GrantedKey, KeyDigest};
use crate::{Policy, VerifiedToken};

/// The secret under which revocation keys are hashed: made at random when a process starts, so that
/// nobody outside can choose ids that collide.
#[derive(Clone, Copy)]
pub struct DigestKey(pub [u8; 16]);

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestKey(..)")
    }
}

/// A keyed 128-bit digest (SipHash-2-4-128) of (issuer, kind, id): the key of a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevocationDigest(pub u128);

impl RevocationDigest {
    /// The digest of a target within an issuer. Every part is preceded by its length, so that no
    /// two different triples feed the hash the same bytes.
    pub fn of(key: DigestKey, issuer: &str, target: &Target) -> Self {
        let (kind, id) = match target {
            Target::Token(id) => (TOKEN, id.as_str()),
            Target::Session(id) => (SESSION, id.as_str()),
            Target::User(id) => (USER, id.as_str()),
            Target::Client(id) => (CLIENT, id.as_str()),
            Target::SigningKey(id) => (SIGNING_KEY, id.as_str()),
            Target::ApiKey(id) => (API_KEY, id.as_str()),
            Target::Everyone => (EVERYONE, ""),
        };
        digest(key, issuer, kind, id)
    }
}

const TOKEN: u8 = 1;
const SESSION: u8 = 2;
const USER: u8 = 3;
const CLIENT: u8 = 4;
const EVERYONE: u8 = 5;
const SIGNING_KEY: u8 = 6;
const API_KEY: u8 = 7;

fn digest(key: DigestKey, issuer: &str, kind: u8, id: &str) -> RevocationDigest {
    let mut hasher = SipHasher24::new_with_key(&key.0);
    hasher.write(&[kind]);
    for part in [issuer, id] {
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part.as_bytes());
    }
    RevocationDigest(hasher.finish128().as_u128())
}

/// All the keys by which one token can be revoked, computed once when it is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevocationDigests {
    /// By its `jti`, if it has one.
    pub token: Option<RevocationDigest>,
    /// By its `sid`, if it has one.
    pub session: Option<RevocationDigest>,
    /// By its `sub`.
    pub user: RevocationDigest,
    /// By its `client_id`, if it has one.
    pub client: Option<RevocationDigest>,
    /// By the `kid` of the key that signed it, if that has one.
    pub signing_key: Option<RevocationDigest>,
    /// By its issuer.
    pub everyone: RevocationDigest,
}

/// The ids by which one token can be revoked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RevocationIds<'a> {
    pub(crate) subject: &'a str,
    pub(crate) token: Option<&'a str>,
    pub(crate) session: Option<&'a str>,
    pub(crate) client: Option<&'a str>,
    pub(crate) signing_key: Option<&'a str>,
}

impl RevocationDigests {
    pub(crate) fn new(key: DigestKey, issuer: &str, ids: RevocationIds<'_>) -> Self {
        let RevocationIds {
            subject,
            token,
            session,
            client,
            signing_key,
        } = ids;
        Self {
            token: token.map(|id| digest(key, issuer, TOKEN, id)),
            session: session.map(|id| digest(key, issuer, SESSION, id)),
            user: digest(key, issuer, USER, subject),
            client: client.map(|id| digest(key, issuer, CLIENT, id)),
            signing_key: signing_key.map(|id| digest(key, issuer, SIGNING_KEY, id)),
            everyone: digest(key, issuer, EVERYONE, ""),
        }
    }

    /// Each key with what it would mean to find it.
    pub fn iter(&self) -> impl Iterator<Item = (Cause, RevocationDigest)> {
        [
            self.token.map(|digest| (Cause::Token, digest)),
            self.session.map(|digest| (Cause::Session, digest)),
            Some((Cause::User, self.user)),
            self.client.map(|digest| (Cause::Client, digest)),
            self.signing_key.map(|digest| (Cause::SigningKey, digest)),
            Some((Cause::Everyone, self.everyone)),
        ]
        .into_iter()
        .flatten()
    }
}

/// What was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// This very token.
    Token,
    /// The session it belongs to.
    Session,
    /// The user.
    User,
    /// The client that asked for it.
    Client,
    /// The key that signed it.
    SigningKey,
    /// This very API key.
    ApiKey,
    /// Everybody of the issuer.
    Everyone,
    /// What a key of the application's own list stands for, where it is none of the above.
    Listed,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Token,
        Self::Session,
        Self::User,
        Self::Client,
        Self::SigningKey,
        Self::ApiKey,
        Self::Everyone,
        Self::Listed,
    ];

    /// What an entry against this target means for what it covers.
    pub const fn of(target: &Target) -> Self {
        match target {
            Target::Token(_) => Self::Token,
            Target::Session(_) => Self::Session,
            Target::User(_) => Self::User,
            Target::Client(_) => Self::Client,
            Target::SigningKey(_) => Self::SigningKey,
            Target::ApiKey(_) => Self::ApiKey,
            Target::Everyone => Self::Everyone,
        }
    }

    /// The word for it in logs and explanations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Session => "session",
            Self::User => "user",
            Self::Client => "client",
            Self::SigningKey => "signing_key",
            Self::ApiKey => "api_key",
            Self::Everyone => "everyone",
            Self::Listed => "listed",
        }
    }
}

/// How a credential stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The news is fresh and says nothing against it.
    Live,
    /// It is revoked. That holds whatever the age of the news.
    Revoked(Cause),
    /// Nothing is known against it, but the news is stale.
    Unknown {
        /// How old the news is; nothing where there has never been any.
        stale_for: Option<Duration>,
    },
}

/// Knows of revocations, as of its last news.
pub trait Revocations {
    /// How the token stands at `now`.
    fn standing(&self, token: &VerifiedToken, now: UnixSeconds) -> Standing;

    /// The API key of this digest. Grants travel with the news of revocations; who hears of none
    /// knows nothing of any key, and so refuses it.
    fn granted_key(&self, digest: &KeyDigest) -> GrantStanding;

    /// How a granted key stands. [`Standing::Revoked`] where its grant has ended meanwhile.
    fn key_standing(&self, key: &GrantedKey) -> Standing;
}

/// Whether a bar refuses a token that it concerns. What the token does not say counts against it.
pub fn bites(bar: Bar, token: &VerifiedToken) -> bool {
    match bar {
        Bar::Always => true,
        Bar::EpochBelow(epoch) => token.epoch().is_none_or(|of_token| of_token < epoch),
        Bar::IssuedAtOrBefore(at) => token.issued_at() <= at,
    }
}

/// What an entry bars a token by, if it does. The token was proved under this policy.
pub fn barred_by(policy: &Policy, token: &VerifiedToken, entry: &RevocationEntry) -> Option<Cause> {
    let wanted = (
        Cause::of(&entry.target),
        RevocationDigest::of(policy.digest_key(), &entry.issuer, &entry.target),
    );
    let concerned = token.digests().iter().any(|found| found == wanted);
    (concerned && bites(entry.bar, token)).then_some(wanted.0)
}

/// For `revocations: none`, which has to be written out: nothing is ever revoked.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRevocations;

impl Revocations for NoRevocations {
    fn standing(&self, _token: &VerifiedToken, _now: UnixSeconds) -> Standing {
        Standing::Live
    }

    /// No news, no grants.
    fn granted_key(&self, _digest: &KeyDigest) -> GrantStanding {
        GrantStanding::Unknown { stale_for: None }
    }

    fn key_standing(&self, _key: &GrantedKey) -> Standing {
        Standing::Unknown { stale_for: None }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const KEY: DigestKey = DigestKey([7; 16]);

    #[test]
    fn no_two_targets_share_a_digest_however_their_parts_are_cut() {
        let targets = [
            ("a:b", Target::User("c".into())),
            ("a", Target::User("b:c".into())),
            ("a", Target::User("b".into())),
            ("ab", Target::User(String::new())),
            ("a", Target::Token("b".into())),
            ("a", Target::Session("b".into())),
            ("a", Target::Client("b".into())),
            ("a", Target::Client(String::new())),
            ("a", Target::SigningKey("b".into())),
            ("a", Target::ApiKey("b".into())),
            ("a", Target::Everyone),
            ("b", Target::Everyone),
        ];
        let digests: BTreeSet<_> = targets
            .iter()
            .map(|(issuer, target)| RevocationDigest::of(KEY, issuer, target))
            .collect();
        assert_eq!(digests.len(), targets.len());
    }

    #[test]
    fn a_token_is_found_by_what_an_entry_is_stored_under() {
        let digests = RevocationDigests::new(
            KEY,
            "iss",
            RevocationIds {
                subject: "sub",
                token: Some("jti"),
                session: Some("sid"),
                client: Some("web"),
                signing_key: Some("k1"),
            },
        );
        for (cause, target) in [
            (Cause::Token, Target::Token("jti".into())),
            (Cause::Session, Target::Session("sid".into())),
            (Cause::User, Target::User("sub".into())),
            (Cause::Client, Target::Client("web".into())),
            (Cause::SigningKey, Target::SigningKey("k1".into())),
            (Cause::Everyone, Target::Everyone),
        ] {
            let found: Vec<_> = digests.iter().filter(|(found, _)| *found == cause).collect();
            assert_eq!(found, [(cause, RevocationDigest::of(KEY, "iss", &target))]);
        }
    }

    #[test]
    fn the_key_matters() {
        let target = Target::User("u".into());
        let other = DigestKey([8; 16]);
        assert_ne!(
            RevocationDigest::of(KEY, "i", &target),
            RevocationDigest::of(other, "i", &target)
        );
    }
}
