//! News travels: from a log through a real Redis to gateways.

mod parties;
mod servers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use durward_contract::{Bar, Sequence};
use durward_news::{Publisher, PublisherOptions};
use parties::{Gateway, MemoryLog, NOBODY, Road, publish, until};
use servers::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_is_applied_by_every_gateway() {
    let server = Server::start(&[]);
    let log = MemoryLog::new();
    for number in 0..1500 {
        log.ban(&format!("early{number}"));
    }
    let publisher = publish(&server.connector(), &log);
    let gateways: Vec<_> = (0..3).map(|_| Gateway::new(&log)).collect();
    let tasks: Vec<_> = gateways
        .iter()
        .enumerate()
        .map(|(number, gateway)| gateway.follow(&server.connector(), &format!("edge{number}")))
        .collect();
    for gateway in &gateways {
        until("loaded and fresh", || gateway.is_loaded() && gateway.is_fresh()).await;
        assert_eq!(gateway.len(), 1500);
    }
    let mut took = Vec::new();
    for number in 0..100 {
        let user = format!("late{number}");
        let start = Instant::now();
        let sequence = log.ban(&user);
        publisher.wake();
        while !gateways.iter().all(|gateway| gateway.applied() >= sequence) {
            assert!(start.elapsed() < servers::PATIENCE);
            tokio::task::yield_now().await;
        }
        took.push(start.elapsed());
        assert!(gateways.iter().all(|gateway| gateway.refuses(&user)));
    }
    took.sort();
    println!(
        "commit to applied on three: p50 {:?}, p99 {:?}",
        took[50], took[98]
    );
    until("fresh", || gateways.iter().all(|gateway| gateway.is_fresh())).await;
    gateways.iter().for_each(|gateway| gateway.was_told_the_truth());
    assert!(tasks.iter().all(|task| task.status().loads == 1));
    publisher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_race_publish_each_entry_once_and_in_order() {
    let server = Server::start(&[]);
    let log = MemoryLog::new();
    let publishers: Vec<_> = (0..3)
        .map(|_| Arc::new(publish(&server.connector(), &log)))
        .collect();
    let gateway = Gateway::new(&log);
    let task = gateway.follow(&server.connector(), "edge");
    until("loaded", || gateway.is_loaded()).await;
    let racing: Vec<_> = publishers
        .iter()
        .enumerate()
        .map(|(replica, publisher)| {
            let (log, publisher) = (Arc::clone(&log), Arc::clone(publisher));
            tokio::spawn(async move {
                for number in 0..200 {
                    let sequence = log.ban(&format!("user{replica}-{number}"));
                    // One of them reads everything from SQL.
                    match replica {
                        0 => publisher.wake(),
                        _ => publisher.wake_with(&[log.row(sequence)]),
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in racing {
        task.await.unwrap();
    }
    until("all applied", || gateway.applied() == Sequence(600)).await;
    assert_eq!(gateway.len(), 600);
    until("fresh", || gateway.is_fresh()).await;
    gateway.was_told_the_truth();
    assert_eq!(task.status().loads, 1);
    assert!(
        publishers
            .iter()
            .map(|publisher| publisher.status().rebuilds)
            .sum::<u64>()
            <= 1
    );
    // A gateway that comes later loads what the others were told.
    let later = Gateway::new(&log);
    let _task = later.follow(&server.connector(), "later");
    until("loaded", || later.is_loaded()).await;
    assert_eq!(later.len(), 600);
}

/// Each replica publishes at once what it committed, also when others have published since it last
/// did: with a tick this long nothing but the wake-up can be what does it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_overtaken_publishes_at_once_all_the_same() {
    let server = Server::start(&[]);
    let log = MemoryLog::new();
    let options = PublisherOptions {
        tick: Duration::from_secs(3600),
        ..PublisherOptions::default()
    };
    let start = || Publisher::start(server.connector(), Arc::clone(&log) as _, options.clone());
    let replicas = [start(), start()];
    until("both have begun", || {
        replicas.iter().all(|replica| replica.status().attestations > 0)
    })
    .await;
    let gateway = Gateway::new(&log);
    let _task = gateway.follow(&server.connector(), "edge");
    until("loaded", || gateway.is_loaded()).await;
    for number in 0..20 {
        let sequence = log.ban(&format!("user{number}"));
        replicas[number % 2].wake();
        until("applied", || gateway.applied() >= sequence).await;
    }
}

/// With SQL down nothing but what the replica itself has committed can be published, and that is: also
/// when others have committed, and published, between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_has_committed_itself_goes_out_without_sql() {
    let server = Server::start(&[]);
    let log = MemoryLog::new();
    let options = PublisherOptions {
        tick: Duration::from_secs(3600),
        ..PublisherOptions::default()
    };
    let start = || Publisher::start(server.connector(), Arc::clone(&log) as _, options.clone());
    let replicas = [start(), start()];
    until("both have begun", || {
        replicas.iter().all(|replica| replica.status().attestations > 0)
    })
    .await;
    let gateway = Gateway::new(&log);
    let _task = gateway.follow(&server.connector(), "edge");
    until("loaded", || gateway.is_loaded()).await;
    log.set_down(true);
    for number in 0..20 {
        let sequence = log.ban(&format!("user{number}"));
        replicas[number % 2].wake_with(&[log.row(sequence)]);
        until("applied", || gateway.applied() >= sequence).await;
    }
    // What it does not have itself, it does not leave out.
    log.set_down(false);
    log.ban("of another");
    let last = log.ban("own");
    replicas[0].wake_with(&[log.row(last)]);
    until("applied", || gateway.applied() >= last).await;
    assert!(gateway.refuses("of another") && gateway.refuses("own"));
    assert_eq!(gateway.len(), 22);
    gateway.was_told_the_truth();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_granted_and_ended_and_expired_entries_leave_redis() {
    let server = Server::start(&[]);
    let log = MemoryLog::new();
    let publisher = publish(&server.connector(), &log);
    let gateway = Gateway::new(&log);
    let _task = gateway.follow(&server.connector(), "edge");
    until("loaded", || gateway.is_loaded()).await;
    log.grant("k1");
    log.grant("k2");
    publisher.wake();
    until("granted", || {
        gateway.accepts_key("k1") && gateway.accepts_key("k2")
    })
    .await;
    log.end_key("k1");
    log.revoke("alice", Bar::Always, Some(log.clock() + 10));
    publisher.wake();
    until("ended", || !gateway.accepts_key("k1") && gateway.refuses("alice")).await;
    let entries = || server.ask(&["HKEYS", &server.entries()]);
    let held = entries();
    assert!(
        held.contains("g:6:issuer:k2") && !held.contains("g:6:issuer:k1"),
        "{held}"
    );
    assert!(held.contains("alice"), "{held}");
    log.advance(11);
    until("forgotten", || !entries().contains("alice")).await;
    let later = Gateway::new(&log);
    let _task = later.follow(&server.connector(), "later");
    until("loaded", || later.is_loaded() && later.is_fresh()).await;
    assert!(later.accepts_key("k2") && !later.accepts_key("k1") && !later.refuses("alice"));
    assert_eq!(publisher.status().rebuilds, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_entry_that_refuses_less_does_not_displace_one_that_refuses_more() {
    let server = Server::start(&[]);
    let log = MemoryLog::new();
    let publisher = publish(&server.connector(), &log);
    log.revoke("alice", Bar::EpochBelow(9), None);
    log.revoke("alice", Bar::EpochBelow(10), Some(log.clock() + 10));
    log.revoke("bob", Bar::EpochBelow(9), None);
    let last = log.revoke("bob", Bar::EpochBelow(3), None);
    publisher.wake();
    until("published", || publisher.status().published == last).await;
    let gateway = Gateway::new(&log);
    let _task = gateway.follow(&server.connector(), "edge");
    until("loaded", || gateway.is_loaded()).await;
    let mut alice = gateway.bars("alice");
    alice.sort_by_key(|bar| format!("{bar:?}"));
    assert_eq!(alice, [Bar::EpochBelow(10), Bar::EpochBelow(9)]);
    assert_eq!(gateway.bars("bob"), [Bar::EpochBelow(9)]);
    // One that refuses more takes its place.
    let last = log.revoke("bob", Bar::EpochBelow(12), None);
    publisher.wake();
    until("published", || publisher.status().published == last).await;
    log.advance(11);
    let entries = server.entries();
    until("forgotten", || !server.ask(&["HKEYS", &entries]).contains('#')).await;
    let later = Gateway::new(&log);
    let _task = later.follow(&server.connector(), "later");
    until("loaded", || later.is_loaded()).await;
    assert_eq!(later.bars("alice"), [Bar::EpochBelow(9)]);
    assert_eq!(later.bars("bob"), [Bar::EpochBelow(12)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_purged_leave_no_gap() {
    let Road {
        server: _server,
        log,
        publisher,
        gateway,
        task,
    } = Road::with(NOBODY).await;
    for number in 0..10 {
        log.ban(&format!("user{number}"));
    }
    log.purge(3..=4);
    log.purge(9..=10);
    until("all applied", || gateway.applied() == Sequence(10)).await;
    until("published", || publisher.status().published == Sequence(10)).await;
    assert_eq!(gateway.len(), 6);
    until("fresh", || gateway.is_fresh()).await;
    gateway.was_told_the_truth();
    assert_eq!(task.status().loads, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_travels_through_a_cluster() {
    let nodes = servers::cluster().await;
    for seed in &nodes {
        let namespace = format!("at-{}", seed.port);
        let store = format!("redis+cluster://127.0.0.1:{}", seed.port);
        let connector = servers::connector(&store, &format!("namespace: {namespace}"));
        let log = MemoryLog::new();
        log.ban("alice");
        let publisher = publish(&connector, &log);
        let gateway = Gateway::new(&log);
        let _task = gateway.follow(&connector, "edge");
        until("loaded", || gateway.is_fresh()).await;
        let bob = log.ban("bob");
        publisher.wake();
        assert!(
            publisher
                .reach(bob, servers::PATIENCE)
                .await
                .unwrap()
                .is_complete()
        );
        assert!(gateway.refuses("alice") && gateway.refuses("bob"));
        gateway.was_told_the_truth();
    }
}

/// The commands that docs/NEWS_PROTOCOL.md names.
fn documented(who: &str) -> Vec<String> {
    let page = include_str!("../../docs/NEWS_PROTOCOL.md");
    let line = page
        .lines()
        .find(|line| line.contains("+@connection +info"))
        .unwrap();
    let (publisher, gateway) = line.split_once("A gateway needs").unwrap();
    let part = if who == "gateway" { gateway } else { publisher };
    let list = part.split('`').nth(1).unwrap();
    list.split(' ').map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_need_no_more_than_the_page_says() {
    let server = Server::start(&[]);
    let password = server.folder.join("password");
    std::fs::write(&password, "hunter2").unwrap();
    for user in ["publisher", "gateway"] {
        let mut words = vec!["ACL", "SETUSER", user, "on", ">hunter2", "~{durward}:*", "-@all"];
        let commands = documented(user);
        words.extend(commands.iter().map(String::as_str));
        assert_eq!(server.ask(&words), "+OK\r\n");
    }
    let as_user = |user: &str| {
        let options = format!("username: {user}, password: {{ file: {} }}", password.display());
        servers::connector(&server.url(), &options)
    };
    let log = MemoryLog::new();
    log.revoke("alice", Bar::Always, Some(log.clock() + 10));
    log.grant("k1");
    let publisher = publish(&as_user("publisher"), &log);
    let gateway = Gateway::new(&log);
    let task = gateway.follow(&as_user("gateway"), "edge");
    until("fresh", || gateway.is_fresh()).await;
    let end = log.end_key("k1");
    publisher.wake();
    assert!(
        publisher
            .reach(end, servers::PATIENCE)
            .await
            .unwrap()
            .is_complete()
    );
    log.advance(11);
    until("forgotten", || {
        !server.ask(&["HKEYS", &server.entries()]).contains("alice")
    })
    .await;
    server.ask(&["DEL", "{durward}:meta"]);
    until("rebuilt", || {
        publisher.status().rebuilds == 2 && publisher.status().healthy
    })
    .await;
    until("loaded", || task.status().loads == 2 && gateway.is_fresh()).await;
    task.stop().await;
    assert!(!server.ask(&["HVALS", "{durward}:gateways"]).contains("edge"));
    assert_eq!(publisher.status().refused_writes, 0);
}
