//! The claims of Durward's own access tokens (RFC 9068, with a session and an epoch).

use serde::{Deserialize, Serialize};

use crate::UnixSeconds;

/// `typ` of an access token (RFC 9068 section 2.1).
pub const ACCESS_TOKEN_TYPE: &str = "at+jwt";

/// Claim names, spelled once.
pub mod claim {
    /// Issuer (RFC 7519 section 4.1.1).
    pub const ISSUER: &str = "iss";
    /// Subject (RFC 7519 section 4.1.2).
    pub const SUBJECT: &str = "sub";
    /// Audience (RFC 7519 section 4.1.3).
    pub const AUDIENCE: &str = "aud";
    /// Expiration time (RFC 7519 section 4.1.4).
    pub const EXPIRES_AT: &str = "exp";
    /// Not before (RFC 7519 section 4.1.5).
    pub const NOT_BEFORE: &str = "nbf";
    /// Issued at (RFC 7519 section 4.1.6).
    pub const ISSUED_AT: &str = "iat";
    /// Token id (RFC 7519 section 4.1.7).
    pub const TOKEN_ID: &str = "jti";
    /// Client (RFC 8693 section 4.3).
    pub const CLIENT_ID: &str = "client_id";
    /// Session (OpenID Connect Front-Channel Logout section 3).
    pub const SESSION_ID: &str = "sid";
    /// The user's epoch when the token was issued; Durward's own.
    pub const EPOCH: &str = "epoch";
    /// Roles (RFC 9068 section 2.2.3.1).
    pub const ROLES: &str = "roles";
}

/// The payload of an access token that the auth service issues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenClaims {
    /// The issuer, byte for byte as configured.
    pub iss: String,
    /// The user's opaque, ASCII-only id.
    pub sub: String,
    /// The audience.
    pub aud: String,
    /// End of validity.
    pub exp: UnixSeconds,
    /// When it was issued.
    pub iat: UnixSeconds,
    /// This token's id.
    pub jti: String,
    /// The client that asked for it.
    pub client_id: String,
    /// The session that it belongs to.
    pub sid: String,
    /// The user's epoch, read in the transaction that issued the token.
    pub epoch: u32,
    /// The user's roles.
    pub roles: Vec<String>,
}
