//! Choosing the route: tables of three sizes, and paths of every kind.

use std::hint::black_box;

use criterion::Criterion;
use durward_policy::RequestFacts;

use crate::fixtures::{facts, headers, policy_with_routes, raw};

pub fn tables(criterion: &mut Criterion) {
    let headers = headers(None);
    for count in [10, 100, 1000] {
        let policy = policy_with_routes(count);
        assert_eq!(policy.routes().iter().count(), count);
        let mut group = criterion.benchmark_group(format!("route table, {count} routes"));
        let last = count / 5 - 1;
        for (name, target) in [
            ("literal", format!("/service{last}/status")),
            ("parameter", format!("/service{last}/items/4711")),
            ("rest", format!("/service{last}/a/b/c/d")),
            ("none", "/nowhere/at/all".into()),
        ] {
            let request = facts(&target, &headers);
            assert_eq!(
                policy.routes().lookup(&request).is_err(),
                name == "none",
                "{target}"
            );
            group.bench_function(name, |bencher| {
                bencher.iter(|| black_box(policy.routes().lookup(black_box(&request)).is_ok()));
            });
        }
        group.finish();
    }
}

pub fn readings(criterion: &mut Criterion) {
    let policy = policy_with_routes(100);
    let headers = headers(None);
    let long = format!("/service7/{}", "a%2fb/%2e%2e/c;d=e/".repeat(60));
    let mut group = criterion.benchmark_group("path readings, 100 routes, header judged too");
    for (name, target) in [
        ("plain", "/service7/items/4711?page=2"),
        ("trailing slash", "/service7/items/4711/"),
        ("upper case", "/Service7/Items/4711"),
        ("encoded letters", "/service7/items/%61%62%63"),
        ("encoded slash", "/service7/files/a%2Fb%2Fc"),
        ("encoded twice", "/service7/files/a%252Fb"),
        ("dots", "/service7/items/../admin/x"),
        ("encoded dots", "/service7/items/%2e%2e/admin/x"),
        (
            "everything at once",
            "/service7//items\\..;a=b/%2e%2e%2fadmin/%253f%2523x/",
        ),
        ("everything, 1 KiB of it", &long),
    ] {
        let decided = |raw| {
            let facts = RequestFacts::judge(raw)?;
            policy.routes().lookup(&facts).map(|found| found.route.id)
        };
        println!(
            "{name}: {}",
            decided(raw(target, &headers)).map_or_else(|rejection| rejection.reason.code(), |_| "a route")
        );
        group.bench_function(name, |bencher| {
            bencher.iter(|| decided(black_box(raw(target, &headers))))
        });
    }
    group.finish();
}
