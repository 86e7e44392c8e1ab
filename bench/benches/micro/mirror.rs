//! The mirror at a million entries: looking up and loading. The benchmark `mirror-scale` tells its
//! memory, and how it does with ten million.

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use durward_bench::clock::unix_seconds;
use durward_contract::{Follower, Sequence, Snapshot, UnixSeconds};
use durward_policy::{Algorithm, Cause, Revocations, Standing};

use crate::fixtures::{Signer, claims, entries, loaded_mirror, policy};

const ENTRIES: u64 = 1_000_000;

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
