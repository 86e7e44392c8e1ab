//! A fleet that starts at once loads a few at a time, and a gateway that starts alone waits for nobody.

mod parties;
mod servers;

use std::time::{Duration, Instant};

use durward_news::{FollowerOptions, FollowerTask};
use parties::{Gateway, MemoryLog, follower_options, publish, until};
use servers::Server;

const LOADS: &str = "{durward}:loads";

/// Milliseconds on Redis's clock.
fn clock(server: &Server) -> u64 {
    let time = server.ask(&["TIME"]);
    let number = |at: usize| time.lines().nth(at).unwrap().parse::<u64>().unwrap();
    number(2) * 1000 + number(4) / 1000
}

fn hold_all(server: &Server, till: u64) {
    for place in 1..=follower_options().loads_at_once {
        let held = format!("{till} other");
        server.ask(&["HSET", LOADS, &place.to_string(), &held]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_no_place_waits_reports_and_loads_when_there_is_one() {
    let server = Server::start(&[]);
    let log = MemoryLog::new();
    log.ban("alice");
    let publisher = publish(&server.connector(), &log);
    until("healthy", || publisher.status().healthy).await;
    hold_all(&server, clock(&server) + 4500);
    let gateway = Gateway::new(&log);
    let task = gateway.follow(&server.connector(), "edge");
    let report = || server.ask(&["HVALS", "{durward}:gateways"]);
    until("reported", || report().contains(" - 0 edge")).await;
    until("it has asked", || {
        server.ask(&["INFO", "commandstats"]).contains("cmdstat_time:")
    })
    .await;
    until("connected", || task.status().connected).await;
    assert!(!gateway.is_loaded());
    // Those who wait are named as missing.
    let bob = log.ban("bob");
    publisher.wake();
    let reach = publisher.reach(bob, Duration::from_millis(100)).await.unwrap();
    assert!(!reach.is_complete(), "{reach:?}");
    server.ask(&["HDEL", LOADS, "2"]);
    until("loaded", || gateway.is_fresh()).await;
    assert!(gateway.refuses("alice") && gateway.refuses("bob"));
    // It has given its place back, and taken nobody else's.
    until("given back", || server.ask(&["HLEN", LOADS]).starts_with(":3")).await;
    assert_eq!(task.status().errors().map(|(_, count)| count).sum::<u64>(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_is_lost_with_its_holder_and_when_redis_sets_its_clock_back() {
    let server = Server::start(&[]);
    let log = MemoryLog::new();
    let _publisher = publish(&server.connector(), &log);
    for till in [
        clock(&server) + 300,
        // By a clock that was an hour ahead.
        clock(&server) + 3_600_000,
    ] {
        hold_all(&server, till);
        let gateway = Gateway::new(&log);
        let _task = gateway.follow(&server.connector(), "edge");
        until("loaded", || gateway.is_loaded()).await;
    }
}

/// Redis is built anew while somebody waits for a place: the old epoch is not waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_place_hears_of_another_epoch() {
    let server = Server::start(&[]);
    let log = MemoryLog::new();
    log.ban("alice");
    let publisher = publish(&server.connector(), &log);
    until("healthy", || publisher.status().healthy).await;
    hold_all(&server, clock(&server) + 4500);
    let gateway = Gateway::new(&log);
    let task = gateway.follow(&server.connector(), "edge");
    until("it has asked", || {
        server.ask(&["INFO", "commandstats"]).contains("cmdstat_time:")
    })
    .await;
    server.ask(&["DEL", "{durward}:meta"]);
    until("rebuilt", || publisher.status().rebuilds == 2).await;
    server.ask(&["DEL", LOADS]);
    until("loaded", || gateway.is_fresh()).await;
    assert!(gateway.refuses("alice"));
    assert_eq!(task.status().errors().map(|(_, count)| count).sum::<u64>(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_starts_at_once_loads_a_few_at_a_time() {
    const GATEWAYS: usize = 24;
    let server = Server::start(&[]);
    let log = MemoryLog::new();
    for number in 0..10_000 {
        log.ban(&format!("user{number}"));
    }
    let publisher = publish(&server.connector(), &log);
    until("healthy", || publisher.status().healthy).await;
    let gateways: Vec<_> = (0..GATEWAYS).map(|_| Gateway::new(&log)).collect();
    let options = FollowerOptions {
        loads_at_once: 2,
        ..follower_options()
    };
    let start = |gateway: &std::sync::Arc<Gateway>| {
        FollowerTask::start(
            server.connector(),
            std::sync::Arc::clone(gateway) as _,
            "edge",
            options.clone(),
        )
    };
    let tasks: Vec<_> = gateways.iter().map(start).collect();
    let began = Instant::now();
    let (mut most, mut seen) = (0, 0);
    while !gateways.iter().all(|gateway| gateway.is_loaded()) {
        assert!(began.elapsed() < 2 * servers::PATIENCE, "some never load");
        let clients = server.ask(&["CLIENT", "LIST"]);
        let scanning = clients.matches("cmd=hscan").count();
        most = most.max(scanning);
        seen += scanning;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!((1..=2).contains(&most) && seen > 0, "{most} scanned at once");
    assert!(gateways.iter().all(|gateway| gateway.len() == 10_000));
    assert!(tasks.iter().all(|task| task.status().loads == 1));
}
