//! Real servers for the tests of all crates. Only the standard library: every test can afford it.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod http2;
pub mod postgres;
