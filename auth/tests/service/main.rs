//! The service as its clients see it: real SQLite, a real listener, and a follower that writes down
//! what it is told. Time is moved, not waited for.

mod accounts;
mod administration;
mod control;
mod durability;
mod input;
mod keys;
mod login;
mod refresh;
mod revocations;
mod secrecy;
mod serving;
mod sessions;
mod support;
