//! The upstreams' servers, taken in turn.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use durward_policy::StripSet;
use http::HeaderName;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};

use crate::assertion::strip_set;
use crate::upstream_config::{FixedHeader, UpstreamConfig};

/// An upstream that requests are sent to.
pub(crate) struct Upstream {
    /// Set on every request to it.
    pub(crate) fixed: FixedHeaders,
    /// Whether it is given the gateway's assertion.
    pub(crate) asserts: bool,
    servers: Vec<(SocketAddr, HttpPeer)>,
    next: AtomicUsize,
    upgrades: AtomicU64,
}

/// The headers that an upstream is always given, and is given by nobody else.
pub(crate) struct FixedHeaders {
    /// Their names, under every spelling that a backend could fold to them.
    pub(crate) strip: StripSet,
    pub(crate) headers: Vec<FixedHeader>,
}

impl FixedHeaders {
    /// `assertion` is the header of the gateway's own assertion, where there is one.
    pub(crate) fn new(headers: &[FixedHeader], assertion: Option<&HeaderName>) -> Self {
        Self {
            strip: strip_set(headers.iter().map(|header| header.name.as_str()), assertion),
            headers: headers.to_vec(),
        }
    }
}

impl Upstream {
    pub(crate) fn new(config: &UpstreamConfig, assertion: Option<&HeaderName>) -> Self {
        Self {
            fixed: FixedHeaders::new(&config.headers, assertion),
            asserts: config.assertion,
            servers: config
                .servers
                .iter()
                .map(|address| (*address, peer(*address, config)))
                .collect(),
            next: AtomicUsize::new(0),
            upgrades: AtomicU64::new(0),
        }
    }

    /// The server whose turn it is.
    pub(crate) fn choose(&self) -> Option<(SocketAddr, Box<HttpPeer>)> {
        let (address, peer) = match self.servers.as_slice() {
            [] => return None,
            [only] => only,
            many => &many[self.next.fetch_add(1, Ordering::Relaxed) % many.len()],
        };
        Some((*address, Box::new(peer.clone())))
    }

    /// The server for a request that asks to upgrade, on a connection that no request used before.
    ///
    /// Pingora 0.9.1 takes the empty body of such a request for the end of the upgraded stream where
    /// the 101 is readable before that body was passed on (cloudflare/pingora#946). A kept connection
    /// can be readable at once; a new one, whose readiness only its own thread learns
    /// (`work_stealing: false`), cannot.
    pub(crate) fn choose_for_upgrade(&self) -> Option<(SocketAddr, Box<HttpPeer>)> {
        let (address, mut peer) = self.choose()?;
        peer.group_key = 1 + self.upgrades.fetch_add(1, Ordering::Relaxed);
        Some((address, peer))
    }

    /// How many servers a request may be offered to before it is given up.
    pub(crate) fn attempts(&self) -> usize {
        self.servers.len().min(MAX_ATTEMPTS)
    }
}

/// The most servers that one request is offered to.
pub(crate) const MAX_ATTEMPTS: usize = 4;

fn peer(address: SocketAddr, config: &UpstreamConfig) -> HttpPeer {
    let mut peer = HttpPeer::new(address, false, String::new());
    let timeouts = config.timeouts;
    peer.options.connection_timeout = Some(timeouts.connect);
    peer.options.total_connection_timeout = Some(timeouts.connect);
    peer.options.read_timeout = Some(timeouts.read);
    peer.options.write_timeout = Some(timeouts.write);
    peer.options.idle_timeout = Some(timeouts.idle);
    peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::standard();
    peer
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use durward_config::{Diagnostics, Document, Place};

    use super::*;
    use crate::upstream_config::compile_upstreams;

    #[test]
    fn servers_take_turns() {
        let document = Document::parse("c", "a: { servers: [127.0.0.1:1, 127.0.0.1:2] }").unwrap();
        let mut diagnostics = Diagnostics::default();
        let config = compile_upstreams(
            Some(document.root()),
            Place::default(),
            Path::new("."),
            &mut diagnostics,
        );
        let upstream = Upstream::new(&config[0], None);
        let ports: Vec<_> = (0..4).map(|_| upstream.choose().unwrap().0.port()).collect();
        assert_eq!(ports, [1, 2, 1, 2]);
        assert_eq!(upstream.attempts(), 2);
    }
}
