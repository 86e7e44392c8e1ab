//! Black-box tests of the real binary: what users, backends and operators see of it.

mod apart;
mod api_keys;
mod attack_cases;
mod ban;
mod bodies;
mod configuration;
mod drain;
mod explain;
mod faults;
mod fleet;
mod foreign_issuers;
mod harness;
mod identity;
mod leaks;
mod lookup;
mod lookup_failures;
mod metrics;
mod pasted;
mod paths;
mod postgres;
mod real_backends;
mod requests;
mod revoke;
mod session;
mod streams;
mod tokens;
