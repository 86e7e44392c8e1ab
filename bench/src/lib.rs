//! What the benchmarks of whole processes are made of.
//!
//! `proxy-comparison` measures what the gateway costs over the same Pingora without it;
//! `ban-latency` measures how long a ban takes to bite in one process, and `fleet-latency` on several
//! gateways behind one database and one Redis. All run real processes: the gateway's own binary, and
//! this crate's backend, bare proxy and load generator, which the benchmark starts by running itself
//! again in another role ([`role`]).
//!
//! | step | file |
//! | --- | --- |
//! | another process, in a role | `role.rs`, `child.rs` |
//! | the roles | `backend.rs`, `bare_proxy.rs`, `load.rs` |
//! | the gateway's binary, its configuration, its users, its database | `durward.rs`, `configuration.rs`, `revocation_rows.rs` |
//! | who bans, and who is banned | `operator.rs`, `victim.rs` |
//! | asking over HTTP, outside the load | `client.rs`, `http_message.rs` |
//! | the comparison: what runs, in which rounds | `contender.rs`, `comparison.rs`, `rounds.rs` |
//! | the same by instructions instead of time | `instructions.rs` |
//! | bans, and starts, of one process | `ban.rs` |
//! | what connections and long bodies cost in memory | `memory.rs` |
//! | several gateways and what they stand on | `fleet.rs`, `postgres.rs`, `redis.rs` |
//! | bans of a fleet under load | `fleet_ban.rs`, `background_load.rs`, `fleet_report.rs`, `plot.rs` |
//! | what news costs with many gateways | `fleet_scaling.rs`, `fleet_cpu.rs` |
//! | requests under reloads and upgrades | `reload.rs` |
//! | medians and tables | `statistics.rs`, `report.rs` |
//! | the machine | `process_cpu.rs`, `machine.rs`, `scratch.rs`, `clock.rs` |

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod backend;
mod background_load;
pub mod ban;
pub mod bare_proxy;
pub mod child;
pub mod client;
pub mod clock;
pub mod comparison;
pub mod configuration;
pub mod contender;
pub mod durward;
pub mod fleet;
pub mod fleet_ban;
mod fleet_cpu;
mod fleet_report;
pub mod fleet_scaling;
pub mod http_message;
pub mod instructions;
pub mod load;
pub mod machine;
pub mod memory;
mod operator;
pub mod plot;
pub mod postgres;
pub mod process_cpu;
pub mod redis;
pub mod reload;
pub mod report;
pub mod revocation_rows;
pub mod role;
pub mod rounds;
pub mod scratch;
pub mod statistics;
mod victim;

/// A benchmark ends at the first thing that is not as it should be; the message says what.
pub type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
