//! What issuer and edge must agree on: the claims of Durward's own access tokens, revocation
//! entries, and the door through which the auth service tells a gateway of them.
//!
//! Pure: no runtime, no store, no clock.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod claims;
mod news;
mod revocation;
mod time;
pub mod wire;

pub use claims::{ACCESS_TOKEN_TYPE, AccessTokenClaims, claim};
pub use news::{Follower, Grant, Loading, News, Snapshot};
pub use revocation::{Bar, RevocationEntry, Sequence, Target};
pub use time::{
    FORGETS_NOTHING_FOR, Forgetting, MAX_ACCESS_TOKEN_TTL, MAX_LEEWAY, RETENTION_SLACK, UnixSeconds,
};
