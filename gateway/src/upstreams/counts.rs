//! What is counted of upstreams and their servers. The labels are the configuration's.

use std::sync::Arc;

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::Upstream;
use crate::metrics::{counter, family, gauge};
use crate::sharded::Counters;

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

#[derive(Debug)]
pub(super) struct Counts {
    servers: usize,
    by_server: Counters,
    /// Retries, and requests for which no server was fit.
    of_all: Counters,
}

impl Counts {
    pub(super) fn new(servers: usize) -> Self {
        Self {
            servers,
            by_server: Counters::new(servers * COUNTS),
            of_all: Counters::new(2),
        }
    }

    pub(super) fn add(&self, count: Count, server: usize) {
        self.by_server.add(server * COUNTS + count as usize, 1);
    }

    pub(super) fn add_retry(&self) {
        self.of_all.add(0, 1);
    }

    pub(super) fn add_panic(&self) {
        self.of_all.add(1, 1);
    }

    /// The requests to all servers.
    pub(super) fn requests(&self) -> u64 {
        (0..self.servers)
            .map(|server| self.get(Count::Requests, server))
            .sum()
    }

    fn get(&self, count: Count, server: usize) -> u64 {
        self.by_server.get(server * COUNTS + count as usize)
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
            of_all(0),
        ),
        family(
            "durward_upstream_no_server_fit_total",
            "Requests for which no server was fit, so that all were asked in turn",
            total,
            of_all(1),
        ),
    ]
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
