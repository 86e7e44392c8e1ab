//! What is counted of upstreams and their servers. The labels are the configuration's.

use std::net::SocketAddr;
use std::sync::Arc;

use durward_policy::Reason;
use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::Upstream;
use crate::metrics::{counter, family, gauge};
use crate::sharded::Counters;
use crate::upstream_config::ServerConfig;

/// What is counted of a server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Count {
    Requests,
    Failures,
    Ejections,
    ChecksPassed,
    ChecksFailed,
}

const COUNTS: usize = 5;

/// Reasons for which a permitted request fails at its upstream.
const REASONS: [Reason; 7] = [
    Reason::UpstreamUnavailable,
    Reason::UpstreamConnectTimeout,
    Reason::UpstreamFirstByteTimeout,
    Reason::UpstreamTimeout,
    Reason::UpstreamTotalTimeout,
    Reason::UpstreamTls,
    Reason::UpstreamInvalid,
];

const RETRIES: usize = 0;
const PANICS: usize = 1;
/// The first of those by reason.
const FAILURES: usize = 2;

/// Shared with the upstream of the same name in the generation before, and by server with its
/// servers of the same address.
#[derive(Debug)]
pub(super) struct Counts {
    by_server: Vec<(SocketAddr, Arc<Counters>)>,
    /// Retries, requests for which no server was fit, and failures by reason.
    of_all: Arc<Counters>,
}

impl Counts {
    pub(super) fn new(servers: &[ServerConfig]) -> Self {
        Self::build(servers, |_| None, None)
    }

    /// Goes on where these are.
    pub(super) fn successor(&self, servers: &[ServerConfig]) -> Self {
        let known = |address: SocketAddr| {
            let mut known = self.by_server.iter();
            known
                .find(|(known, _)| *known == address)
                .map(|(_, counters)| Arc::clone(counters))
        };
        Self::build(servers, known, Some(Arc::clone(&self.of_all)))
    }

    fn build(
        servers: &[ServerConfig],
        known: impl Fn(SocketAddr) -> Option<Arc<Counters>>,
        of_all: Option<Arc<Counters>>,
    ) -> Self {
        let counters = |address| known(address).unwrap_or_else(|| Arc::new(Counters::new(COUNTS)));
        let server = |server: &ServerConfig| (server.address, counters(server.address));
        Self {
            by_server: servers.iter().map(server).collect(),
            of_all: of_all.unwrap_or_else(|| Arc::new(Counters::new(FAILURES + REASONS.len()))),
        }
    }

    pub(super) fn add(&self, count: Count, server: usize) {
        if let Some((_, counters)) = self.by_server.get(server) {
            counters.add(count as usize, 1);
        }
    }

    pub(super) fn add_retry(&self) {
        self.of_all.add(RETRIES, 1);
    }

    pub(super) fn add_panic(&self) {
        self.of_all.add(PANICS, 1);
    }

    pub(super) fn add_failure(&self, reason: Reason) {
        if let Some(index) = REASONS.iter().position(|known| *known == reason) {
            self.of_all.add(FAILURES + index, 1);
        }
    }

    /// The requests to all servers.
    pub(super) fn requests(&self) -> u64 {
        let of = |(_, counters): &(SocketAddr, Arc<Counters>)| counters.get(Count::Requests as usize);
        self.by_server.iter().map(of).sum()
    }

    fn get(&self, count: Count, server: usize) -> u64 {
        self.by_server
            .get(server)
            .map_or(0, |(_, counters)| counters.get(count as usize))
    }
}

/// All that is measured of the upstreams.
pub(crate) fn families(upstreams: &[Arc<Upstream>]) -> Vec<MetricFamily> {
    let counters = |count: Count| {
        by_server(upstreams, &|upstream, index, labels| {
            vec![counter(labels, upstream.counts.get(count, index))]
        })
    };
    let checks = by_server(upstreams, &|upstream, index, labels| {
        let [name, server] = [labels[0], labels[1]];
        let of = |(word, count)| {
            counter(
                &[name, server, ("result", word)],
                upstream.counts.get(count, index),
            )
        };
        let results = [("passed", Count::ChecksPassed), ("failed", Count::ChecksFailed)];
        if upstream.health_check.is_none() {
            return Vec::new();
        }
        results.into_iter().map(of).collect()
    });
    let up = by_server(upstreams, &|upstream, index, labels| {
        let fit = upstream.is_fit(index, upstream.epoch.elapsed());
        vec![gauge(labels, f64::from(u8::from(fit)))]
    });
    let of_all = |cell| {
        let of = |upstream: &Arc<Upstream>| {
            counter(&[("upstream", &upstream.name)], upstream.counts.of_all.get(cell))
        };
        upstreams.iter().map(of).collect()
    };
    let total = MetricType::COUNTER;
    vec![
        family(
            "durward_upstream_server_up",
            "1 where the server is neither found down nor left out",
            MetricType::GAUGE,
            up,
        ),
        family(
            "durward_upstream_server_requests_total",
            "Requests that were offered to the server",
            total,
            counters(Count::Requests),
        ),
        family(
            "durward_upstream_server_failures_total",
            "Requests that the server did not begin to answer",
            total,
            counters(Count::Failures),
        ),
        family(
            "durward_upstream_server_ejections_total",
            "How often the server was left out because its requests fail",
            total,
            counters(Count::Ejections),
        ),
        family(
            "durward_upstream_health_checks_total",
            "Health checks",
            total,
            checks,
        ),
        family(
            "durward_upstream_retries_total",
            "Requests that were offered to another server",
            total,
            of_all(RETRIES),
        ),
        family(
            "durward_upstream_no_server_fit_total",
            "Requests for which no server was fit, so that all were asked in turn",
            total,
            of_all(PANICS),
        ),
        failure_family(upstreams),
    ]
}

fn failure_family(upstreams: &[Arc<Upstream>]) -> MetricFamily {
    let of = |upstream: &Arc<Upstream>, index: usize| {
        let labels = [
            ("upstream", upstream.name.as_str()),
            ("reason", REASONS[index].code()),
        ];
        counter(&labels, upstream.counts.of_all.get(FAILURES + index))
    };
    let metrics = upstreams
        .iter()
        .flat_map(|upstream| (0..REASONS.len()).map(move |index| of(upstream, index)))
        .collect();
    family(
        "durward_upstream_failures_total",
        "Permitted requests that their upstream did not answer",
        MetricType::COUNTER,
        metrics,
    )
}

/// What is told of a server: its upstream, its index, and the labels that name it.
type OfServer<'a> = dyn Fn(&Upstream, usize, &[(&str, &str); 2]) -> Vec<Metric> + 'a;

fn by_server(upstreams: &[Arc<Upstream>], of: &OfServer<'_>) -> Vec<Metric> {
    let mut metrics = Vec::new();
    for upstream in upstreams {
        for (index, server) in upstream.servers.iter().enumerate() {
            let address = server.address.to_string();
            let labels = [("upstream", upstream.name.as_str()), ("server", address.as_str())];
            metrics.extend(of(upstream, index, &labels));
        }
    }
    metrics
}
