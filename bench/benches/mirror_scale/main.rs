//! The mirror at one and at ten million entries: memory, lookups, how fast news is applied, and how
//! long a load takes. A process of its own: memory that others have given back would hide what this
//! takes.

#![forbid(unsafe_code)]

#[path = "../micro/fixtures/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the micro-benchmarks need more of them")]
mod fixtures;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use durward_bench::clock::unix_seconds;
use durward_bench::process_cpu::resident_bytes;
use durward_bench::report::table;
use durward_bench::statistics::median;
use durward_contract::{Follower, Sequence, Snapshot, UnixSeconds};
use durward_gateway::{MirrorLimits, RevocationFeed};
use durward_policy::{Algorithm, Cause, Policy, Revocations, Standing, VerifiedToken};

use fixtures::{Signer, claims, entries, policy};

const SIZES: [u64; 2] = [1_000_000, 10_000_000];
/// Entries that are applied between two looks at the memory: the moment after a growth is to be seen,
/// when half of a table is empty.
const STEP: u64 = 2_000;
/// Below this share of the next size, memory that does not grow with the entries would count too
/// much.
const FROM: f64 = 0.1;
/// Entries that are applied to time it, by the size of the batches that they come in.
const APPLIED: [(u64, u64); 2] = [(1, 50_000), (500, 500_000)];
const LOOKUPS: usize = 2_000_000;
const TOKENS: usize = 10_000;
/// Entries in a piece of a load.
const PIECE: u64 = 10_000;
const LOADS: usize = 3;

fn main() {
    // `cargo bench` says so; whoever else runs it wants to know whether it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let policy = policy(Algorithm::ES256, "  - { path: /api/**, upstream: api }\n");
    let tokens = Tokens::new(&policy);
    let mut grown = Grown::new(&policy);
    let mut rows = Vec::new();
    for size in SIZES {
        let worst = grown.grow_to(size);
        let mut row = vec![
            size.to_string(),
            format!("{:.1}", grown.bytes_an_entry()),
            format!("{worst:.1}"),
        ];
        row.extend(
            tokens
                .lookups(&grown.mirror)
                .map(|each| format!("{:.0}", nanos(each))),
        );
        for (batch, number) in APPLIED {
            row.push(format!("{:.2}", grown.apply(batch, number) / 1e6));
        }
        rows.push(row);
    }
    drop(grown);
    for (row, size) in rows.iter_mut().zip(SIZES) {
        let times: Vec<_> = (0..LOADS).map(|_| load(&policy, size).as_secs_f64()).collect();
        row.push(format!("{:.2}", median(&times)));
    }
    let header = [
        "entries",
        "bytes/entry",
        "at worst",
        "live ns",
        "session revoked ns",
        "user revoked ns",
        "applied M/s one by one",
        "by 500",
        "load s",
    ];
    println!("{}", table(&header, &rows));
    println!("lookups: {TOKENS} tokens in turn; load: pieces of {PIECE} from memory, median of {LOADS}");
}

fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// A mirror that grows, and what the process took before it.
struct Grown {
    mirror: Arc<RevocationFeed>,
    count: u64,
    before: u64,
}

impl Grown {
    fn new(policy: &Policy) -> Self {
        let mirror = RevocationFeed::new(policy, MirrorLimits::default());
        mirror.load(Snapshot::default());
        drop(entries(0, STEP));
        Self {
            mirror,
            count: 0,
            before: resident(),
        }
    }

    /// The largest share of the resident memory that an entry had on the way.
    fn grow_to(&mut self, size: u64) -> f64 {
        let mut worst: f64 = 0.0;
        while self.count < size {
            self.add(STEP.min(size - self.count));
            if self.count as f64 >= size as f64 * FROM {
                worst = worst.max(self.bytes_an_entry());
            }
        }
        assert_eq!(self.mirror.entries() as u64, self.count);
        worst
    }

    fn add(&mut self, number: u64) -> Duration {
        let batch = entries(self.count, number);
        self.count += number;
        let start = Instant::now();
        self.mirror.apply(&batch, Sequence(self.count));
        start.elapsed()
    }

    fn bytes_an_entry(&self) -> f64 {
        resident().saturating_sub(self.before) as f64 / self.count as f64
    }

    /// Applies so many more; returns how many a second.
    fn apply(&mut self, batch: u64, number: u64) -> f64 {
        let time: Duration = (0..number / batch).map(|_| self.add(batch)).sum();
        number as f64 / time.as_secs_f64()
    }
}

fn resident() -> u64 {
    resident_bytes(std::process::id()).expect("the resident memory")
}

/// Tokens of each standing, more than fit the processor's nearest caches.
struct Tokens {
    live: Vec<Arc<VerifiedToken>>,
    session_revoked: Vec<Arc<VerifiedToken>>,
    user_revoked: Vec<Arc<VerifiedToken>>,
}

impl Tokens {
    fn new(policy: &Policy) -> Self {
        let signer = Signer::new(Algorithm::ES256);
        let many = |of: &dyn Fn(u64) -> (String, String)| {
            // Spread over the smallest size: an odd and an even entry each.
            let stride = SIZES[0] / TOKENS as u64;
            (0..TOKENS as u64)
                .map(|number| {
                    let (user, session) = of(number * stride);
                    signer.proved(policy, &claims(&user, &session))
                })
                .collect()
        };
        Self {
            live: many(&|number| (format!("u_live_{number}"), format!("s_live_{number}"))),
            session_revoked: many(&|number| (format!("u_live_{number}"), format!("s_{number:032x}"))),
            user_revoked: many(&|number| (format!("u_{:032x}", number + 1), format!("s_live_{number}"))),
        }
    }

    /// How long a lookup takes, of each kind.
    fn lookups(&self, mirror: &RevocationFeed) -> [Duration; 3] {
        [
            (&self.live, Standing::Live),
            (&self.session_revoked, Standing::Revoked(Cause::Session)),
            (&self.user_revoked, Standing::Revoked(Cause::User)),
        ]
        .map(|(tokens, standing)| {
            let now = UnixSeconds(unix_seconds());
            assert!(tokens.iter().all(|token| mirror.standing(token, now) == standing));
            let start = Instant::now();
            for token in tokens.iter().cycle().take(LOOKUPS) {
                black_box(mirror.standing(black_box(token), now));
            }
            start.elapsed() / LOOKUPS as u32
        })
    }
}

/// How long it takes to load so many: the pieces are made while the clock stands.
fn load(policy: &Policy, size: u64) -> Duration {
    let mirror = RevocationFeed::new(policy, MirrorLimits::default());
    let mut loading = mirror.begin_load();
    let mut time = Duration::ZERO;
    for first in (0..size).step_by(PIECE as usize) {
        let piece = entries(first, PIECE);
        let start = Instant::now();
        loading.add(&piece);
        time += start.elapsed();
    }
    let start = Instant::now();
    loading.finish(Sequence(size));
    mirror.attest(Sequence(size), Duration::ZERO);
    time += start.elapsed();
    assert!(mirror.is_whole() && mirror.entries() as u64 == size);
    time
}
