//! The Pingora shell around the access decision.
//!
//! `durward-policy` decides; this crate listens, hands it the facts, keys and revocations that it
//! asks for, carries its decision out, and says what it did. No rule of access is made here.
//!
//! A request's way, one file a step:
//!
//! | step | file |
//! | --- | --- |
//! | the connection: TLS, HTTP/2, the way to HTTPS | `listener_tls.rs`, `http2.rs`, `redirect.rs` |
//! | request lines that Pingora would mend | `checked_stream.rs`, `request_line.rs` |
//! | frames by the thousand, and those that never end | `http2.rs`, `frame_watch.rs` |
//! | the connection, as long as there is room for one | `connections.rs` |
//! | its header deadline, its cancellation | `cancellable.rs` |
//! | checks on the raw header that the parsed one no longer shows | `wire_checks.rs` |
//! | whose request it is | `client_address.rs` |
//! | facts, then the decision | `decision.rs` |
//! | proofs that are remembered, and no others for who fails too often | `proof_cache.rs`, `issuer_keys.rs`, `failure_limit.rs` |
//! | revocations, and the open requests that they end | `mirror.rs`, `live_streams.rs`, `revocation_feed.rs` |
//! | asking the application's own store instead, in lookup mode | `lookup.rs` |
//! | the request that the upstream gets: identity stripped, then set | `upstream_request.rs` |
//! | servers, and whose turn it is | `upstreams.rs` |
//! | how long it may take and how large its body may be | `forward_limits.rs`, `deadlines.rs`, `request_body.rs` |
//! | how often somebody may ask | `rate_limits.rs`, `quota_table.rs` |
//! | where a WebSocket's frames end, and what both sides are told | `websocket.rs` |
//! | the answer to a refused request | `problem.rs` |
//! | the signed assertion of who asks | `assertion.rs` |
//! | the other door: proxies that ask about requests of their own | `forward_auth.rs` |
//! | one line and one count for each request | `request_record.rs`, `log_line.rs`, `access_log.rs`, `metrics.rs` |
//!
//! [`GatewayConfig`] compiles this crate's part of the configuration file, [`Gateway`] runs it.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod access_log;
mod addresses;
mod admin;
mod assertion;
mod cancellable;
mod capped_warning;
mod checked_stream;
mod client_address;
mod client_limits;
mod clock;
mod config;
mod connections;
mod cors_response;
mod deadlines;
mod decision;
mod descriptors;
#[cfg(test)]
mod end_to_end;
mod explain;
mod failure_limit;
mod forward_auth;
mod forward_limits;
mod frame_watch;
mod gateway;
mod generation;
mod grant_table;
mod handover;
mod head_size;
mod housekeeping;
mod http2;
mod idle_timer;
mod in_flight;
mod issuer_keys;
mod judged_again;
mod jwks_fetch;
mod listener_config;
mod listener_tls;
mod listeners;
mod live_streams;
mod log_file;
mod log_line;
mod lookup;
mod metrics;
mod mirror;
mod mirror_table;
mod networks;
mod own_response;
mod problem;
mod proof_cache;
mod proxy;
mod quota_table;
mod rate_limits;
mod readiness;
mod redirect;
mod reloads;
mod request_body;
mod request_line;
mod request_record;
mod revocation_feed;
mod secret;
mod sharded;
mod store_connection;
#[cfg(test)]
mod testing;
mod upstream_config;
mod upstream_request;
mod upstreams;
mod websocket;
mod wire_checks;

pub use assertion::AssertionConfig;
pub use client_address::{ForwardingHeader, TrustedProxies};
pub use client_limits::{ClientLimitNodes, ClientLimits};
pub use config::{AccessLogTarget, GatewayConfig, GatewaySections};
pub use explain::{ExplainRequest, check_keys, explain_offline};
pub use forward_auth::ForwardAuthConfig;
pub use gateway::{
    Gateway, GatewayError, GatewayRevocations, OwnKeys, ReloadReport, Shutdown, ShutdownTrigger,
    needs_restart,
};
pub use listener_config::ListenerConfig;
pub use listener_tls::{CertificateFiles, ClientCertificates, ListenerTls};
pub use listeners::Sockets;
pub use rate_limits::RateLimitStore;
pub use revocation_feed::{MirrorLimits, RevocationFeed};
pub use upstream_config::{
    Balance, ClientCertificate, EjectionConfig, FixedHeader, HealthCheckConfig, Protocol, RetryConfig,
    ServerConfig, UpstreamConfig, UpstreamTls,
};
