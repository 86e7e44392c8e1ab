//! The road on which news of revocations travels through Redis.
//!
//! Both halves are here, the publisher of the auth service and the follower of the gateways, so
//! that their protocol stands in one place. This crate knows neither of the two.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod cluster;
mod connection;
mod dial;
mod reply_limit;
mod store_config;
mod store_error;
mod store_secret;
mod store_tls;
mod store_url;

pub use connection::{Connection, Connector, Timeouts};
pub use store_config::RedisTarget;
pub use store_error::{StoreError, StoreFault};
