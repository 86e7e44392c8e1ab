//! The admin listener: health and metrics. Never on the edge.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use prometheus::proto::{MetricFamily, MetricType};

use crate::connections::Full;
use crate::decision::Known;
use crate::frame_watch::Flood;
use crate::generation::Generation;
use crate::listener_tls;
use crate::lookup::Lookups;
use crate::metrics::{counter, encode, family, gauge, histogram, single_counter, single_gauge};
use crate::proxy::Shared;
use crate::rate_limits::SharedQuotas;
use crate::readiness::Readiness;
use crate::revocation_feed::RevocationFeed;
use crate::upstreams;

/// How long a request's body may take to be thrown away.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
const ASSERTION_KEYS: &str = "/assertion/jwks.json";

pub(crate) struct Admin {
    pub(crate) shared: Arc<Shared>,
    pub(crate) draining: tokio::sync::watch::Receiver<bool>,
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
        let request = session.req_header();
        if request.method != Method::GET && request.method != Method::HEAD {
            session.set_keepalive(None);
            return text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
        }
        let head = request.method == Method::HEAD;
        let response = self.answer(request.uri.path());
        if head {
            response.map(|_| Vec::new())
        } else {
            response
        }
    }
}

impl Admin {
    fn answer(&self, path: &str) -> Response<Vec<u8>> {
        match path {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.readiness(),
            "/metrics" => self.metrics(),
            ASSERTION_KEYS => self.assertion_keys(),
            _ => text(StatusCode::NOT_FOUND, "known here: /livez, /readyz, /metrics\n"),
        }
    }

    fn readiness(&self) -> Response<Vec<u8>> {
        let readiness = Readiness::of(&self.shared, *self.draining.borrow());
        let status = if readiness.ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let mut body = serde_json::to_vec(&readiness).unwrap_or_default();
        body.push(b'\n');
        respond(status, "application/json", body)
    }

    /// The key that backends check assertions with.
    fn assertion_keys(&self) -> Response<Vec<u8>> {
        match &self.shared.assertions {
            Some(assertions) => respond(
                StatusCode::OK,
                "application/jwk-set+json",
                assertions.jwks().into_bytes(),
            ),
            None => text(StatusCode::NOT_FOUND, "there is no `assertion` section\n"),
        }
    }

    fn metrics(&self) -> Response<Vec<u8>> {
        match encode(families(&self.shared)) {
            Ok(body) => respond(StatusCode::OK, prometheus::TEXT_FORMAT, body),
            Err(error) => {
                tracing::error!(%error, "the metrics cannot be told");
                text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be told\n")
            }
        }
    }
}

/// Everything that is measured.
fn families(shared: &Shared) -> Vec<MetricFamily> {
    let mut families = shared.metrics.families();
    let generation = shared.current();
    families.extend(upstreams::families(&generation.upstreams));
    families.extend(stream_families(shared));
    families.extend(limit_families(shared, &generation));
    let store = shared.tallies.store();
    families.extend(store.into_iter().flat_map(|store| limit_store_families(store)));
    families.extend(revocation_families(shared));
    families.extend(key_families(&generation));
    families.extend(cache_families(&generation));
    families.extend(shared.asked.families());
    families.extend(listener_tls::families(&shared.tls));
    families.extend(shared.assertions.iter().map(|assertions| {
        single_counter(
            "durward_assertions_signed_total",
            "Assertions that were signed, and not used again",
            assertions.signed(),
        )
    }));
    families.push(single_gauge(
        "durward_config_generation",
        "The number of the configuration that runs: 1 at the start, and one more after each reload",
        whole(generation.number),
    ));
    families.extend(shared.reloads.families());
    families.push(single_counter(
        "durward_access_log_dropped_total",
        "Access log lines that could not be written",
        shared.log.dropped(),
    ));
    families.push(single_counter(
        "durward_access_log_left_out_total",
        "Access log lines of refused requests beyond refused_log_limit",
        shared.log.left_out(),
    ));
    families.extend(
        shared
            .neighbours
            .get()
            .into_iter()
            .flat_map(prometheus::Registry::gather),
    );
    families
}

fn limit_families(shared: &Shared, generation: &Generation) -> Vec<MetricFamily> {
    let connections = &shared.connections;
    let ended = Flood::ALL.map(|flood| counter(&[("limit", flood.name())], shared.floods.count(flood)));
    let refused = Full::ALL.map(|full| counter(&[("limit", full.key())], connections.refused(full)));
    let failures = generation
        .failures
        .iter()
        .map(|limit| ("failure_limit", limit.taken_over()));
    let counts = || generation.rate_limits.counts();
    let full = failures
        .chain(counts().map(|limit| (limit.name(), limit.taken_over())))
        .map(|(limit, count)| counter(&[("limit", limit)], count));
    let limited = counts().map(|limit| counter(&[("limit", limit.name())], limit.refused()));
    vec![
        single_gauge(
            "durward_connections",
            "Connections of the edge that are open",
            whole(connections.open() as u64),
        ),
        single_gauge(
            "durward_connections_max",
            "Connections that the edge takes at the same time",
            whole(connections.most() as u64),
        ),
        family(
            "durward_connections_refused_total",
            "Connections that were closed because a limit was reached",
            MetricType::COUNTER,
            refused.to_vec(),
        ),
        family(
            "durward_connections_ended_total",
            "Connections that were ended because of what came on them",
            MetricType::COUNTER,
            ended.to_vec(),
        ),
        family(
            "durward_limit_table_full_total",
            "Clients that took over what another owed, because a limit's table was full",
            MetricType::COUNTER,
            full.collect(),
        ),
        family(
            "durward_rate_limited_total",
            "Requests that a rate limit refused",
            MetricType::COUNTER,
            limited.collect(),
        ),
    ]
}

fn limit_store_families(store: &SharedQuotas) -> Vec<MetricFamily> {
    let outcomes = store
        .outcomes()
        .map(|(outcome, count)| counter(&[("outcome", outcome.name())], count));
    vec![
        single_gauge(
            "durward_rate_limit_store_up",
            "1 where the store of shared rate limits answered when it was last looked at",
            f64::from(u8::from(store.is_up())),
        ),
        family(
            "durward_rate_limit_store_total",
            "Questions to the store of shared rate limits",
            MetricType::COUNTER,
            outcomes.collect(),
        ),
    ]
}

fn stream_families(shared: &Shared) -> Vec<MetricFamily> {
    let cuts = shared
        .streams
        .cuts()
        .map(|(cut, count)| counter(&[("cause", cut.name())], count))
        .collect();
    vec![
        single_gauge(
            "durward_live_streams",
            "Authenticated requests, streams and WebSockets that are open",
            whole(shared.streams.len() as u64),
        ),
        single_gauge(
            "durward_requests_in_flight",
            "Requests that are open",
            whole(shared.in_flight.count()),
        ),
        family(
            "durward_streams_cut_total",
            "Open requests that were ended because their credential no longer holds, or their header was late",
            MetricType::COUNTER,
            cuts,
        ),
    ]
}

fn revocation_families(shared: &Shared) -> Vec<MetricFamily> {
    match &shared.known {
        Known::Nothing => Vec::new(),
        Known::Mirror(feed) => mirror_families(feed),
        Known::Store(lookups) => lookup_families(lookups),
    }
}

fn lookup_families(lookups: &Lookups) -> Vec<MetricFamily> {
    let times = lookups
        .times()
        .map(|(outcome, reading)| histogram(&[("outcome", outcome.name())], reading));
    let mut families = vec![
        family(
            "durward_lookup_duration_seconds",
            "Time the revocation store took to answer for a request",
            MetricType::HISTOGRAM,
            times.collect(),
        ),
        single_gauge(
            "durward_lookups_in_flight",
            "Requests that wait for the revocation store",
            whole(lookups.in_flight() as u64),
        ),
        single_gauge(
            "durward_revocation_store_up",
            "1 where the revocation store answered when it was last looked at",
            f64::from(u8::from(lookups.is_up())),
        ),
    ];
    if let Some(age) = lookups.stale_for() {
        families.push(single_gauge(
            "durward_revocation_staleness_seconds",
            "Time since the revocation store last answered",
            age.as_secs_f64(),
        ));
    }
    families
}

fn mirror_families(feed: &RevocationFeed) -> Vec<MetricFamily> {
    vec![
        single_gauge(
            "durward_revocation_entries",
            "Entries in the mirror",
            whole(feed.entries() as u64),
        ),
        single_gauge(
            "durward_api_key_grants",
            "API keys that are accepted",
            whole(feed.grants() as u64),
        ),
        single_gauge(
            "durward_revocation_staleness_seconds",
            "Age of the last revocation news",
            feed.staleness().as_secs_f64(),
        ),
        single_gauge(
            "durward_revocation_applied_sequence",
            "Place in the revocation log up to which all is applied",
            whole(feed.applied().0),
        ),
        single_gauge(
            "durward_revocation_mirror_whole",
            "1 where the mirror is known to hold everything up to its last news",
            f64::from(u8::from(feed.is_whole())),
        ),
    ]
}

fn key_families(generation: &Generation) -> Vec<MetricFamily> {
    let statuses: Vec<_> = generation.proofs.keys().statuses().collect();
    let ages = statuses.iter().filter_map(|(issuer, status)| {
        let age = status.read_at?.elapsed().as_secs_f64();
        Some(gauge(&[("issuer", issuer)], age))
    });
    let outcomes = statuses.iter().flat_map(|(issuer, status)| {
        [("success", status.successes), ("failure", status.failures)]
            .map(|(outcome, count)| counter(&[("issuer", issuer), ("outcome", outcome)], count))
    });
    vec![
        family(
            "durward_jwks_age_seconds",
            "Age of an issuer's keys",
            MetricType::GAUGE,
            ages.collect(),
        ),
        family(
            "durward_jwks_refreshes_total",
            "Readings of an issuer's keys",
            MetricType::COUNTER,
            outcomes.collect(),
        ),
    ]
}

fn cache_families(generation: &Generation) -> Vec<MetricFamily> {
    let (entries, bytes) = generation.proofs.size();
    vec![
        family(
            "durward_proof_cache_lookups_total",
            "Proofs asked for",
            MetricType::COUNTER,
            vec![
                counter(&[("outcome", "hit")], generation.proofs.hits()),
                counter(&[("outcome", "miss")], generation.proofs.misses()),
            ],
        ),
        single_gauge(
            "durward_proof_cache_entries",
            "Proofs remembered",
            whole(entries as u64),
        ),
        single_gauge(
            "durward_proof_cache_bytes",
            "Bytes that remembered proofs take",
            whole(bytes),
        ),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
fn whole(value: u64) -> f64 {
    value as f64
}

fn text(status: StatusCode, body: &str) -> Response<Vec<u8>> {
    respond(status, "text/plain; charset=utf-8", body.as_bytes().to_vec())
}

fn respond(status: StatusCode, content_type: &str, body: Vec<u8>) -> Response<Vec<u8>> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let length = response.body().len();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    if let Ok(content_type) = content_type.parse() {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    response
}
