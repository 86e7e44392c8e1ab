//! The whole decision on a warm token: 100 routes, a rule, a mirror of a million entries.

use std::hint::black_box;
use std::sync::Arc;

use criterion::Criterion;
use durward_bench::clock::unix_seconds;
use durward_contract::UnixSeconds;
use durward_policy::{
    Algorithm, Decision, NoTrace, Policy, Proofs, Rejection, RequestFacts, VerifiedToken, decide,
};

use crate::fixtures::{Signer, Warm, claims, facts, headers, loaded_mirror, policy_with_routes, raw};

const ENTRIES: u64 = 1_000_000;
const ROUTES: usize = 100;
const TARGET: &str = "/service7/users/u_alice?page=2";

/// A proof that costs nothing: what is left is the decision itself.
struct Given(Arc<VerifiedToken>);

impl Proofs for Given {
    fn prove(&self, _policy: &Policy, _token: &str) -> Result<Arc<VerifiedToken>, Rejection> {
        Ok(Arc::clone(&self.0))
    }
}

pub fn warm(criterion: &mut Criterion) {
    let policy = policy_with_routes(ROUTES);
    let mirror = loaded_mirror(&policy, ENTRIES);
    let signer = Signer::new(Algorithm::ES256);
    let claims = claims("u_alice", "s_alice");
    let token = signer.sign(&claims);
    let headers = headers(Some(&token));
    let request = facts(TARGET, &headers);
    let (warm, given) = (
        Warm::new(signer.keys(&policy)),
        Given(signer.proved(&policy, &claims)),
    );
    let now = UnixSeconds(unix_seconds());
    let permitted = |decision: &Decision| matches!(decision, Decision::Permit(_));
    let first = decide(&policy, &request, &warm, &*mirror, now, &mut NoTrace);
    assert!(permitted(&first), "{first:?}");

    let mut group = criterion.benchmark_group("decide, 100 routes, 1M entries");
    group.bench_function("warm token (SHA-256 and cache included)", |bencher| {
        bencher.iter(|| decide(&policy, black_box(&request), &warm, &*mirror, now, &mut NoTrace));
    });
    group.bench_function("warm token, header judged too", |bencher| {
        bencher.iter(|| {
            let request = RequestFacts::judge(black_box(raw(TARGET, &headers)));
            request.map(|request| decide(&policy, &request, &warm, &*mirror, now, &mut NoTrace))
        });
    });
    group.bench_function("proof given for nothing", |bencher| {
        bencher.iter(|| decide(&policy, black_box(&request), &given, &*mirror, now, &mut NoTrace));
    });
    group.bench_function("SHA-256 and cache alone", |bencher| {
        bencher.iter(|| warm.prove(&policy, black_box(&token)))
    });
    let public = facts("/service7/status", &headers);
    group.bench_function("public route", |bencher| {
        bencher.iter(|| decide(&policy, black_box(&public), &warm, &*mirror, now, &mut NoTrace));
    });
    group.finish();
}
