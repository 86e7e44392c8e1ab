//! How a server is connected to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pingora::protocols::ALPN;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};

use crate::forward_limits::Limits;
use crate::upstream_config::{Protocol, UpstreamConfig};

/// The bits of a group key that tell upgraded connections apart; the others tell upstreams apart.
pub(super) const UPGRADES: u64 = u32::MAX as u64 >> 1;
/// The most requests that a connection of HTTP/2 carries at once, unless the server wants fewer.
const MAX_STREAMS: usize = 100;
/// What a server may send ahead of a client that is slower, on HTTP/2.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// What the servers of an upstream have in common.
pub(super) struct Template<'c> {
    config: &'c UpstreamConfig,
    authorities: Option<Arc<CaType>>,
    client: Option<Arc<CertKey>>,
    group_key: u64,
}

impl<'c> Template<'c> {
    pub(super) fn new(config: &'c UpstreamConfig) -> Self {
        let tls = config.tls.as_ref();
        let wrap = |ders: &Vec<Vec<u8>>| -> Arc<CaType> {
            ders.iter()
                .map(|der| WrappedX509::new(der.clone(), parse_x509))
                .collect::<Vec<_>>()
                .into()
        };
        Self {
            config,
            authorities: tls.and_then(|tls| tls.authorities.as_ref()).map(wrap),
            client: tls
                .and_then(|tls| tls.client.as_ref())
                .map(|client| Arc::new(CertKey::new(client.chain.clone(), client.key.clone()))),
            group_key: tls.map_or(0, |_| group()),
        }
    }

    pub(super) fn peer(&self, address: SocketAddr) -> HttpPeer {
        let name = self.config.tls.as_ref().map(|tls| tls.server_name.clone());
        let mut peer = HttpPeer::new(address, name.is_some(), name.unwrap_or_default());
        peer.group_key = self.group_key;
        peer.client_cert_key = self.client.clone();
        let options = &mut peer.options;
        options.ca = self.authorities.clone();
        options.idle_timeout = Some(self.config.idle_timeout);
        options.http_upstream_request_policy = HttpUpstreamRequestPolicy::standard();
        if self.config.protocol == Protocol::H2 {
            options.alpn = ALPN::H2;
            options.max_h2_streams = MAX_STREAMS;
            options.h2_stream_window_size = Some(STREAM_WINDOW);
            options.h2_connection_window_size = Some(CONNECTION_WINDOW);
        }
        Limits::new(self.config.limits, self.config.protocol).apply_to(&mut peer);
        peer
    }
}

/// A group key of its own for each upstream with TLS: Pingora would give a connection that one
/// upstream's authorities vouch for to another of the same address and name that believes others.
fn group() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed) << 32
}
