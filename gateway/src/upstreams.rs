//! The upstreams: their servers, which of them are fit to be asked, and whose turn it is.
//!
//! All that is known of an upstream's servers is in its [`Upstream`], which is built from its
//! configuration and shared by who uses it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use durward_policy::{Reason, StripSet};
use http::HeaderName;
use parking_lot::Mutex;
use pingora::upstreams::peer::HttpPeer;

use crate::assertion::strip_set;
use crate::clock;
use crate::upstream_config::{EjectionConfig, FixedHeader, HealthCheckConfig, Protocol, UpstreamConfig};

mod balancer;
mod counts;
mod health;
mod health_checks;
mod peer;
mod retry_budget;

use balancer::Balancer;
pub(crate) use counts::families;
use counts::{Count, Counts};
use health::{Ejection, ServerHealth};
pub(crate) use health_checks::HealthKeeper;
use retry_budget::RetryBudget;

/// An upstream that requests are sent to.
pub(crate) struct Upstream {
    pub(crate) name: String,
    /// Set on every request to it.
    pub(crate) fixed: FixedHeaders,
    /// Whether it is given the gateway's assertion.
    pub(crate) asserts: bool,
    protocol: Protocol,
    servers: Vec<Server>,
    balancer: Balancer,
    health_check: Option<HealthCheckConfig>,
    /// Nothing where a server is never left out for its failures.
    ejection: Option<EjectionConfig>,
    /// Held while a server is taken out, so that two threads do not take out the last two.
    ejecting: Mutex<()>,
    retries: RetryBudget,
    counts: Counts,
    upgrades: AtomicU64,
    /// What times of [`ServerHealth`] count from.
    epoch: Instant,
}

/// A server of an upstream.
struct Server {
    address: SocketAddr,
    peer: HttpPeer,
    health: ServerHealth,
    /// Requests that it has open; counted where the balancer asks.
    open: AtomicUsize,
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

/// A server's place in its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerIndex(usize);

/// The servers that a request was offered to: at most [`crate::upstream_config::MAX_ATTEMPTS`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tried {
    servers: [u16; crate::upstream_config::MAX_ATTEMPTS],
    count: usize,
}

impl Tried {
    /// How often it was offered.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    fn contains(&self, index: usize) -> bool {
        self.servers[..self.count.min(self.servers.len())]
            .iter()
            .any(|tried| usize::from(*tried) == index)
    }

    fn add(&mut self, index: usize) {
        if let Some(place) = self.servers.get_mut(self.count) {
            *place = u16::try_from(index).unwrap_or(u16::MAX);
        }
        self.count += 1;
    }
}

/// A server that a request goes to.
pub(crate) struct Chosen {
    pub(crate) index: ServerIndex,
    pub(crate) address: SocketAddr,
    pub(crate) peer: Box<HttpPeer>,
    /// Counts the request among the server's open ones, where that is asked for.
    pub(crate) in_use: Option<InUse>,
}

/// A request's place among those that a server has open; leaves it when dropped.
pub(crate) struct InUse {
    upstream: Arc<Upstream>,
    server: usize,
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.upstream.servers[self.server]
            .open
            .fetch_sub(1, Ordering::Relaxed);
    }
}

impl Upstream {
    pub(crate) fn new(config: &UpstreamConfig, assertion: Option<&HeaderName>) -> Self {
        Self::counted(config, assertion, Counts::new(&config.servers))
    }

    /// The upstream of that name under another configuration: nothing that is known of its servers
    /// holds on, but the counts go on.
    pub(crate) fn successor(&self, config: &UpstreamConfig, assertion: Option<&HeaderName>) -> Self {
        Self::counted(config, assertion, self.counts.successor(&config.servers))
    }

    fn counted(config: &UpstreamConfig, assertion: Option<&HeaderName>, counts: Counts) -> Self {
        let template = peer::Template::new(config);
        let server = |server: &crate::upstream_config::ServerConfig| Server {
            address: server.address,
            peer: template.peer(server.address),
            health: ServerHealth::default(),
            open: AtomicUsize::new(0),
        };
        Self {
            name: config.name.clone(),
            fixed: FixedHeaders::new(&config.headers, assertion),
            asserts: config.assertion,
            protocol: config.protocol,
            servers: config.servers.iter().map(server).collect(),
            balancer: Balancer::new(config.balance, &config.servers),
            health_check: config.health_check.clone(),
            ejection: config.ejection.filter(|_| config.servers.len() > 1),
            ejecting: Mutex::default(),
            retries: RetryBudget::new(config.retries),
            counts,
            upgrades: AtomicU64::new(0),
            epoch: Instant::now(),
        }
    }

    /// The server for a request, and a note that it was offered to it. `user` is asked for where it
    /// decides; `upgrade` says that the request wants to be upgraded.
    ///
    /// Of those that are fit one that was not asked before is taken. Where none is fit they are all
    /// asked in turn: that every server is down is more often a fault of how that is judged, and a
    /// request that fails is no worse than one that is refused.
    pub(crate) fn choose(
        self: &Arc<Self>,
        user: impl FnOnce() -> Vec<u8>,
        tried: &mut Tried,
        upgrade: bool,
    ) -> Option<Chosen> {
        let index = match self.servers.len() {
            0 => return None,
            1 => 0,
            _ => self.pick(user, tried)?,
        };
        tried.add(index);
        let server = self.servers.get(index)?;
        self.counts.add(Count::Requests, index);
        let mut peer = Box::new(server.peer.clone());
        if upgrade {
            self.alone(&mut peer);
        }
        Some(Chosen {
            index: ServerIndex(index),
            address: server.address,
            peer,
            in_use: self.balancer.counts_open().then(|| self.open(index)),
        })
    }

    /// Puts a request that asks to upgrade on a connection that no request used before.
    ///
    /// Pingora 0.9.1 takes the empty body of such a request for the end of the upgraded stream where
    /// the 101 is readable before that body was passed on (cloudflare/pingora#946). A kept connection
    /// can be readable at once; a new one, whose readiness only its own thread learns
    /// (`work_stealing: false`), cannot.
    fn alone(&self, peer: &mut HttpPeer) {
        peer.group_key += 1 + (self.upgrades.fetch_add(1, Ordering::Relaxed) & peer::UPGRADES);
    }

    /// Whether the connections to its servers carry several requests at once.
    pub(crate) fn shares_connections(&self) -> bool {
        self.protocol == Protocol::H2
    }

    /// Whether a request that was offered to so many servers may be offered to another.
    pub(crate) fn may_retry(&self, tried: &Tried) -> bool {
        let may = tried.count() < self.retries.attempts()
            && self.retries.take(clock::latest(), self.counts.requests());
        if may {
            self.counts.add_retry();
        }
        may
    }

    /// Whether there is another server than those that were asked.
    pub(crate) fn has_another(&self, tried: &Tried) -> bool {
        (0..self.servers.len()).any(|index| !tried.contains(index))
    }

    /// A server has begun a response.
    pub(crate) fn succeeded(&self, server: ServerIndex) {
        if let Some(server) = self.servers.get(server.0) {
            server.health.succeeded();
        }
    }

    /// A permitted request was not answered.
    pub(crate) fn left_unanswered(&self, reason: Reason) {
        self.counts.add_failure(reason);
    }

    /// A server could not be reached, or did not answer.
    pub(crate) fn failed(&self, server: ServerIndex) {
        let Some(failed) = self.servers.get(server.0) else {
            return;
        };
        self.counts.add(Count::Failures, server.0);
        let Some(ejection) = &self.ejection else { return };
        if !failed.health.failed(ejection.failures) {
            return;
        }
        let _ejecting = self.ejecting.lock();
        let now = self.now();
        let others_fit = (0..self.servers.len()).any(|index| index != server.0 && self.is_fit(index, now));
        if !others_fit || !failed.health.is_in(now) {
            return;
        }
        let Ejection { until, for_ } = failed.health.eject(now, ejection);
        self.counts.add(Count::Ejections, server.0);
        tracing::warn!(upstream = %self.name, server = %failed.address, ?for_, ?until, "a server is left out: its requests fail");
    }

    fn pick(&self, user: impl FnOnce() -> Vec<u8>, tried: &Tried) -> Option<usize> {
        let turn = self.balancer.turn(user);
        let mut now = None;
        let mut fit = |index: usize| {
            self.servers[index]
                .health
                .is_fit(|| *now.get_or_insert_with(|| self.now()))
        };
        let open = |index: usize| self.servers[index].open.load(Ordering::Relaxed);
        let found = turn.first(open, |index| fit(index) && !tried.contains(index));
        if found.is_some() {
            return found;
        }
        if tried.count() == 0 {
            self.counts.add_panic();
        }
        turn.first(open, |index| !tried.contains(index))
            .or_else(|| turn.first(open, |_| true))
    }

    fn open(self: &Arc<Self>, server: usize) -> InUse {
        self.servers[server].open.fetch_add(1, Ordering::Relaxed);
        InUse {
            upstream: Arc::clone(self),
            server,
        }
    }

    /// The time since its epoch.
    fn now(&self) -> Duration {
        clock::latest().saturating_duration_since(self.epoch)
    }

    fn is_fit(&self, index: usize, now: Duration) -> bool {
        self.servers[index].health.is_fit(|| now)
    }
}

#[cfg(test)]
mod tests;
