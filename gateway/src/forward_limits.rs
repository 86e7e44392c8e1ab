//! The limits that hold for a request: what its route says, or else its upstream, or else the default.

use std::time::Duration;

use durward_policy::{ForwardLimits, Limit};
use pingora::upstreams::peer::HttpPeer;

use crate::upstream_config::Protocol;

const CONNECT: Duration = Duration::from_secs(2);
const READ: Duration = Duration::from_secs(60);
const WRITE: Duration = Duration::from_secs(60);
const BODY: Duration = Duration::from_secs(30);
const BODY_MIN_RATE: u64 = 500;

/// See [`ForwardLimits`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    connect: Duration,
    /// Between two pieces of a response, by Pingora's timer.
    read: Duration,
    write: Duration,
    /// By a timer of our own; nothing where Pingora's does.
    pub(crate) first_byte: Option<Duration>,
    /// Whether Pingora's timer is the one for the first byte.
    pub(crate) read_is_first_byte: bool,
    pub(crate) total: Option<Duration>,
    pub(crate) total_ends_streams: bool,
    pub(crate) body: Duration,
    pub(crate) body_min_rate: Option<u64>,
    pub(crate) max_body: Option<u64>,
}

impl Limits {
    pub(crate) fn new(limits: ForwardLimits, protocol: Protocol) -> Self {
        let read = limits.read.unwrap_or(READ);
        let first_byte = limits.first_byte.and_then(Limit::value);
        let (read, first_byte, read_is_first_byte) = match (first_byte, protocol) {
            (None, _) => (read, None, false),
            // A connection that others use too cannot be closed to end one request's wait.
            (Some(first_byte), Protocol::H2) => (first_byte, None, true),
            (Some(first_byte), Protocol::H1) => (read.max(first_byte), Some(first_byte), false),
        };
        Self {
            connect: limits.connect.unwrap_or(CONNECT),
            read,
            write: limits.write.unwrap_or(WRITE),
            first_byte,
            read_is_first_byte,
            total: limits.total.and_then(Limit::value),
            total_ends_streams: limits.total_ends_streams.unwrap_or(false),
            body: limits.body.unwrap_or(BODY),
            body_min_rate: limits.body_min_rate.map_or(Some(BODY_MIN_RATE), Limit::value),
            max_body: limits.max_body.and_then(Limit::value),
        }
    }

    /// Tells Pingora of those that it keeps to.
    pub(crate) fn apply_to(&self, peer: &mut HttpPeer) {
        let options = &mut peer.options;
        options.connection_timeout = Some(self.connect);
        options.total_connection_timeout = Some(self.connect);
        options.read_timeout = Some(self.read);
        options.write_timeout = Some(self.write);
    }
}
