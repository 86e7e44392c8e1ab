//! What the gateway measures about itself, and how it is told.
//!
//! Every label set is the configuration's: routes, reasons and phases, never users, paths or tokens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use durward_policy::{Phase, Policy, Reason, Route};
use parking_lot::Mutex;
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

/// What is measured of requests, for as long as the process runs.
pub(crate) struct Metrics {
    authentication: ShortTimes,
    phases: ShortTimes,
    /// By name: a route that keeps its name keeps its counts, whatever generation it is of.
    routes: Mutex<BTreeMap<String, Arc<RouteCounts>>>,
}

/// What is measured of one route.
pub(crate) struct RouteCounts {
    name: String,
    decisions: Counters,
    total: LongTimes,
    upstream: LongTimes,
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The name of what is counted of requests without a route.
const NO_ROUTE: &str = "none";

impl RouteCounts {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            decisions: Counters::new(Reason::ALL.len() + 1),
            total: LongTimes::new(CLASSES.len()),
            upstream: LongTimes::new(CLASSES.len()),
        }
    }

    /// The name of the route.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Counts a response: how long the request took, and how long its upstream took to begin one.
    pub(crate) fn responded(&self, status: u16, total: Duration, upstream: Option<Duration>) {
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        self.total.observe(class, nanoseconds(total));
        if let Some(upstream) = upstream {
            self.upstream.observe(class, nanoseconds(upstream));
        }
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            authentication: ShortTimes::new(Outcome::ALL.len()),
            phases: ShortTimes::new(Phase::ALL.len() + 1),
            routes: Mutex::default(),
        }
    }

    /// What is counted of each route of a policy, and last of requests without one. Routes that no
    /// generation has any more are forgotten, so that there are never more than are in use.
    pub(crate) fn of_routes(&self, policy: &Policy) -> Vec<Arc<RouteCounts>> {
        let mut routes = self.routes.lock();
        let mut names = route_names(policy);
        names.push(NO_ROUTE.into());
        let found = names
            .iter()
            .map(|name| {
                let new = || Arc::new(RouteCounts::new(name));
                Arc::clone(routes.entry(name.clone()).or_insert_with(new))
            })
            .collect();
        routes.retain(|_, counts| Arc::strong_count(counts) > 1);
        found
    }

    /// Counts a decision and its time, and those of its phases where they were measured.
    pub(crate) fn decided(
        &self,
        route: &RouteCounts,
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
        // Reason is a plain enum in the order of Reason::ALL.
        let cell = refused.map_or(0, |reason| reason as usize + 1);
        route.decisions.add(cell, 1);
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

    /// The families that requests move.
    pub(crate) fn families(&self) -> Vec<MetricFamily> {
        let routes: Vec<_> = self.routes.lock().values().cloned().collect();
        vec![
            self.authentication_family(),
            self.phase_family(),
            decision_family(&routes),
            response_family(
                "durward_request_duration_seconds",
                "Time from header to end of response",
                &routes,
                |route| &route.total,
            ),
            response_family(
                "durward_upstream_duration_seconds",
                "Time from the decision to the head of the upstream's response",
                &routes,
                |route| &route.upstream,
            ),
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
}

fn decision_family(routes: &[Arc<RouteCounts>]) -> MetricFamily {
    let of = |route: &RouteCounts, cell: usize| {
        let count = route.decisions.get(cell);
        let (outcome, reason) = match cell.checked_sub(1) {
            None => (Outcome::Permitted, "none"),
            Some(reason) => (Outcome::Refused, Reason::ALL[reason].code()),
        };
        let labels = [
            ("route", route.name()),
            ("outcome", outcome.name()),
            ("reason", reason),
        ];
        (count > 0).then(|| counter(&labels, count))
    };
    let metrics = routes
        .iter()
        .flat_map(|route| (0..=Reason::ALL.len()).filter_map(|cell| of(route, cell)))
        .collect();
    family(
        "durward_auth_decisions_total",
        "Decisions",
        MetricType::COUNTER,
        metrics,
    )
}

fn response_family(
    name: &str,
    help: &str,
    routes: &[Arc<RouteCounts>],
    times: impl Fn(&RouteCounts) -> &LongTimes,
) -> MetricFamily {
    let of = |route: &RouteCounts, class: usize| {
        let labels = [("route", route.name()), ("status", CLASSES[class])];
        Some(histogram(&labels, times(route).read(class)?))
    };
    let metrics = routes
        .iter()
        .flat_map(|route| (0..CLASSES.len()).filter_map(|class| of(route, class)))
        .collect();
    family(name, help, MetricType::HISTOGRAM, metrics)
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
        let metrics = Metrics::new();
        let routes = metrics.of_routes(&Policy::refuse_everything(crate::testing::DIGEST_KEY));
        let times = PhaseTimes {
            facts: 300,
            phases: [400, 0, 0, 0, 0, 0],
        };
        metrics.decided(
            &routes[0],
            Some(Reason::NoRoute),
            Duration::from_nanos(900),
            Some(&times),
        );
        routes[0].responded(404, Duration::from_millis(1), None);
        let text = text_of(&metrics);
        for line in [
            "durward_auth_duration_seconds_count{outcome=\"refused\"} 1",
            "durward_auth_phase_duration_seconds_bucket{phase=\"route\",le=\"0.0000005\"} 1",
            "durward_auth_phase_duration_seconds_count{phase=\"facts\"} 1",
            "durward_auth_decisions_total{route=\"none\",outcome=\"refused\",reason=\"no_route\"} 1",
            "durward_request_duration_seconds_count{route=\"none\",status=\"4xx\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_route_keeps_its_counts_while_it_keeps_its_name_and_is_forgotten_with_its_last_generation() {
        let metrics = Metrics::new();
        let two = crate::testing::policy(
            "issuers: [{ use: auth }]\nrevocations: none\n\
             routes: [{ path: /old/**, upstream: api }, { path: /api/**, upstream: api }]\n",
        );
        let one = crate::testing::own_policy();
        let count = |route: &RouteCounts| metrics.decided(route, None, Duration::from_nanos(900), None);
        let first = metrics.of_routes(&two);
        count(&first[0]);
        count(&first[1]);
        let second = metrics.of_routes(&one);
        count(&second[0]);
        let line = |route: &str, count: u64| {
            format!(
                "durward_auth_decisions_total{{route=\"{route}\",outcome=\"permitted\",reason=\"none\"}} {count}\n"
            )
        };
        let (old, api) = (first[0].name().to_owned(), second[0].name().to_owned());
        let text = text_of(&metrics);
        assert!(
            text.contains(&line(&api, 2)) && text.contains(&line(&old, 1)),
            "{text}"
        );
        drop(first);
        let third = metrics.of_routes(&one);
        assert_eq!(third.len(), second.len());
        let text = text_of(&metrics);
        assert!(
            text.contains(&line(&api, 2)) && !text.contains(&line(&old, 1)),
            "{text}"
        );
    }

    fn text_of(metrics: &Metrics) -> String {
        String::from_utf8(encode(metrics.families()).unwrap()).unwrap()
    }
}
