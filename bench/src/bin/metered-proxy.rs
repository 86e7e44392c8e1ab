//! The bare proxy with the gateway's metrics and nothing else of it: what the metrics cost.
//!
//! The gateway cannot run without its metrics, so their own source is compiled in here and told for
//! each request what the gateway tells it, clock readings included. Started by `proxy-comparison`.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use durward_bench::Fallible;
use durward_bench::bare_proxy::{peer, serve};
use durward_bench::role::{Role, read_role};
use durward_policy::{DigestKey, Policy};
use pingora::http::ResponseHeader;
use pingora::modules::http::HttpModules;
use pingora::proxy::{ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;

#[path = "../../../gateway/src/metrics.rs"]
#[expect(dead_code, reason = "nobody asks this proxy what it has counted")]
mod metrics;
#[path = "../../../gateway/src/sharded.rs"]
mod sharded;

use metrics::{Metrics, PhaseTimes, RouteCounts};

struct Metered {
    upstream: HttpPeer,
    metrics: Metrics,
    /// Of its only route.
    route: Arc<RouteCounts>,
    requests: AtomicU64,
}

/// As in the gateway.
const PHASES_OF_ONE_IN: u64 = 16;

struct Times {
    started: Instant,
    asked_upstream: Option<Instant>,
    upstream_took: Option<std::time::Duration>,
}

#[async_trait]
impl ProxyHttp for Metered {
    type CTX = Times;

    fn new_ctx(&self) -> Times {
        Times {
            started: Instant::now(),
            asked_upstream: None,
            upstream_took: None,
        }
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    /// Where the gateway decides: the clock is read at the start and at the end, and for one request in
    /// 16 after each phase.
    async fn request_filter(&self, _session: &mut Session, times: &mut Times) -> pingora::Result<bool> {
        let start = times.started;
        if !self
            .requests
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(PHASES_OF_ONE_IN)
        {
            self.metrics.decided(&self.route, None, start.elapsed(), None);
            return Ok(false);
        }
        let mut last = start;
        let mut lap = || {
            let now = Instant::now();
            let took = (now - std::mem::replace(&mut last, now)).as_nanos();
            u64::try_from(took).unwrap_or(u64::MAX).max(1)
        };
        let facts = lap();
        let phases = std::array::from_fn(|_| lap());
        let times = PhaseTimes { facts, phases };
        self.metrics
            .decided(&self.route, None, last - start, Some(&times));
        Ok(false)
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        times: &mut Times,
    ) -> pingora::Result<Box<HttpPeer>> {
        times.asked_upstream = Some(Instant::now());
        Ok(Box::new(self.upstream.clone()))
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        _response: &mut ResponseHeader,
        times: &mut Times,
    ) -> pingora::Result<()> {
        times.upstream_took = times.asked_upstream.map(|asked| asked.elapsed());
        Ok(())
    }

    async fn logging(&self, session: &mut Session, _error: Option<&pingora::Error>, times: &mut Times) {
        let status = session
            .response_written()
            .map_or(0, |response| response.status.as_u16());
        self.route
            .responded(status, times.started.elapsed(), times.upstream_took);
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("metered-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Fallible<()> {
    let Role::BareProxy(role) = read_role()? else {
        return Err("this program plays one role only".into());
    };
    let policy = Policy::refuse_everything(DigestKey([0; 16]));
    let metrics = Metrics::new();
    let route = metrics.of_routes(&policy).pop().ok_or("no route is counted")?;
    serve(
        &role,
        Metered {
            upstream: peer(role.upstream),
            metrics,
            route,
            requests: AtomicU64::new(0),
        },
    )
}
