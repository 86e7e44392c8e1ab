//! Who asks: a user or a service, never both and never one as the other.

use std::sync::Arc;

use crate::api_key::GrantedKey;
use crate::json::Object;
use crate::verify::VerifiedToken;

/// Whoever asks.
#[derive(Clone, Debug)]
pub enum Principal {
    /// A user, by a token that was proved.
    User(Arc<VerifiedToken>),
    /// A service, by an API key that was granted.
    Service(Arc<GrantedKey>),
}

impl Principal {
    /// The user's token, where it is a user.
    pub fn user(&self) -> Option<&Arc<VerifiedToken>> {
        match self {
            Self::User(token) => Some(token),
            Self::Service(_) => None,
        }
    }

    /// The service's key, where it is a service.
    pub fn service(&self) -> Option<&Arc<GrantedKey>> {
        match self {
            Self::User(_) => None,
            Self::Service(key) => Some(key),
        }
    }

    /// What `require` compares. A service has no claim but `scope`.
    pub(crate) fn claims(&self) -> &Object {
        match self {
            Self::User(token) => token.claims(),
            Self::Service(key) => key.claims(),
        }
    }
}
