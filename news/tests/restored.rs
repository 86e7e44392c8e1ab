//! The database is another one than before: an older one was restored, or somebody else's is published.

mod parties;
mod servers;

use std::time::Duration;

use durward_contract::Sequence;
use durward_news::PublishFault;
use parties::{Gateway, MemoryLog, Road, publish, until, users};
use servers::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_database_is_neither_published_nor_attested() {
    let Road {
        server,
        log,
        publisher,
        gateway,
        task,
    } = Road::with(users(10)).await;
    log.restore(5);
    until("refused", || {
        publisher.status().fault == Some(PublishFault::LogWentBack)
    })
    .await;
    until("stale", || !gateway.is_fresh()).await;
    assert_eq!(gateway.applied(), Sequence(10));
    // Even where Redis is lost too, the gateway does not forget.
    server.ask(&["FLUSHALL"]);
    until("behind", || task.status().behind).await;
    assert!(gateway.refuses("user9") && gateway.applied() == Sequence(10));
    until("published", || publisher.status().healthy).await;
    assert!(!gateway.is_fresh());
    // Numbers beyond what it has are news again.
    for number in 0..10 {
        log.ban(&format!("new{number}"));
    }
    publisher.wake();
    until("fresh", || {
        gateway.is_fresh() && gateway.applied() == Sequence(15)
    })
    .await;
    gateway.was_told_the_truth();
}

/// Its numbers are given again, beyond what Redis has, to other entries than before: the log is not
/// believed for that, and what gateways know they keep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_database_that_has_overtaken_redis_is_not_believed_either() {
    let Road {
        server,
        log,
        publisher,
        gateway,
        task: _task,
    } = Road::with(users(10)).await;
    log.restore(5);
    until("noticed", || {
        publisher.status().fault == Some(PublishFault::LogWentBack)
    })
    .await;
    let before = publisher.status().attestations;
    for number in 0..6 {
        log.ban(&format!("again{number}"));
    }
    publisher.wake();
    until("stale", || !gateway.is_fresh()).await;
    let other = publish(&server.connector(), &log);
    until("another replica sees it too", || {
        other.status().fault == Some(PublishFault::LogWentBack)
    })
    .await;
    other.stop().await;
    assert_eq!(publisher.status().fault, Some(PublishFault::LogWentBack));
    assert_eq!(publisher.status().attestations, before);
    let reach = publisher.reach(Sequence(11), Duration::from_millis(100)).await;
    assert!(reach.is_err(), "{reach:?}");
    assert!(gateway.refuses("user9"));
    // The operator empties Redis to have it published again.
    server.ask(&["FLUSHALL"]);
    until("fresh", || {
        gateway.is_fresh() && gateway.applied() == Sequence(11)
    })
    .await;
    assert!(gateway.refuses("user9") && gateway.refuses("again5"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_database_waits_until_the_first_is_no_longer_published() {
    let server = Server::start(&[]);
    let first_log = MemoryLog::new();
    first_log.ban("alice");
    let first = publish(&server.connector(), &first_log);
    until("healthy", || first.status().healthy).await;
    let second_log = MemoryLog::new();
    second_log.set_log("log-2");
    second_log.ban("bob");
    second_log.ban("carol");
    let second = publish(&server.connector(), &second_log);
    until("refused", || {
        second.status().fault == Some(PublishFault::AnotherLog)
    })
    .await;
    let before = first.status().attestations;
    until("the first goes on", || first.status().attestations > before + 8).await;
    assert!(first.status().healthy && second.status().rebuilds == 0);
    first.stop().await;
    until("replaced", || second.status().healthy).await;
    let gateway = Gateway::new(&second_log);
    let _task = gateway.follow(&server.connector(), "edge");
    until("loaded", || gateway.is_loaded()).await;
    assert!(gateway.refuses("bob") && !gateway.refuses("alice"));
}
