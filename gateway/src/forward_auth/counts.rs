//! How often proxies ask, and others.

use durward_policy::AskingProxy;
use prometheus::proto::{MetricFamily, MetricType};

use crate::metrics::{counter, family, single_counter};
use crate::sharded::Counters;

const UNTRUSTED: usize = AskingProxy::ALL.len();

/// Counts questions by who asks. What came of them is counted with all other decisions.
pub(crate) struct ForwardAuthCounts(Counters);

impl Default for ForwardAuthCounts {
    fn default() -> Self {
        Self(Counters::new(UNTRUSTED + 1))
    }
}

impl ForwardAuthCounts {
    pub(super) fn asked(&self, proxy: AskingProxy) {
        self.0.add(proxy as usize, 1);
    }

    pub(super) fn untrusted(&self) {
        self.0.add(UNTRUSTED, 1);
    }

    /// Of proxies that have asked.
    pub(crate) fn families(&self) -> Vec<MetricFamily> {
        let asked = AskingProxy::ALL
            .into_iter()
            .map(|proxy| (proxy, self.0.get(proxy as usize)))
            .filter(|(_, count)| *count > 0)
            .map(|(proxy, count)| counter(&[("proxy", proxy.name())], count));
        vec![
            family(
                "durward_forward_auth_questions_total",
                "Requests that a proxy asked about",
                MetricType::COUNTER,
                asked.collect(),
            ),
            single_counter(
                "durward_forward_auth_untrusted_total",
                "Questions of peers that are not in forward_auth.trusted",
                self.0.get(UNTRUSTED),
            ),
        ]
    }
}
