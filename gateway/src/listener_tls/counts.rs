//! What is measured of TLS. The labels are the configuration's.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use prometheus::proto::{MetricFamily, MetricType};

use super::TlsListener;
use crate::metrics::{counter, family, gauge};

#[derive(Debug)]
pub(super) struct Counts {
    completed: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    /// In the order of the configuration, and after them the authorities of clients.
    certificates: Vec<CertificateCounts>,
}

#[derive(Debug, Default)]
struct CertificateCounts {
    reloads: AtomicU64,
    failures: AtomicU64,
    faulty: AtomicBool,
}

impl Counts {
    pub(super) fn new(certificates: usize) -> Self {
        Self {
            completed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            certificates: (0..=certificates).map(|_| CertificateCounts::default()).collect(),
        }
    }

    pub(super) fn completed(&self) {
        self.completed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn timed_out(&self) {
        self.timed_out.fetch_add(1, Ordering::Relaxed);
    }

    /// A changed file was read: it is in force, or it is faulty.
    pub(super) fn reloaded(&self, certificate: usize, is_good: bool) {
        let Some(counts) = self.certificates.get(certificate) else {
            return;
        };
        let count = if is_good {
            &counts.reloads
        } else {
            &counts.failures
        };
        count.fetch_add(1, Ordering::Relaxed);
        counts.faulty.store(!is_good, Ordering::Relaxed);
    }

    /// The files are again what is in force.
    pub(super) fn restored(&self, certificate: usize) {
        if let Some(counts) = self.certificates.get(certificate) {
            counts.faulty.store(false, Ordering::Relaxed);
        }
    }
}

/// All that is measured of the listeners that speak TLS, each with its address.
pub(crate) fn families(listeners: &[Option<Arc<TlsListener>>]) -> Vec<MetricFamily> {
    let mut handshakes = Vec::new();
    let mut expiries = Vec::new();
    let mut faults = Vec::new();
    let mut reloads = Vec::new();
    for listener in listeners.iter().flatten() {
        let counts = &listener.counts;
        let address = listener.address.to_string();
        for (result, count) in [
            ("completed", &counts.completed),
            ("failed", &counts.failed),
            ("timed_out", &counts.timed_out),
        ] {
            let labels = [("listener", address.as_str()), ("result", result)];
            handshakes.push(counter(&labels, count.load(Ordering::Relaxed)));
        }
        let table = listener.certificates.table();
        let files = listener
            .config
            .certificates
            .iter()
            .map(|files| &files.certificate);
        for ((path, certificate), counts) in files.zip(table.all()).zip(&counts.certificates) {
            let path = shown(path);
            let labels = [("listener", address.as_str()), ("certificate", path.as_str())];
            #[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
            expiries.push(gauge(&labels, certificate.not_after.0 as f64));
            let faulty = counts.faulty.load(Ordering::Relaxed);
            faults.push(gauge(&labels, f64::from(u8::from(faulty))));
            for (result, count) in [("taken", &counts.reloads), ("refused", &counts.failures)] {
                let labels = [labels[0], labels[1], ("result", result)];
                reloads.push(counter(&labels, count.load(Ordering::Relaxed)));
            }
        }
        if let (Some(clients), Some(counts)) = (&listener.config.clients, counts.certificates.last()) {
            let path = shown(&clients.ca);
            let labels = [("listener", address.as_str()), ("certificate", path.as_str())];
            let faulty = counts.faulty.load(Ordering::Relaxed);
            faults.push(gauge(&labels, f64::from(u8::from(faulty))));
        }
    }
    vec![
        family(
            "durward_tls_handshakes_total",
            "TLS handshakes at the edge",
            MetricType::COUNTER,
            handshakes,
        ),
        family(
            "durward_tls_certificate_expiry_seconds",
            "When the certificate that is in force expires, in seconds since 1970",
            MetricType::GAUGE,
            expiries,
        ),
        family(
            "durward_tls_certificate_faulty",
            "Whether the files hold something else than is in force, which cannot be used",
            MetricType::GAUGE,
            faults,
        ),
        family(
            "durward_tls_certificate_reloads_total",
            "Changed certificate files that were read",
            MetricType::COUNTER,
            reloads,
        ),
    ]
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
