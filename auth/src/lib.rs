//! The auth service: users, sessions, tokens, and the revocation log.
//!
//! [`AuthService::start`] opens the database and the keys; [`AuthService::serve`] is the HTTP API,
//! [`AuthService::control_router`] the command line's. What they do is done in `accounts.rs` and
//! `sessions.rs`, each operation in one transaction, and what revokes goes through
//! `revocation_log.rs`: committed, applied by every follower, and only then acknowledged.
//!
//! All SQL is in `store/`. The clock is read in `clock.rs`. Access tokens are checked by
//! `durward_policy`, the same code as at the gateway.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod accounts;
mod api;
mod api_keys;
mod argon2_memory;
mod audit;
mod bearer;
mod client_address;
mod clock;
mod common_passwords;
mod config;
mod control;
mod database_config;
mod json_body;
mod key_reading;
mod key_ring;
mod key_rotation;
mod keys;
mod metrics;
mod passwords;
mod problem;
mod random;
mod reach;
mod refresh_family;
mod revocation_log;
mod revocation_run;
mod secret;
mod selection;
mod server;
mod service;
mod session_filter;
mod sessions;
mod store;
mod throttle;
mod tokens;
mod unread_body;
mod usernames;

pub use accounts::{AddedUser, MAX_BAN_REASON_CHARACTERS, MAX_ROLE_LENGTH, MAX_ROLES, NewUser};
pub use bearer::ADMIN_ROLE;
pub use client_address::MAX_USER_AGENT_BYTES;
pub use clock::{Clock, SystemClock};
pub use config::{AuthConfig, MAX_REFRESH_GRACE, MAX_SESSION_TTL, Registration, SigningAlgorithm};
pub use database_config::{DatabaseConfig, PostgresConfig};
pub use json_body::MAX_BODY_BYTES;
pub use keys::KeyError;
pub use passwords::{
    MAX_PASSWORD_BYTES, MAX_PASSWORD_CHARACTERS, MIN_PASSWORD_CHARACTERS, PasswordCost, QUEUE_PER_WORKER,
};
pub use problem::{Problem, Reason};
pub use reach::{Fleet, GatewayReach, MAX_WAIT, Reach};
pub use revocation_run::MAX_SESSIONS_A_RUN;
pub use secret::Secret;
pub use service::{AuthService, Environment, Migration, StartError, migrate, pending_migrations};
pub use sessions::MAX_LIVE_SESSIONS;
pub use tokens::SigningError;
pub use usernames::MAX_USERNAME_LENGTH;
