//! Silence grows stale, however it comes about: a Redis that answers is no news.

mod parties;
mod servers;

use std::time::{Duration, Instant};

use durward_news::{PublishFault, StoreFault};
use parties::{Gateway, MemoryLog, NOBODY, Road, STALE, publish, until};
use servers::{Server, connector};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_answers_is_stale_once_its_publishers_are_gone() {
    let server = Server::start(&[]);
    let log = MemoryLog::new();
    let first = publish(&server.connector(), &log);
    let second = publish(&server.connector(), &log);
    let gateway = Gateway::new(&log);
    let task = gateway.follow(&server.connector(), "edge");
    until("fresh", || gateway.is_fresh()).await;
    first.stop().await;
    // One is enough.
    tokio::time::sleep(STALE).await;
    assert!(gateway.is_fresh());
    second.stop().await;
    until("stale", || !gateway.is_fresh()).await;
    assert!(task.status().connected);
    gateway.was_told_the_truth();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_without_sql_attest_nothing() {
    let Road {
        server: _server,
        log,
        publisher,
        gateway,
        task: _task,
    } = Road::with(NOBODY).await;
    log.set_down(true);
    until("stale", || !gateway.is_fresh()).await;
    assert_eq!(publisher.status().fault, Some(PublishFault::Log));
    log.set_down(false);
    until("fresh", || gateway.is_fresh()).await;
    gateway.was_told_the_truth();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attestation_is_as_old_as_the_reading_behind_it() {
    let server = Server::start(&[]);
    let log = MemoryLog::new();
    let slow_log = MemoryLog::new();
    let gateway = Gateway::new(&slow_log);
    // SQL answers late: what it says is as old as the question. The gateway checks each age against
    // when the reading really began.
    slow_log.set_delay(Duration::from_millis(800));
    let publisher = publish(&server.connector(), &slow_log);
    let _task = gateway.follow(&server.connector(), "edge");
    until("attested", || gateway.age() < Duration::MAX).await;
    let attestations = publisher.status().attestations;
    let mut youngest = Duration::MAX;
    until("attested some times", || {
        youngest = youngest.min(gateway.age());
        publisher.status().attestations > attestations + 2
    })
    .await;
    assert!(youngest >= Duration::from_millis(800), "{youngest:?}");
    gateway.was_told_the_truth();
    // A fast replica beside it makes it fresh; the late attestations take nothing away, and add nothing.
    let fast = publish(&server.connector(), &log);
    until("fresh", || {
        fast.status().healthy && gateway.age() < Duration::from_millis(400)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_no_news_and_is_followed_again() {
    let Road {
        server,
        log,
        publisher,
        gateway,
        task,
    } = Road::with(NOBODY).await;
    server.signal("-STOP");
    until("noticed", || {
        !task.status().connected && !publisher.status().healthy
    })
    .await;
    until("stale", || !gateway.is_fresh()).await;
    let last = log.ban("alice");
    server.signal("-CONT");
    let healed = Instant::now();
    until("fresh", || gateway.is_fresh() && gateway.applied() == last).await;
    assert!(healed.elapsed() < Duration::from_secs(5));
    gateway.was_told_the_truth();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_redis_is_no_news() {
    for reply in [
        None,
        Some(&b"HTTP/1.1 200 OK\r\n\r\n"[..]),
        Some(b"$1073741824\r\nx"),
        Some(b"*3\r\n$1\r\n"),
        Some(b"-LOADING Redis is loading the dataset in memory\r\n"),
        Some(b"-MASTERDOWN Link with MASTER is down\r\n"),
        Some(b"-NOAUTH Authentication required.\r\n"),
        Some(b"-ERR no\r\n"),
        Some(b"+OK\r\n"),
        Some(b":-7\r\n"),
        Some(b"*-1\r\n"),
        Some(b"*7\r\n:1\r\n:1\r\n:99\r\n$1\r\ne\r\n$1\r\ne\r\n$1\r\nl\r\n$2\r\n99\r\n"),
        Some(b""),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let store = format!("redis://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(serve(listener, reply));
        let log = MemoryLog::new();
        let connector = connector(&store, "");
        let publisher = publish(&connector, &log);
        let gateway = Gateway::new(&log);
        let task = gateway.follow(&connector, "edge");
        let errors = || task.status().errors().map(|(_, count)| count).sum::<u64>();
        until("errors", || errors() > 0 && publisher.status().fault.is_some()).await;
        assert!(!gateway.is_loaded(), "{reply:?}");
        assert_eq!(gateway.age(), Duration::MAX, "{reply:?}");
        assert_eq!(publisher.status().attestations, 0);
        server.abort();
    }
}

/// Answers every request alike: with nothing at all, with these bytes, or by hanging up.
async fn serve(listener: TcpListener, reply: Option<&'static [u8]>) {
    let mut open = Vec::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        open.push(tokio::spawn(async move {
            let mut request = [0; 4096];
            while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                match reply {
                    None => {}
                    Some(b"") => return,
                    // The two that set a connection up, then one at a time.
                    Some(bytes) => {
                        let times = if request.windows(7).any(|w| w == b"SETINFO") {
                            2
                        } else {
                            1
                        };
                        request.fill(0);
                        if stream.write_all(&bytes.repeat(times)).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_cannot_be_read_takes_the_trust_away() {
    let Road {
        server,
        log,
        publisher,
        gateway,
        task,
    } = Road::with(["alice"]).await;
    // A newer auth service has a kind of entry that this gateway does not know.
    let entries = server.entries();
    let add =
        "redis.call('HSET', KEYS[1], 'new', '[\"z\",2]') return redis.call('HINCRBY', KEYS[2], 'count', 1)";
    server.ask(&["EVAL", add, "2", &entries, "{durward}:meta"]);
    let later = Gateway::new(&log);
    let later_task = later.follow(&server.connector(), "later");
    until("loaded", || later.is_loaded()).await;
    until("unreadable", || later_task.status().unreadable).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(later.age(), Duration::MAX);
    assert!(later.refuses("alice") && gateway.is_fresh());
    // What it can read it applies; and once all is readable again, it trusts again.
    let bob = log.ban("bob");
    publisher.wake();
    until("applied", || later.applied() == bob).await;
    let remove = "redis.call('HDEL', KEYS[1], 'new') return redis.call('HINCRBY', KEYS[2], 'count', -1)";
    server.ask(&["EVAL", remove, "2", &entries, "{durward}:meta"]);
    until("fresh", || later.is_fresh()).await;
    assert!(!task.status().unreadable && !later_task.status().unreadable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_another_kind_are_left_alone() {
    let server = Server::start(&[]);
    server.ask(&["SET", "{durward}:meta", "mine"]);
    let log = MemoryLog::new();
    let publisher = publish(&server.connector(), &log);
    let gateway = Gateway::new(&log);
    let task = gateway.follow(&server.connector(), "edge");
    let foreign = Some(PublishFault::Store(StoreFault::Foreign));
    until("refused", || publisher.status().fault == foreign).await;
    let errors = || {
        task.status()
            .errors()
            .find(|(fault, _)| *fault == StoreFault::Foreign)
            .unwrap()
            .1
    };
    until("refused", || errors() > 0).await;
    assert!(!gateway.is_loaded());
    assert!(server.ask(&["GET", "{durward}:meta"]).contains("mine"));
    server.ask(&["DEL", "{durward}:meta"]);
    until("fresh", || gateway.is_fresh()).await;
}
