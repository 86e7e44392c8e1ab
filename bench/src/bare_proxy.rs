//! Pingora's proxy and nothing else: what the gateway is compared with.
//!
//! Everything that the gateway also needs without authentication is the same: Pingora's version,
//! its worker threads, its pool of upstream connections and its upstream timeouts.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use pingora::modules::http::HttpModules;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use serde::{Deserialize, Serialize};

use crate::Fallible;

/// How the bare proxy is to run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct BareProxyRole {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The one backend.
    pub upstream: SocketAddr,
    /// Worker threads.
    pub workers: usize,
    /// Idle upstream connections that are kept.
    pub upstream_keepalive_pool: usize,
}

/// The program that is a bare proxy with the gateway's metrics; it lies beside this one.
pub const METERED_PROXY: &str = "metered-proxy";
/// The one that is a bare proxy on the gateway's allocator.
pub const MIMALLOC_PROXY: &str = "mimalloc-proxy";

/// The gateway's defaults.
const MAX_ATTEMPTS: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const IO_TIMEOUT: Duration = Duration::from_secs(60);

struct Bare {
    upstream: HttpPeer,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(self.upstream.clone()))
    }
}

/// Serves until the process ends.
pub(crate) fn play(role: &BareProxyRole) -> Fallible<()> {
    serve(
        role,
        Bare {
            upstream: peer(role.upstream),
        },
    )
}

/// Serves a proxy with the gateway's settings until the process ends.
pub fn serve<P>(role: &BareProxyRole, proxy: P) -> Fallible<()>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let mut server = Server::new_with_opt_and_conf(None, server_conf(role));
    let mut service = http_proxy_service(&server.configuration, proxy);
    service.add_tcp(&role.listen.to_string());
    server.add_service(service);
    server.run_forever();
}

fn server_conf(role: &BareProxyRole) -> ServerConf {
    ServerConf {
        threads: role.workers,
        work_stealing: false,
        upstream_keepalive_pool_size: role.upstream_keepalive_pool,
        max_retries: MAX_ATTEMPTS,
        ..ServerConf::default()
    }
}

/// An upstream with the gateway's default timeouts.
pub fn peer(upstream: SocketAddr) -> HttpPeer {
    let mut peer = HttpPeer::new(upstream, false, String::new());
    peer.options.connection_timeout = Some(CONNECT_TIMEOUT);
    peer.options.total_connection_timeout = Some(CONNECT_TIMEOUT);
    peer.options.read_timeout = Some(IO_TIMEOUT);
    peer.options.write_timeout = Some(IO_TIMEOUT);
    peer.options.idle_timeout = Some(IO_TIMEOUT);
    peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::standard();
    peer
}
