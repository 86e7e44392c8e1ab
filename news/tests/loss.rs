//! Redis loses what it was given; SQL is the truth, and no revocation is lost.

mod parties;
mod servers;

use std::time::Instant;

use durward_contract::Sequence;
use parties::{Gateway, MemoryLog, Road, publish, until, users};
use servers::{PATIENCE, Server, connector};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_was_killed_and_starts_empty_is_filled_again() {
    let Road {
        mut server,
        log,
        publisher,
        gateway,
        task,
    } = Road::with(users(1000)).await;
    server.kill();
    let meanwhile = log.ban("meanwhile");
    publisher.wake();
    until("stale", || !gateway.is_fresh()).await;
    // What it knows still bites.
    assert!(gateway.refuses("user7") && gateway.len() == 1000);
    assert!(!task.status().connected);
    server.restart();
    until("whole again", || {
        gateway.applied() == meanwhile && gateway.is_fresh()
    })
    .await;
    assert_eq!(gateway.len(), 1001);
    gateway.was_told_the_truth();
    assert_eq!(publisher.status().rebuilds, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_and_damaged_keys_are_noticed_and_built_anew() {
    let Road {
        server,
        log,
        publisher,
        gateway,
        task,
    } = Road::with(users(1000)).await;
    let meta = || "{durward}:meta".to_owned();
    let damages: [&dyn Fn(); 6] = [
        &|| drop(server.ask(&["FLUSHALL"])),
        &|| drop(server.ask(&["DEL", &meta()])),
        &|| drop(server.ask(&["DEL", &server.entries()])),
        &|| {
            let held = server.ask(&["HRANDFIELD", &server.entries()]);
            let field = held.lines().nth(1).unwrap().to_owned();
            server.ask(&["HDEL", &server.entries(), &field]);
        },
        &|| drop(server.ask(&["HSET", &meta(), "head", "garbage"])),
        &|| drop(server.ask(&["HDEL", &meta(), "log"])),
    ];
    for (number, damage) in damages.iter().enumerate() {
        damage();
        let rebuilds = 2 + number as u64;
        until("rebuilt", || publisher.status().rebuilds == rebuilds).await;
        let last = log.ban(&format!("after{number}"));
        publisher.wake();
        until("applied", || gateway.applied() == last).await;
        assert!(gateway.refuses(&format!("after{number}")), "{number}");
        let later = Gateway::new(&log);
        let _later = later.follow(&server.connector(), "later");
        until("loaded", || later.is_loaded()).await;
        assert_eq!(later.len(), gateway.len(), "{number}");
    }
    until("fresh", || gateway.is_fresh()).await;
    gateway.was_told_the_truth();
    assert!(task.status().loads >= 6);
    // Nothing is left behind of old epochs.
    let keys = server.ask(&["KEYS", "*"]);
    assert_eq!(keys.matches(":entries").count(), 1, "{keys}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_in_the_stream_and_one_that_is_silent_make_it_load_again() {
    let Road {
        server,
        log,
        publisher,
        gateway,
        task,
    } = Road::with(["alice"]).await;
    publisher.stop().await;
    let (meta, entries) = ("{durward}:meta", server.entries());
    let stream = entries.replace(":entries", ":stream");
    let script = |script: &str, arguments: &[&str]| {
        let words = [&["EVAL", script, "3", meta, &entries, &stream], arguments].concat();
        let reply = server.ask(&words);
        assert!(!reply.starts_with('-'), "{reply}");
    };
    // Batch 2 was trimmed before it was read.
    let bob = log.news(log.ban("bob"));
    script(
        "redis.call('HSET', KEYS[2], 'slot-of-bob', ARGV[1])
         redis.call('HSET', KEYS[1], 'head', 3, 'count', 2)
         redis.call('XADD', KEYS[3], '3-0', 'first', 3)",
        &[&bob],
    );
    until("loaded again", || task.status().loads == 2).await;
    assert!(gateway.refuses("bob") && gateway.applied() == Sequence(3));
    // The stream is gone altogether, and nothing comes.
    log.ban("carol");
    let carol = log.news(log.ban("carol"));
    script(
        "redis.call('HSET', KEYS[2], 'slot-of-carol', ARGV[1])
         redis.call('HSET', KEYS[1], 'head', 4, 'count', 3)
         redis.call('UNLINK', KEYS[3])",
        &[&carol],
    );
    until("loaded again", || task.status().loads == 3).await;
    assert!(gateway.refuses("carol"));
    gateway.was_told_the_truth();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_keeps_the_last_entries_only() {
    let server = Server::start(&["--stream-node-max-entries", "1"]);
    let log = MemoryLog::new();
    let options = durward_news::PublisherOptions {
        stream_entries: 1000,
        ..parties::publisher_options()
    };
    let publisher = durward_news::Publisher::start(server.connector(), log.clone(), options);
    until("healthy", || publisher.status().healthy).await;
    for round in 1..=10 {
        for number in 0..600 {
            log.ban(&format!("user{round}-{number}"));
        }
        publisher.wake();
        until("published", || publisher.status().published == log.head_now()).await;
    }
    let stream = server.entries().replace(":entries", ":stream");
    let oldest = server.ask(&["XRANGE", &stream, "-", "+", "COUNT", "1"]);
    let oldest = oldest
        .lines()
        .find_map(|line| line.strip_suffix("-0"))
        .unwrap()
        .to_owned();
    assert!(oldest.parse::<u64>().unwrap() >= 5000, "{oldest}");
    // Whoever comes later has all of it all the same.
    let gateway = Gateway::new(&log);
    let _task = gateway.follow(&server.connector(), "edge");
    until("loaded", || gateway.is_fresh()).await;
    assert_eq!(gateway.len(), 6000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evictions_are_noticed_and_all_is_built_anew() {
    let server = Server::start(&[]);
    let log = MemoryLog::new();
    for number in 0..200 {
        log.ban(&format!("user{number}"));
    }
    let publisher = publish(&server.connector(), &log);
    until("healthy", || publisher.status().healthy).await;
    // Somebody tries another policy for a moment, and other keys push ours out.
    server.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]);
    let fill = "for i = 1, 3000 do redis.call('SET', 'x' .. i, string.rep('x', 1000)) end";
    server.ask(&["EVAL", fill, "0"]);
    server.ask(&["CONFIG", "SET", "maxmemory", "2500000"]);
    until("evicted", || {
        !server.ask(&["INFO", "stats"]).contains("evicted_keys:0\r")
    })
    .await;
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    server.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    until("noticed", || {
        publisher.status().evictions > 0 && publisher.status().rebuilds >= 2
    })
    .await;
    let gateway = Gateway::new(&log);
    let _task = gateway.follow(&server.connector(), "edge");
    until("loaded", || gateway.is_fresh()).await;
    assert_eq!(gateway.len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_loses_writes_is_made_good_from_sql() {
    let mut first = Server::start(&["--repl-diskless-sync-delay", "0"]);
    let second = Server::start(&["--replicaof", &format!("127.0.0.1 {}", first.port)]);
    let sentinel = Server::sentinel(first.port);
    let connector = connector(&format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port), "");
    let log = MemoryLog::new();
    log.ban("alice");
    let publisher = publish(&connector, &log);
    let gateway = Gateway::new(&log);
    let task = gateway.follow(&connector, "edge");
    until("loaded", || gateway.is_fresh()).await;
    until("replicated", || {
        second.ask(&["HGET", "{durward}:meta", "head"]).contains("\n1\r")
    })
    .await;
    until("known", || {
        sentinel
            .ask(&["SENTINEL", "REPLICAS", "main"])
            .contains(&second.port.to_string())
    })
    .await;
    // The replica hangs, so it misses what is published now; then the master dies.
    second.signal("-STOP");
    let lost = log.ban("bob");
    publisher.wake();
    until("applied", || gateway.applied() == lost).await;
    first.kill();
    second.signal("-CONT");
    assert!(gateway.refuses("bob"));
    let start = Instant::now();
    until("failed over", || {
        second
            .try_ask(&["ROLE"])
            .is_some_and(|role| role.contains("master"))
    })
    .await;
    until("made good", || gateway.is_fresh() && publisher.status().healthy).await;
    println!("failover took {:?}", start.elapsed());
    assert!(start.elapsed() < PATIENCE);
    let later = Gateway::new(&log);
    let _later = later.follow(&connector, "later");
    until("loaded", || later.is_loaded()).await;
    assert!(later.refuses("bob") && gateway.refuses("bob"));
    let carol = log.ban("carol");
    publisher.wake();
    until("applied", || {
        gateway.applied() == carol && later.applied() == carol
    })
    .await;
    gateway.was_told_the_truth();
    drop(task);
}
