//! Figures, printed; not part of the tests: `cargo test --release -p durward-news --test figures --
//! --ignored --nocapture`.

mod servers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use durward_contract::{Bar, Follower, Loading, News, RevocationEntry, Sequence, Target, UnixSeconds};
use durward_news::{FollowerOptions, FollowerTask, Log, LogError, LogHead, Publisher, PublisherOptions};
use servers::Server;

const ENTRIES: u64 = 1_000_000;
const STREAMED: u64 = 200_000;

/// A log that makes its entries up.
struct MadeUp(AtomicU64);

fn entry(sequence: u64) -> News {
    News::Revocation(RevocationEntry {
        sequence: Sequence(sequence),
        issuer: "https://login.example.com/".into(),
        target: Target::User(format!("u_{sequence:026}")),
        bar: Bar::EpochBelow(7),
        forget_at: Some(UnixSeconds(4_000_000_000)),
    })
}

#[async_trait]
impl Log for MadeUp {
    async fn head(&self) -> Result<LogHead, LogError> {
        Ok(LogHead {
            log: "made-up".into(),
            head: Sequence(self.0.load(Ordering::SeqCst)),
        })
    }

    async fn after(&self, sequence: Sequence, limit: u32) -> Result<Vec<News>, LogError> {
        let end = self.0.load(Ordering::SeqCst).min(sequence.0 + u64::from(limit));
        Ok((sequence.0 + 1..=end).map(entry).collect())
    }

    async fn standing(&self, after: Sequence, limit: u32) -> Result<Vec<News>, LogError> {
        self.after(after, limit).await
    }

    fn forgets_until(&self) -> UnixSeconds {
        UnixSeconds(1_800_000_000)
    }
}

/// Counts only, so that the road is measured and not the mirror at its end.
#[derive(Default)]
struct Counting {
    applied: AtomicU64,
    entries: AtomicU64,
}

impl Follower for Counting {
    fn begin_load(&self) -> Box<dyn Loading + '_> {
        Box::new(CountingLoad(self))
    }

    fn apply(&self, news: &[News], head: Sequence) {
        self.entries.fetch_add(news.len() as u64, Ordering::SeqCst);
        self.applied.store(head.0, Ordering::SeqCst);
    }

    fn attest(&self, _: Sequence, _: Duration) {}
}

struct CountingLoad<'c>(&'c Counting);

impl Loading for CountingLoad<'_> {
    fn add(&mut self, news: &[News]) {
        self.0.entries.fetch_add(news.len() as u64, Ordering::SeqCst);
    }

    fn finish(self: Box<Self>, head: Sequence) {
        self.0.applied.store(head.0, Ordering::SeqCst);
    }
}

async fn reached(counting: &Counting, head: u64) {
    let start = Instant::now();
    while counting.applied.load(Ordering::SeqCst) < head {
        assert!(start.elapsed() < Duration::from_secs(300));
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn figures() {
    let server = Server::start(&[]);
    let log = Arc::new(MadeUp(AtomicU64::new(ENTRIES)));
    let start = Instant::now();
    let publisher = Publisher::start(
        server.connector(),
        Arc::<MadeUp>::clone(&log),
        PublisherOptions {
            stream_entries: 1_000_000,
            ..PublisherOptions::default()
        },
    );
    while publisher.status().published.0 < ENTRIES {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("rebuild of {ENTRIES} entries: {:?}", start.elapsed());
    let memory = server.ask(&["INFO", "memory"]);
    let used = memory.lines().find(|line| line.starts_with("used_memory:"));
    println!("Redis: {}", used.unwrap_or_default());

    let gateway = Arc::new(Counting::default());
    let start = Instant::now();
    let _task = FollowerTask::start(
        server.connector(),
        Arc::<Counting>::clone(&gateway),
        "edge",
        FollowerOptions::default(),
    );
    reached(&gateway, ENTRIES).await;
    println!(
        "snapshot of {} entries: {:?}",
        gateway.entries.load(Ordering::SeqCst),
        start.elapsed()
    );

    let start = Instant::now();
    log.0.fetch_add(STREAMED, Ordering::SeqCst);
    publisher.wake();
    reached(&gateway, ENTRIES + STREAMED).await;
    let took = start.elapsed();
    let rate = STREAMED as f64 / took.as_secs_f64();
    println!("stream of {STREAMED} entries: {took:?}, {rate:.0}/s");

    let (mut applied, mut known) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        let start = Instant::now();
        let head = log.0.fetch_add(1, Ordering::SeqCst) + 1;
        publisher.wake();
        while gateway.applied.load(Ordering::SeqCst) < head {
            tokio::task::yield_now().await;
        }
        applied.push(start.elapsed());
        let reach = publisher
            .reach(Sequence(head), Duration::from_secs(5))
            .await
            .unwrap();
        assert!(reach.is_complete());
        known.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    for (what, times) in [
        ("commit to applied", &mut applied),
        ("commit to reach", &mut known),
    ] {
        times.sort();
        println!(
            "{what}: p50 {:?}, p99 {:?}, max {:?}",
            times[500], times[990], times[999]
        );
    }
}
