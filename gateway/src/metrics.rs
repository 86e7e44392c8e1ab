//! What the gateway measures about itself, and how it is told.
//!
//! Every label set is known at start: routes, reasons and phases, never users, paths or tokens.

use std::time::Duration;

use durward_policy::{Phase, Policy, Reason, Route, RouteId};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use crate::sharded::{Counters, Histograms, Reading};

/// From 250 ns to 32 ms.
type ShortTimes = Histograms<250, 18>;
/// From 100 us to 13 s.
type LongTimes = Histograms<100_000, 18>;

/// What of the authentication is timed beside the policy's own phases.
const FACTS: &str = "facts";

/// What came of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Permitted,
    Refused,
}

impl Outcome {
    const ALL: [Self; 2] = [Self::Permitted, Self::Refused];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Permitted => "permitted",
            Self::Refused => "refused",
        }
    }
}

/// The time each phase took, in nanoseconds; 0 where it was not entered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PhaseTimes {
    pub(crate) facts: u64,
    pub(crate) phases: [u64; 6],
}

pub(crate) struct Metrics {
    routes: Vec<String>,
    authentication: ShortTimes,
    phases: ShortTimes,
    decisions: Counters,
    total: LongTimes,
    upstream: LongTimes,
    upstream_failures: Counters,
    upstreams: Vec<String>,
}

/// Reasons for which a permitted request fails at its upstream.
const UPSTREAM_REASONS: [Reason; 7] = [
    Reason::UpstreamUnavailable,
    Reason::UpstreamConnectTimeout,
    Reason::UpstreamFirstByteTimeout,
    Reason::UpstreamTimeout,
    Reason::UpstreamTotalTimeout,
    Reason::UpstreamTls,
    Reason::UpstreamInvalid,
];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl Metrics {
    pub(crate) fn new(policy: &Policy, upstreams: Vec<String>) -> Self {
        let mut routes = route_names(policy);
        routes.push("none".into());
        Self {
            authentication: ShortTimes::new(Outcome::ALL.len()),
            phases: ShortTimes::new(Phase::ALL.len() + 1),
            decisions: Counters::new(routes.len() * (Reason::ALL.len() + 1)),
            total: LongTimes::new(routes.len() * CLASSES.len()),
            upstream: LongTimes::new(routes.len() * CLASSES.len()),
            upstream_failures: Counters::new(upstreams.len() * UPSTREAM_REASONS.len()),
            routes,
            upstreams,
        }
    }

    /// The name of a route.
    pub(crate) fn route_name(&self, route: Option<RouteId>) -> &str {
        &self.routes[self.route_index(route)]
    }

    /// Counts a decision and its time, and those of its phases where they were measured.
    pub(crate) fn decided(
        &self,
        route: Option<RouteId>,
        refused: Option<Reason>,
        took: Duration,
        times: Option<&PhaseTimes>,
    ) {
        let outcome = if refused.is_some() {
            Outcome::Refused
        } else {
            Outcome::Permitted
        };
        self.authentication.observe(outcome as usize, nanoseconds(took));
        self.decisions.add(self.decision_cell(route, refused), 1);
        if let Some(times) = times {
            self.time_phases(times);
        }
    }

    fn time_phases(&self, times: &PhaseTimes) {
        let phases = times
            .phases
            .iter()
            .chain(std::iter::once(&times.facts))
            .enumerate();
        for (phase, took) in phases.filter(|(_, took)| **took > 0) {
            self.phases.observe(phase, *took);
        }
    }

    /// Counts a response: how long the request took, and how long its upstream took to begin one.
    pub(crate) fn responded(
        &self,
        route: Option<RouteId>,
        status: u16,
        total: Duration,
        upstream: Option<Duration>,
    ) {
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        let cell = self.route_index(route) * CLASSES.len() + class;
        self.total.observe(cell, nanoseconds(total));
        if let Some(upstream) = upstream {
            self.upstream.observe(cell, nanoseconds(upstream));
        }
    }

    /// Counts a permitted request that its upstream did not answer.
    pub(crate) fn upstream_failed(&self, upstream: usize, reason: Reason) {
        if let Some(index) = UPSTREAM_REASONS.iter().position(|known| *known == reason) {
            self.upstream_failures
                .add(upstream * UPSTREAM_REASONS.len() + index, 1);
        }
    }

    /// The families that requests move.
    pub(crate) fn families(&self) -> Vec<MetricFamily> {
        vec![
            self.authentication_family(),
            self.phase_family(),
            self.decision_family(),
            self.response_family(
                "durward_request_duration_seconds",
                "Time from header to end of response",
                &self.total,
            ),
            self.response_family(
                "durward_upstream_duration_seconds",
                "Time from the decision to the head of the upstream's response",
                &self.upstream,
            ),
            self.failure_family(),
        ]
    }

    fn authentication_family(&self) -> MetricFamily {
        let of = |outcome: Outcome| {
            let reading = self.authentication.read(outcome as usize)?;
            Some(histogram(&[("outcome", outcome.name())], reading))
        };
        let metrics = Outcome::ALL.into_iter().filter_map(of).collect();
        family(
            "durward_auth_duration_seconds",
            "Time a decision took",
            MetricType::HISTOGRAM,
            metrics,
        )
    }

    fn phase_family(&self) -> MetricFamily {
        let names = Phase::ALL
            .iter()
            .map(|phase| phase.name())
            .chain(std::iter::once(FACTS))
            .enumerate();
        let of = |(cell, name)| Some(histogram(&[("phase", name)], self.phases.read(cell)?));
        let help = "Time a phase of a decision took";
        family(
            "durward_auth_phase_duration_seconds",
            help,
            MetricType::HISTOGRAM,
            names.filter_map(of).collect(),
        )
    }

    fn decision_family(&self) -> MetricFamily {
        let reasons = Reason::ALL.len() + 1;
        let of = |cell: usize| {
            let count = self.decisions.get(cell);
            let (outcome, reason) = match (cell % reasons).checked_sub(1) {
                None => (Outcome::Permitted, "none"),
                Some(reason) => (Outcome::Refused, Reason::ALL[reason].code()),
            };
            let route = self.routes[cell / reasons].as_str();
            let labels = [("route", route), ("outcome", outcome.name()), ("reason", reason)];
            (count > 0).then(|| counter(&labels, count))
        };
        let metrics = (0..self.routes.len() * reasons).filter_map(of).collect();
        family(
            "durward_auth_decisions_total",
            "Decisions",
            MetricType::COUNTER,
            metrics,
        )
    }

    fn response_family(&self, name: &str, help: &str, times: &LongTimes) -> MetricFamily {
        let of = |cell: usize| {
            let (route, class) = (
                self.routes[cell / CLASSES.len()].as_str(),
                CLASSES[cell % CLASSES.len()],
            );
            Some(histogram(
                &[("route", route), ("status", class)],
                times.read(cell)?,
            ))
        };
        let metrics = (0..self.routes.len() * CLASSES.len()).filter_map(of).collect();
        family(name, help, MetricType::HISTOGRAM, metrics)
    }

    fn failure_family(&self) -> MetricFamily {
        let of = |cell: usize| {
            let upstream = self.upstreams[cell / UPSTREAM_REASONS.len()].as_str();
            let reason = UPSTREAM_REASONS[cell % UPSTREAM_REASONS.len()].code();
            counter(
                &[("upstream", upstream), ("reason", reason)],
                self.upstream_failures.get(cell),
            )
        };
        let metrics = (0..self.upstreams.len() * UPSTREAM_REASONS.len())
            .map(of)
            .collect();
        family(
            "durward_upstream_failures_total",
            "Permitted requests that their upstream did not answer",
            MetricType::COUNTER,
            metrics,
        )
    }

    fn route_index(&self, route: Option<RouteId>) -> usize {
        let none = self.routes.len() - 1;
        route.map_or(none, |route| (route.0 as usize).min(none))
    }

    fn decision_cell(&self, route: Option<RouteId>, refused: Option<Reason>) -> usize {
        // Reason is a plain enum in the order of Reason::ALL.
        let reason = refused.map_or(0, |reason| reason as usize + 1);
        self.route_index(route) * (Reason::ALL.len() + 1) + reason
    }
}

/// The routes' names; one that several share (routes of one pattern that differ in their methods) gets
/// the route's number, so that no two series are the same.
fn route_names(policy: &Policy) -> Vec<String> {
    let name = |route: &Route| {
        let twins = policy
            .routes()
            .iter()
            .filter(|other| other.name == route.name)
            .count();
        if twins > 1 {
            format!("{} #{}", route.name, route.id.0)
        } else {
            route.name.to_string()
        }
    };
    policy.routes().iter().map(name).collect()
}

/// The text exposition format.
pub(crate) fn encode(families: Vec<MetricFamily>) -> Result<Vec<u8>, prometheus::Error> {
    let families: Vec<_> = families
        .into_iter()
        .filter(|family| !family.get_metric().is_empty())
        .collect();
    let mut text = Vec::with_capacity(16 << 10);
    TextEncoder::new().encode(&families, &mut text)?;
    Ok(text)
}

/// A family of one kind.
pub(crate) fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

/// A gauge without labels, as a family.
pub(crate) fn single_gauge(name: &str, help: &str, value: f64) -> MetricFamily {
    family(name, help, MetricType::GAUGE, vec![gauge(&[], value)])
}

/// A counter without labels, as a family.
pub(crate) fn single_counter(name: &str, help: &str, value: u64) -> MetricFamily {
    family(name, help, MetricType::COUNTER, vec![counter(&[], value)])
}

pub(crate) fn gauge(pairs: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_gauge(gauge);
    metric
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
pub(crate) fn counter(pairs: &[(&str, &str)], value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_counter(counter);
    metric
}

pub(crate) fn histogram(pairs: &[(&str, &str)], reading: Reading) -> Metric {
    let bucket = |(bound, count): (f64, u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    };
    let mut histogram = Histogram::default();
    histogram.set_bucket(reading.buckets.into_iter().map(bucket).collect());
    histogram.set_sample_count(reading.count);
    histogram.set_sample_sum(reading.sum_seconds);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_histogram(histogram);
    metric
}

fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    pairs.iter().map(pair).collect()
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_index_their_list() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }

    #[test]
    fn what_is_counted_is_told() {
        let metrics = Metrics::new(
            &Policy::refuse_everything(crate::testing::DIGEST_KEY),
            vec!["api".into()],
        );
        let times = PhaseTimes {
            facts: 300,
            phases: [400, 0, 0, 0, 0, 0],
        };
        metrics.decided(
            None,
            Some(Reason::NoRoute),
            Duration::from_nanos(900),
            Some(&times),
        );
        metrics.responded(None, 404, Duration::from_millis(1), None);
        let text = String::from_utf8(encode(metrics.families()).unwrap()).unwrap();
        for line in [
            "durward_auth_duration_seconds_count{outcome=\"refused\"} 1",
            "durward_auth_phase_duration_seconds_bucket{phase=\"route\",le=\"0.0000005\"} 1",
            "durward_auth_phase_duration_seconds_count{phase=\"facts\"} 1",
            "durward_auth_decisions_total{outcome=\"refused\",reason=\"no_route\",route=\"none\"} 1",
            "durward_request_duration_seconds_count{route=\"none\",status=\"4xx\"} 1",
            "durward_upstream_failures_total{reason=\"upstream_timeout\",upstream=\"api\"} 0",
        ] {
            assert!(
                text.contains(line) || text.contains(&unsorted(line)),
                "{line} is not in\n{text}"
            );
        }
    }

    /// The same line with its labels in the order of this file.
    fn unsorted(line: &str) -> String {
        line.replace(
            "outcome=\"refused\",reason=\"no_route\",route=\"none\"",
            "route=\"none\",outcome=\"refused\",reason=\"no_route\"",
        )
        .replace(
            "reason=\"upstream_timeout\",upstream=\"api\"",
            "upstream=\"api\",reason=\"upstream_timeout\"",
        )
    }
}
