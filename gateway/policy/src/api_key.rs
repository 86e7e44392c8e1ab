//! API keys of services: how a key is written, what is known of one at the edge, and how the
//! decision asks for it. Nothing here is secret but the key's own text.

mod format;
mod granted;

pub use format::{API_KEY_ID_BYTES, API_KEY_LENGTH, API_KEY_SECRET_BYTES, ApiKey, ApiKeyFormat, KeyDigest};
pub use granted::{
    GrantError, GrantStanding, GrantedKey, MAX_SCOPE_BYTES, MAX_SCOPES, MAX_SERVICE_BYTES, is_scope,
    is_service_name,
};

pub(crate) use format::is_announced;
