//! A token that has not been seen before, by algorithm.

use std::hint::black_box;

use criterion::Criterion;
use durward_policy::{Algorithm, prove};

use crate::fixtures::{Signer, claims, policy};

pub fn cold(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prove, cold");
    for algorithm in [
        Algorithm::HS256,
        Algorithm::RS256,
        Algorithm::ES256,
        Algorithm::EdDSA,
    ] {
        let policy = policy(algorithm, "  - { path: /api/**, upstream: api }\n");
        let signer = Signer::new(algorithm);
        let (token, keys) = (signer.sign(&claims("u_alice", "s_alice")), signer.keys(&policy));
        assert!(prove(&policy, &token, &keys).is_ok());
        group.bench_function(algorithm.name(), |bencher| {
            bencher.iter(|| prove(&policy, black_box(&token), &keys))
        });
    }
    let policy = policy(Algorithm::ES256, "  - { path: /api/**, upstream: api }\n");
    let signer = Signer::new(Algorithm::ES256);
    let (token, keys) = (
        signer.sign(&claims("u_alice", "s_alice")),
        Signer::new(Algorithm::ES256).keys(&policy),
    );
    assert!(prove(&policy, &token, &keys).is_err());
    group.bench_function("ES256, signed by another", |bencher| {
        bencher.iter(|| prove(&policy, black_box(&token), &keys))
    });
    group.finish();
}
