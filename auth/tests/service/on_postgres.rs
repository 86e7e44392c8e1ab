//! The suite of `main.rs`, on PostgreSQL.

#[path = "main.rs"]
mod suite;

use suite::support;
