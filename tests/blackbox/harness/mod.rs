//! What the tests stand on: the real binary on ports of its own, backends that record every byte, a
//! client that can say what no library would, and keys to sign tokens with.

mod accounts;
mod backend;
mod client;
mod clock;
mod configuration;
mod fault_proxy;
mod fleet;
mod folder;
mod keys;
mod ports;
mod process;
mod redis_protocol;
mod redis_server;
mod service;
mod sink;
mod tls;
mod tokens;
mod websocket;

pub use accounts::{Account, PASSWORD, Tokens, login, refresh};
pub use backend::{Backend, Recorded, Reply};
pub use client::{Answer, Ask, Connection, ask, delete, get, post, put};
pub use clock::{eventually, now};
pub use configuration::{FOREIGN, FOREIGN_ISSUER, OWN, shipped};
pub use fault_proxy::{Fault, FaultProxy};
pub use fleet::FleetSetup;
pub use folder::TestFolder;
pub use keys::Key;
pub use ports::free_address;
pub use process::{Finished, Process, durward};
pub use redis_protocol::read_command;
pub use redis_server::{RedisServer, Sentinel};
pub use service::{Service, Setup};
pub use sink::Sink;
pub use tls::{Certificates, Curled, TlsClient, curl};
pub use tokens::{claims, mint, mint_with, sign};
pub use websocket::{Closed, Socket, SocketServer};

use std::time::Duration;

/// Longest wait for anything: only a failure takes it.
pub const PATIENCE: Duration = Duration::from_secs(30);
