//! The road on which news of revocations travels through Redis.
//!
//! Both halves are here, the publisher of the auth service and the follower of the gateways, so
//! that their protocol stands in one place. This crate knows neither of the two: SQL comes in
//! through [`Log`], a gateway's mirror through [`durward_contract::Follower`].
//!
//! SQL is the truth, and Redis may be lost at any time. `docs/NEWS_PROTOCOL.md` has the keys, the
//! scripts and what always holds.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod cluster;
mod connection;
mod dial;
mod entry_scan;
mod follower;
mod following;
mod fresh_news;
mod freshness;
mod load_place;
mod log;
mod protocol;
mod publish_batch;
mod publish_failure;
mod publish_session;
mod publisher;
mod publishing;
mod random;
mod reach;
mod rebuild;
mod reply_limit;
mod roster;
mod snapshot;
mod store_config;
mod store_error;
mod store_health;
mod store_secret;
mod store_tls;
mod store_url;
mod stream_batch;

pub use connection::{Connection, Connector, Timeouts};
pub use follower::{FollowerOptions, FollowerStatus, FollowerTask};
pub use log::{Log, LogError, LogHead};
pub use publisher::{PublishFault, Publisher, PublisherOptions, PublisherStatus};
pub use reach::{GatewayReach, Reach};
pub use store_config::RedisTarget;
pub use store_error::{StoreError, StoreFault};
