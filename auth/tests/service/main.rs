//! The service as its clients see it: a real database, a real listener, and a follower that writes
//! down what it is told. Time is moved, not waited for. All of it runs twice: on SQLite as this
//! binary, on PostgreSQL as `service_on_postgres`.

mod accounts;
mod administration;
mod api_keys;
mod bulk_revocation;
mod control;
mod durability;
mod input;
mod key_rotation;
mod keys;
mod late_bodies;
mod login;
mod migrations;
mod refresh;
mod replicas;
mod revocations;
mod secrecy;
mod serving;
mod sessions;
pub(crate) mod support;
