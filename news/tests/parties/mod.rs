//! Both ends of the road, in memory: a log as SQL would have it, and a gateway that notes what it is
//! told and whether that was true.
#![allow(dead_code, reason = "each test file uses a part of it")]

mod gateway;
mod log;

use std::sync::Arc;
use std::time::{Duration, Instant};

use durward_news::{Connector, FollowerOptions, FollowerTask, Log, Publisher, PublisherOptions, Timeouts};

pub use self::gateway::Gateway;
pub use self::log::MemoryLog;
use crate::servers::{PATIENCE, Server};

/// Everything faster than in production, so that tests are short.
pub fn publisher_options() -> PublisherOptions {
    PublisherOptions {
        tick: Duration::from_millis(100),
        health_check: Duration::from_millis(200),
        timeouts: short(),
        longest_wait: Duration::from_millis(200),
        ..PublisherOptions::default()
    }
}

pub fn follower_options() -> FollowerOptions {
    FollowerOptions {
        pulse: Duration::from_millis(30),
        timeouts: short(),
        longest_wait: Duration::from_millis(200),
        reload_spread: Duration::from_millis(50),
        longest_lag: Duration::from_millis(400),
        reload_unreadable: Duration::from_millis(500),
        ..FollowerOptions::default()
    }
}

fn short() -> Timeouts {
    Timeouts {
        connect: Duration::from_millis(700),
        response: Duration::from_millis(700),
    }
}

/// What nothing is fresher than once its source is gone: pulse and tick, with room for a busy machine.
pub const STALE: Duration = Duration::from_millis(1500);

/// A Redis with one publisher and one gateway that has loaded and is fresh.
pub struct Road {
    pub server: Server,
    pub log: Arc<MemoryLog>,
    pub publisher: Publisher,
    pub gateway: Arc<Gateway>,
    pub task: FollowerTask,
}

impl Road {
    /// Opens it through this server, with these users banned before.
    pub async fn through(server: Server, banned: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let log = MemoryLog::new();
        for user in banned {
            log.ban(user.as_ref());
        }
        let publisher = publish(&server.connector(), &log);
        let gateway = Gateway::new(&log);
        let task = gateway.follow(&server.connector(), "edge");
        until("loaded and fresh", || gateway.is_fresh()).await;
        Self {
            server,
            log,
            publisher,
            gateway,
            task,
        }
    }

    /// The same through a Redis as it comes.
    pub async fn with(banned: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Self::through(Server::start(&[]), banned).await
    }
}

/// `user0`, `user1`, and so on.
pub fn users(number: usize) -> impl Iterator<Item = String> {
    (0..number).map(|number| format!("user{number}"))
}

pub const NOBODY: [&str; 0] = [];

pub fn publish(connector: &Connector, log: &Arc<MemoryLog>) -> Publisher {
    let log: Arc<dyn Log> = Arc::<MemoryLog>::clone(log);
    Publisher::start(connector.clone(), log, publisher_options())
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
