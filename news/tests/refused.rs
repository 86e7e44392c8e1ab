//! Redis refuses what it is given, or would not keep it: that is news not yet delivered, and said.

mod parties;
mod servers;

use std::time::Duration;

use durward_news::{FollowerTask, PublishFault, StoreFault};
use parties::{Gateway, MemoryLog, Road, publish, until};
use servers::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_refuses_and_what_it_refused_comes_later() {
    let Road {
        server,
        log,
        publisher,
        gateway,
        task: _task,
    } = Road::with(["alice"]).await;
    server.ask(&["CONFIG", "SET", "maxmemory", "1mb"]);
    let bob = log.ban("bob");
    publisher.wake();
    until("refused", || {
        publisher.status().fault == Some(PublishFault::Store(StoreFault::Full))
    })
    .await;
    assert!(publisher.status().refused_writes > 0 && !publisher.status().healthy);
    until("stale", || !gateway.is_fresh()).await;
    assert!(!gateway.refuses("bob"));
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    until("delivered", || gateway.applied() == bob && gateway.is_fresh()).await;
    gateway.was_told_the_truth();
    assert!(publisher.status().healthy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_may_evict_is_never_attested() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]);
    let log = MemoryLog::new();
    log.ban("alice");
    let publisher = publish(&server.connector(), &log);
    let gateway = Gateway::new(&log);
    let _task = gateway.follow(&server.connector(), "edge");
    let evicting = Some(PublishFault::Store(StoreFault::Evicting));
    until("refused", || publisher.status().fault == evicting).await;
    // News is worth having, trust it is not.
    until("loaded", || gateway.refuses("alice")).await;
    assert!(!publisher.status().healthy && publisher.status().attestations == 0);
    assert_eq!(gateway.age(), Duration::MAX);
    let bob = log.ban("bob");
    publisher.wake();
    until("applied", || gateway.applied() == bob).await;
    server.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    until("fresh", || gateway.is_fresh() && publisher.status().healthy).await;
    gateway.was_told_the_truth();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_does_not_say_whether_it_evicts_is_never_attested() {
    let server = Server::start(&[]);
    let secretive = ["ACL", "SETUSER", "default", "-info", "-config"];
    assert_eq!(server.ask(&secretive), "+OK\r\n");
    let log = MemoryLog::new();
    let publisher = publish(&server.connector(), &log);
    let evicting = Some(PublishFault::Store(StoreFault::Evicting));
    until("refused", || publisher.status().fault == evicting).await;
    assert_eq!(publisher.status().attestations, 0);
    // Either of the two is enough.
    assert_eq!(server.ask(&["ACL", "SETUSER", "default", "+config"]), "+OK\r\n");
    until("healthy", || publisher.status().healthy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_neither_written_nor_believed() {
    let server = Server::start(&[]);
    let log = MemoryLog::new();
    log.ban("alice");
    let publisher = publish(&server.connector(), &log);
    until("healthy", || publisher.status().healthy).await;
    let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", server.port)]);
    until("copied", || {
        replica.ask(&["EXISTS", "{durward}:meta"]).contains(":1")
    })
    .await;
    let lost = publish(&replica.connector(), &log);
    let gateway = Gateway::new(&log);
    let task = gateway.follow(&replica.connector(), "edge");
    until("refused", || {
        lost.status().fault == Some(PublishFault::Store(StoreFault::NotMaster))
    })
    .await;
    until("refused", || errors(&task, StoreFault::NotMaster) > 1).await;
    assert!(!gateway.is_loaded());
}

/// Bans somebody while Redis takes no writes, and again once it does.
async fn is_refused_and_delivered_later(road: &Road, off: impl Fn(), on: impl Fn()) {
    let Road {
        log,
        publisher,
        gateway,
        task,
        ..
    } = road;
    assert_eq!(publisher.status().refused_writes, 0);
    off();
    let bob = log.ban("bob");
    publisher.wake();
    let not_writable = Some(PublishFault::Store(StoreFault::NotWritable));
    until("refused", || publisher.status().fault == not_writable).await;
    let refused = publisher.status().refused_writes;
    assert!(refused > 0 && !publisher.status().healthy);
    until("tried again", || publisher.status().refused_writes > refused).await;
    until("stale", || !gateway.is_fresh()).await;
    assert!(gateway.refuses("alice") && !gateway.refuses("bob"));
    until("said by the gateway", || {
        errors(task, StoreFault::NotWritable) > 0
    })
    .await;
    on();
    until("delivered", || gateway.applied() == bob && gateway.is_fresh()).await;
    gateway.was_told_the_truth();
    let status = publisher.status();
    assert!(status.healthy && status.fault.is_none(), "{status:?}");
}

fn errors(task: &FollowerTask, of: StoreFault) -> u64 {
    let status = task.status();
    let mut errors = status.errors();
    errors
        .find(|(fault, _)| *fault == of)
        .map_or(0, |(_, count)| count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_lacks_replicas_refuses_and_what_it_refused_comes_later() {
    let road = Road::with(["alice"]).await;
    let need = |replicas: &str| {
        let reply = road
            .server
            .ask(&["CONFIG", "SET", "min-replicas-to-write", replicas]);
        assert_eq!(reply, "+OK\r\n");
    };
    is_refused_and_delivered_later(&road, || need("1"), || need("0")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_cannot_save_refuses_and_what_it_refused_comes_later() {
    let strict = Server::start(&["--stop-writes-on-bgsave-error", "yes"]);
    let road = Road::through(strict, ["alice"]).await;
    let server = &road.server;
    assert_eq!(server.ask(&["CONFIG", "SET", "save", "3600 1"]), "+OK\r\n");
    // Not even root can replace a folder with a file.
    let dump = server.folder.join("dump.rdb");
    let save = |status: &str| {
        let start = std::time::Instant::now();
        server.ask(&["BGSAVE"]);
        let status = format!("rdb_last_bgsave_status:{status}\r");
        while !server.ask(&["INFO", "persistence"]).contains(&status) {
            assert!(start.elapsed() < servers::PATIENCE, "never {status}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let off = || {
        std::fs::create_dir(&dump).unwrap();
        save("err");
    };
    let on = || {
        std::fs::remove_dir(&dump).unwrap();
        save("ok");
    };
    is_refused_and_delivered_later(&road, off, on).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_may_not_write_is_refused_too() {
    let server = Server::start(&[]);
    let log = MemoryLog::new();
    let publisher = publish(&server.connector(), &log);
    until("healthy", || publisher.status().healthy).await;
    server.ask(&["ACL", "SETUSER", "default", "-evalsha", "-eval"]);
    let login = Some(PublishFault::Store(StoreFault::Login));
    until("refused", || publisher.status().fault == login).await;
    assert!(publisher.status().refused_writes > 0);
    server.ask(&["ACL", "SETUSER", "default", "+evalsha", "+eval"]);
    until("healthy", || publisher.status().healthy).await;
}
