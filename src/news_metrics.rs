//! What publisher and follower measure about themselves, read when somebody asks.

use std::sync::{Arc, Mutex};

use durward_news::{FollowerTask, PublishFault, Publisher};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts};

type Result<T> = std::result::Result<T, prometheus::Error>;

/// The publisher's.
pub struct PublisherMetrics {
    publisher: Arc<Publisher>,
    up: IntGauge,
    published: IntGauge,
    fault: IntGaugeVec,
    events: Events,
}

impl PublisherMetrics {
    /// Of this publisher.
    pub fn new(publisher: Arc<Publisher>) -> Result<Self> {
        Ok(Self {
            publisher,
            up: IntGauge::new(
                "durward_news_publisher_up",
                "1 where all of the revocation log is in Redis and attested",
            )?,
            published: IntGauge::new(
                "durward_news_published_sequence",
                "Place in the revocation log up to which all is in Redis",
            )?,
            fault: IntGaugeVec::new(
                Opts::new(
                    "durward_news_publisher_fault",
                    "1 for what is wrong with publishing now, 0 for what is not",
                ),
                &["fault"],
            )?,
            events: Events::new(
                "durward_news_publisher_events_total",
                "What happened while publishing: attestation, rebuild, refused_write, eviction",
            )?,
        })
    }
}

impl Collector for PublisherMetrics {
    fn desc(&self) -> Vec<&Desc> {
        [
            self.up.desc(),
            self.published.desc(),
            self.fault.desc(),
            self.events.counter.desc(),
        ]
        .concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = self.publisher.status();
        self.up.set(i64::from(status.healthy));
        self.published.set(whole(status.published.0));
        for fault in PublishFault::all() {
            let now = i64::from(status.fault == Some(fault));
            self.fault.with_label_values(&[fault.as_str()]).set(now);
        }
        self.events.set("attestation", status.attestations);
        self.events.set("rebuild", status.rebuilds);
        self.events.set("refused_write", status.refused_writes);
        self.events.set("eviction", status.evictions);
        [
            self.up.collect(),
            self.published.collect(),
            self.fault.collect(),
            self.events.counter.collect(),
        ]
        .concat()
    }
}

/// The follower's.
pub struct FollowerMetrics {
    follower: Arc<FollowerTask>,
    up: IntGauge,
    behind: IntGauge,
    events: Events,
    errors: Events,
}

impl FollowerMetrics {
    /// Of this follower.
    pub fn new(follower: Arc<FollowerTask>) -> Result<Self> {
        Ok(Self {
            follower,
            up: IntGauge::new("durward_revocation_store_up", "1 where Redis answers")?,
            behind: IntGauge::new(
                "durward_revocation_store_doubtful",
                "1 where Redis has less than was applied, or an entry that cannot be read",
            )?,
            events: Events::new(
                "durward_revocation_store_events_total",
                "What happened while following: load, attestation",
            )?,
            errors: Events::new(
                "durward_revocation_store_errors_total",
                "Connections to Redis that ended in an error, by kind",
            )?,
        })
    }
}

impl Collector for FollowerMetrics {
    fn desc(&self) -> Vec<&Desc> {
        [
            self.up.desc(),
            self.behind.desc(),
            self.events.counter.desc(),
            self.errors.counter.desc(),
        ]
        .concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = self.follower.status();
        self.up.set(i64::from(status.connected));
        self.behind.set(i64::from(status.behind || status.unreadable));
        self.events.set("load", status.loads);
        self.events.set("attestation", status.attestations);
        for (fault, count) in status.errors() {
            self.errors.set(fault.as_str(), count);
        }
        [
            self.up.collect(),
            self.behind.collect(),
            self.events.counter.collect(),
            self.errors.counter.collect(),
        ]
        .concat()
    }
}

/// Counters of one closed set of events, which are counted elsewhere.
struct Events {
    counter: IntCounterVec,
    /// Two who ask at once must not both add what is new.
    setting: Mutex<()>,
}

impl Events {
    fn new(name: &str, help: &str) -> Result<Self> {
        Ok(Self {
            counter: IntCounterVec::new(Opts::new(name, help), &["event"])?,
            setting: Mutex::new(()),
        })
    }

    fn set(&self, event: &str, count: u64) {
        let _setting = self.setting.lock();
        let counter = self.counter.with_label_values(&[event]);
        counter.inc_by(count.saturating_sub(counter.get()));
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
