//! Whether the gateway can decide, and what it lacks if not.

use serde::Serialize;

use crate::decision::Known;
use crate::proxy::Shared;

/// The answer of `/readyz`.
#[derive(Debug, Serialize)]
pub(crate) struct Readiness {
    pub(crate) ready: bool,
    /// What is missing, in words.
    pub(crate) missing: Vec<String>,
}

impl Readiness {
    pub(crate) fn of(shared: &Shared, draining: bool) -> Self {
        let mut missing: Vec<String> = shared
            .current()
            .proofs
            .keys()
            .missing()
            .map(|issuer| format!("the keys of issuer {issuer}"))
            .collect();
        match &shared.known {
            Known::Mirror(feed) if !feed.is_loaded() => {
                missing.push("the first snapshot of the revocations".into());
            }
            Known::Store(lookups) if lookups.stale_for().is_none() => {
                missing.push("the first answer of the revocation store".into());
            }
            Known::Nothing | Known::Mirror(_) | Known::Store(_) => {}
        }
        if draining {
            missing.push("the gateway is shutting down".into());
        }
        Self {
            ready: missing.is_empty(),
            missing,
        }
    }
}
