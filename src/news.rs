//! Both ends of the road through Redis, wired: the auth service's log as the publisher reads it, the
//! gateway's mirror as the follower fills it, and what both tell of themselves.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use durward_auth::{AuthService, Fleet, GatewayReach, Reach};
use durward_contract::{Follower, News, Sequence, UnixSeconds};
use durward_gateway::{GatewayConfig, RevocationFeed};
use durward_news::{
    Connector, FollowerOptions, FollowerTask, Log, LogError, LogHead, Publisher, PublisherOptions,
    RedisTarget,
};
use prometheus::Registry;

use crate::exit::Failure;
use crate::news_metrics::{FollowerMetrics, PublisherMetrics};

/// An auth service's log on its way to Redis.
pub struct Publishing {
    publisher: Arc<Publisher>,
}

/// Publishes a service's log from now on, and lets its callers wait for the gateways.
pub fn publish(
    target: &RedisTarget,
    service: &AuthService,
    registry: &Registry,
) -> Result<Publishing, Failure> {
    let publisher = Arc::new(Publisher::start(
        Connector::new(target),
        Arc::new(ServiceLog(service.clone())),
        PublisherOptions::default(),
    ));
    let metrics = PublisherMetrics::new(Arc::clone(&publisher)).map_err(Failure::failed)?;
    registry.register(Box::new(metrics)).map_err(Failure::failed)?;
    service.follow_with(Arc::new(Followers(Arc::clone(&publisher))));
    Ok(Publishing { publisher })
}

impl Publishing {
    /// Ends after the step that is under way.
    pub async fn stop(self) {
        self.publisher.stop().await;
    }
}

/// Fills a gateway's mirror from Redis from now on.
pub fn follow(
    target: &RedisTarget,
    feed: &Arc<RevocationFeed>,
    config: &GatewayConfig,
    registry: &Registry,
) -> Result<Arc<FollowerTask>, Failure> {
    let follower = Arc::new(FollowerTask::start(
        Connector::new(target),
        Arc::clone(feed) as Arc<dyn Follower>,
        &name_of(config),
        FollowerOptions::default(),
    ));
    let metrics = FollowerMetrics::new(Arc::clone(&follower)).map_err(Failure::failed)?;
    registry.register(Box::new(metrics)).map_err(Failure::failed)?;
    Ok(follower)
}

/// What people call a gateway: its machine, and where it listens.
fn name_of(config: &GatewayConfig) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let listen = config.listen.first().map(|listener| listener.address.to_string());
    let listen = listen.unwrap_or_default();
    format!("{} {listen}", host.trim())
}

/// The service's log in SQL.
struct ServiceLog(AuthService);

#[async_trait]
impl Log for ServiceLog {
    async fn head(&self) -> Result<LogHead, LogError> {
        let (log, head) = self.0.log_head().await.map_err(log_error)?;
        Ok(LogHead { log, head })
    }

    async fn after(&self, sequence: Sequence, limit: u32) -> Result<Vec<News>, LogError> {
        self.0.log_after(sequence, limit).await.map_err(log_error)
    }

    async fn standing(&self, after: Sequence, limit: u32) -> Result<Vec<News>, LogError> {
        self.0.log_standing(after, limit).await.map_err(log_error)
    }

    fn forgets_until(&self) -> UnixSeconds {
        self.0.forgets_until()
    }
}

fn log_error(problem: durward_auth::Problem) -> LogError {
    LogError(problem.to_string())
}

/// The gateways that follow, and report to, Redis.
struct Followers(Arc<Publisher>);

impl Fleet for Followers {
    fn committed(&self, news: &[News]) {
        self.0.wake_with(news);
    }

    fn reach(&self, head: Sequence, within: Duration) -> Pin<Box<dyn Future<Output = Reach> + Send + '_>> {
        Box::pin(async move {
            let asked = Instant::now();
            match self.0.reach(head, within).await {
                Ok(reach) => Reach {
                    gateways: reach
                        .gateways
                        .into_iter()
                        .map(|gateway| GatewayReach {
                            name: gateway.name,
                            after: gateway.after.filter(|_| gateway.applied),
                        })
                        .collect(),
                    took: reach.took,
                },
                Err(error) => {
                    tracing::error!(%error, "Redis does not say how far the news has come");
                    // Nobody is known to have it.
                    Reach {
                        gateways: vec![GatewayReach {
                            name: "all that follow Redis, which does not answer".to_owned(),
                            after: None,
                        }],
                        took: asked.elapsed(),
                    }
                }
            }
        })
    }
}

/// The gateway in the same process: it has applied whatever is acknowledged.
pub struct InProcess {
    feed: Arc<RevocationFeed>,
    name: String,
}

impl InProcess {
    /// The gateway of this feed.
    pub fn new(feed: &Arc<RevocationFeed>, config: &GatewayConfig) -> Self {
        Self {
            feed: Arc::clone(feed),
            name: name_of(config),
        }
    }
}

impl Fleet for InProcess {
    fn committed(&self, _news: &[News]) {}

    fn reach(&self, head: Sequence, _within: Duration) -> Pin<Box<dyn Future<Output = Reach> + Send + '_>> {
        let applied = self.feed.applied() >= head;
        let gateway = GatewayReach {
            name: self.name.clone(),
            after: applied.then_some(Duration::ZERO),
        };
        Box::pin(std::future::ready(Reach {
            gateways: vec![gateway],
            took: Duration::ZERO,
        }))
    }
}
