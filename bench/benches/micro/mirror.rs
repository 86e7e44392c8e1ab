//! The mirror at a million entries: looking up, loading, and the memory that it takes.

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use durward_bench::clock::unix_seconds;
use durward_bench::process_cpu::resident_bytes;
use durward_contract::{Follower, Sequence, Snapshot, UnixSeconds};
use durward_gateway::{MirrorLimits, RevocationFeed};
use durward_policy::{Algorithm, Cause, Revocations, Standing};

use crate::fixtures::{Signer, claims, entries, loaded_mirror, policy};

const ENTRIES: u64 = 1_000_000;
/// Entries that are applied between two looks at the memory.
const STEP: u64 = 2_000;
/// From here on the shards' fixed part no longer counts.
const FROM: u64 = 100_000;

/// Grows the mirror step by step and watches the resident memory, so that the moment after a growth
/// is seen too, when half of the table is empty. To be run first: memory that others have given back
/// would hide what this takes.
pub fn memory(_criterion: &mut Criterion) {
    let policy = policy(Algorithm::ES256, "  - { path: /api/**, upstream: api }\n");
    let resident = || resident_bytes(std::process::id()).expect("the resident memory");
    let mirror = RevocationFeed::new(&policy, MirrorLimits::default());
    mirror.load(Snapshot::default());
    drop(entries(0, STEP));
    let before = resident();
    let (mut worst, mut at) = (0.0, 0);
    for first in (0..ENTRIES).step_by(STEP as usize) {
        let batch = entries(first, STEP);
        mirror.apply(&batch, Sequence(first + STEP));
        drop(batch);
        let count = first + STEP;
        let each = resident().saturating_sub(before) as f64 / count as f64;
        if count >= FROM && each > worst {
            (worst, at) = (each, count);
        }
    }
    let each = resident().saturating_sub(before) as f64 / ENTRIES as f64;
    println!(
        "mirror: {each:.1} resident bytes an entry at {ENTRIES} entries; at most {worst:.1}, at {at} entries"
    );
    assert_eq!(mirror.entries() as u64, ENTRIES);
}

pub fn mirror(criterion: &mut Criterion) {
    let policy = policy(Algorithm::ES256, "  - { path: /api/**, upstream: api }\n");
    let signer = Signer::new(Algorithm::ES256);
    let mirror = loaded_mirror(&policy, ENTRIES);
    let now = UnixSeconds(unix_seconds());
    let (even, odd) = (
        format!("s_{:032x}", ENTRIES - 2),
        format!("u_{:032x}", ENTRIES - 1),
    );
    let mut group = criterion.benchmark_group("mirror, 1M entries");
    for (name, user, session, standing) in [
        ("live", "u_alice", "s_alice", Standing::Live),
        (
            "revoked by session",
            "u_alice",
            even.as_str(),
            Standing::Revoked(Cause::Session),
        ),
        (
            "revoked by user",
            odd.as_str(),
            "s_alice",
            Standing::Revoked(Cause::User),
        ),
    ] {
        let token = signer.proved(&policy, &claims(user, session));
        assert_eq!(mirror.standing(&token, now), standing);
        group.bench_function(name, |bencher| {
            bencher.iter(|| mirror.standing(black_box(&token), now))
        });
    }
    // One token stays in the processor's cache; real ones do not.
    let many: Vec<_> = (0..10_000)
        .map(|user| signer.proved(&policy, &claims(&format!("u_{user}"), &format!("s_{user}"))))
        .collect();
    let mut next = 0;
    group.bench_function("live, 10,000 tokens in turn", |bencher| {
        bencher.iter(|| {
            next = (next + 1) % many.len();
            mirror.standing(&many[next], now)
        });
    });
    group.sample_size(10);
    group.bench_function("load", |bencher| {
        bencher.iter_batched(
            || Snapshot {
                head: Sequence(ENTRIES),
                news: entries(0, ENTRIES),
            },
            |snapshot| mirror.load(snapshot),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}
