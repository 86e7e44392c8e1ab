//! What the service measures about itself. Labels are closed sets; no user is ever one.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The service's metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub logins: IntCounterVec,
    pub registrations: IntCounterVec,
    pub refreshes: IntCounterVec,
    pub reuse_detections: IntCounter,
    pub hashing_waiting: IntGauge,
    pub hashing_running: IntGauge,
    pub log_head: IntGauge,
    pub attest_failures: IntCounter,
    pub key_reads: IntCounterVec,
    pub connections: IntGauge,
}

impl Metrics {
    /// Makes and registers them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let vector = |name: &str, help: &str| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), &["outcome"])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        Ok(Self {
            logins: vector("durward_auth_service_logins_total", "Logins by outcome.")?,
            registrations: vector(
                "durward_auth_service_registrations_total",
                "Registrations by outcome.",
            )?,
            refreshes: vector("durward_auth_service_refreshes_total", "Refreshes by outcome.")?,
            reuse_detections: counter(
                "durward_auth_service_refresh_reuse_detections_total",
                "Refresh tokens that came back and ended their session.",
            )?,
            hashing_waiting: gauge(
                "durward_auth_service_password_hash_queue",
                "Password checks that wait for their turn.",
            )?,
            hashing_running: gauge(
                "durward_auth_service_password_hash_in_use",
                "Password checks that run.",
            )?,
            log_head: gauge(
                "durward_auth_service_revocation_log_head",
                "The newest entry's number.",
            )?,
            attest_failures: counter(
                "durward_auth_service_revocation_attest_failures_total",
                "Times that the revocation log could not be read.",
            )?,
            key_reads: vector(
                "durward_auth_service_key_reads_total",
                "Looks at the folder of signing keys by outcome.",
            )?,
            connections: gauge("durward_auth_service_connections", "Open connections.")?,
        })
    }
}
