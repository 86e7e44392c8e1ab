//! What an edge knows of a key: the grant that the news brought, ready to be decided on.

use std::time::Duration;

use durward_contract::{Grant, Sequence, Target, UnixSeconds};
use http::HeaderValue;

use super::KeyDigest;
use crate::claim_rule::SCOPE;
use crate::json::{Json, Object};
use crate::revocation::{DigestKey, RevocationDigest};

/// Longest name of a service.
pub const MAX_SERVICE_BYTES: usize = 64;
/// Most scopes of one key.
pub const MAX_SCOPES: usize = 32;
/// Longest scope.
pub const MAX_SCOPE_BYTES: usize = 64;

/// A key that was granted, made from a [`Grant`] alone. Its secret is not in it.
#[derive(Clone, Debug)]
pub struct GrantedKey {
    digest: KeyDigest,
    revocation: RevocationDigest,
    sequence: Sequence,
    id: String,
    service: String,
    expires_at: Option<UnixSeconds>,
    /// What `require` looks at: `scope`, where the key has any, and nothing else.
    claims: Object,
    service_value: HeaderValue,
    scope_value: Option<HeaderValue>,
}

/// Why a grant is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Its service could be taken for something else.
    #[error("the name of the service is none")]
    Service,
    /// Its scopes could be taken for others.
    #[error("its scopes are none, or too many")]
    Scopes,
}

/// What is known of a key that was presented.
#[derive(Clone, Debug)]
pub enum GrantStanding {
    /// It was granted. How it stands is asked next.
    Known(std::sync::Arc<GrantedKey>),
    /// The news is fresh and whole, and nobody holds this key.
    Absent,
    /// It is not known here, and the news is stale.
    Unknown {
        /// How old the news is; nothing where there has never been any.
        stale_for: Option<Duration>,
    },
}

/// Whether a text can be the name of a service: letters `a-z`, digits, `-` and `.`, beginning and
/// ending with a letter or digit. Ids of users have a `_`, so no service is ever called like a user
/// (RFC 9700 section 4.15).
pub fn is_service_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    bytes.len() <= MAX_SERVICE_BYTES
        && plain(*first)
        && plain(*last)
        && bytes.iter().all(|byte| plain(*byte) || b"-.".contains(byte))
}

/// Whether a text can be a scope: narrower than RFC 6749 section 3.3, so that a list of them is
/// one header value that nobody splits in another way.
pub fn is_scope(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/-".contains(&byte);
    (1..=MAX_SCOPE_BYTES).contains(&text.len()) && text.bytes().all(plain)
}

impl GrantedKey {
    /// What an edge keeps of a grant. `digest_key` is the policy's.
    pub fn new(digest_key: DigestKey, grant: &Grant) -> Result<Self, GrantError> {
        if !is_service_name(&grant.service) {
            return Err(GrantError::Service);
        }
        let service_value = HeaderValue::try_from(&grant.service).map_err(|_| GrantError::Service)?;
        if grant.scopes.len() > MAX_SCOPES || !grant.scopes.iter().all(|scope| is_scope(scope)) {
            return Err(GrantError::Scopes);
        }
        let scope = grant.scopes.join(" ");
        let mut claims = Object::default();
        let mut scope_value = None;
        if !scope.is_empty() {
            scope_value = Some(HeaderValue::try_from(&scope).map_err(|_| GrantError::Scopes)?);
            claims.insert_if_absent(SCOPE, Json::Text(scope));
        }
        Ok(Self {
            digest: KeyDigest(grant.digest),
            revocation: Self::revocation_of(digest_key, &grant.issuer, &grant.key),
            sequence: grant.sequence,
            id: grant.key.clone(),
            service: grant.service.clone(),
            expires_at: grant.expires_at,
            claims,
            service_value,
            scope_value,
        })
    }

    /// The key under which the end of a grant is kept.
    pub fn revocation_of(digest_key: DigestKey, issuer: &str, id: &str) -> RevocationDigest {
        RevocationDigest::of(digest_key, issuer, &Target::ApiKey(id.to_owned()))
    }

    /// What it is found by.
    pub fn digest(&self) -> KeyDigest {
        self.digest
    }

    /// What it is revoked by.
    pub fn revocation(&self) -> RevocationDigest {
        self.revocation
    }

    /// Its place in the log: of two grants of one digest the later one holds, since the earlier was taken
    /// back before it.
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// Its id, which is public.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The service that it is of.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Its end, if it has one.
    pub fn expires_at(&self) -> Option<UnixSeconds> {
        self.expires_at
    }

    /// Whether its time has passed at `now`. There is no leeway: no two clocks have to agree on when
    /// it began.
    pub fn is_expired(&self, now: UnixSeconds) -> bool {
        self.expires_at.is_some_and(|end| now >= end)
    }

    /// The same, ending at `end` unless it ends before.
    pub(crate) fn until(&self, end: UnixSeconds) -> Self {
        Self {
            expires_at: Some(self.expires_at.map_or(end, |its| its.min(end))),
            ..self.clone()
        }
    }

    pub(crate) fn claims(&self) -> &Object {
        &self.claims
    }

    pub(crate) fn service_value(&self) -> &HeaderValue {
        &self.service_value
    }

    pub(crate) fn scope_value(&self) -> Option<&HeaderValue> {
        self.scope_value.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use durward_contract::Sequence;

    use super::*;

    fn grant(service: &str, scopes: &[&str]) -> Grant {
        Grant {
            sequence: Sequence(1),
            issuer: "i".into(),
            key: "k".into(),
            digest: [1; 32],
            service: service.into(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            expires_at: None,
        }
    }

    #[test]
    fn a_service_cannot_be_called_like_a_user_nor_in_two_ways() {
        for name in ["billing", "b", "image-resizer.v2", "7", "u", "u-1"] {
            assert!(is_service_name(name), "{name}");
        }
        let long = "x".repeat(MAX_SERVICE_BYTES + 1);
        for name in [
            "", "u_abc", "a_b", "Billing", "-a", "a-", ".a", "a b", "a,b", "a\n", "\u{e9}", "a/b", &long,
        ] {
            assert!(!is_service_name(name), "{name}");
            assert_eq!(
                GrantedKey::new(DigestKey([0; 16]), &grant(name, &[])).unwrap_err(),
                GrantError::Service
            );
        }
        assert!(is_service_name(&long[1..]));
    }

    #[test]
    fn scopes_are_one_unambiguous_value() {
        let key = GrantedKey::new(DigestKey([0; 16]), &grant("a", &["notes:read", "x/y.z-1"])).unwrap();
        assert_eq!(key.scope_value().unwrap(), "notes:read x/y.z-1");
        let none = GrantedKey::new(DigestKey([0; 16]), &grant("a", &[])).unwrap();
        assert!(none.scope_value().is_none() && none.claims().is_empty());
        let many = vec!["s"; MAX_SCOPES + 1];
        let long = "s".repeat(MAX_SCOPE_BYTES + 1);
        for scopes in [
            &["a b"][..],
            &[""],
            &["a,b"],
            &["a\tb"],
            &["\u{e9}"],
            &many,
            &[&long],
        ] {
            assert_eq!(
                GrantedKey::new(DigestKey([0; 16]), &grant("a", scopes)).unwrap_err(),
                GrantError::Scopes,
                "{scopes:?}"
            );
        }
    }

    #[test]
    fn the_end_is_the_first_moment_at_which_it_is_refused() {
        let mut grant = grant("a", &[]);
        grant.expires_at = Some(UnixSeconds(10));
        let key = GrantedKey::new(DigestKey([0; 16]), &grant).unwrap();
        assert!(!key.is_expired(UnixSeconds(9)) && key.is_expired(UnixSeconds(10)));
    }
}
