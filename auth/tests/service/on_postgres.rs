//! The suite of `main.rs`, on PostgreSQL.

#[path = "main.rs"]
mod suite;

mod doubtful_servers;

use suite::support;
