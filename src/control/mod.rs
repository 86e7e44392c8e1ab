//! The control socket: how the command line speaks to the running service.
//!
//! HTTP with JSON over a Unix socket that only its owner may open. The commands never go to the
//! database behind the service's back, so what they do is acknowledged like any other call.

pub mod client;
pub mod explain;
pub mod reload;
pub mod server;
