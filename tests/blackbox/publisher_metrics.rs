//! What an auth service says of its publishing, when Redis takes no writes and when it does again.

use crate::harness::{Backend, FleetSetup, RedisServer, Service, eventually, get};

/// What is wrong now, by `/metrics`; the faults that there can be are all there.
fn faults(auth: &Service) -> Vec<String> {
    let text = get("/metrics").send(auth.admin).expect(200).text();
    let name = "durward_news_publisher_fault{fault=\"";
    let series: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(name)).collect();
    assert_eq!(series.len(), 14, "{text}");
    let now = |line: &&str| line.strip_suffix("\"} 1").map(str::to_owned);
    series.iter().filter_map(now).collect()
}

fn refused_writes(auth: &Service) -> u64 {
    let text = get("/metrics").send(auth.admin).expect(200).text();
    let name = "durward_news_publisher_events_total{event=\"refused_write\"} ";
    let count = text.lines().find_map(|line| line.strip_prefix(name));
    count.map_or(0, |count| count.parse().unwrap())
}

#[test]
fn writes_that_redis_refuses_are_counted_and_the_fault_is_named_while_it_lasts() {
    let redis = RedisServer::start();
    let backend = Backend::start();
    let setup = FleetSetup::on_sqlite(&backend)
        .replace("admin: \"@admin\"\n", "")
        .replace(
            "  audience: example\n",
            "  audience: example\n  admin: \"@admin\"\n",
        );
    let auth = setup.auth(redis.address(), &[]);
    let becomes = |expected: &[&str]| {
        eventually("the fault is named", || (faults(&auth) == expected).then_some(()));
    };
    // It listens at the address that was waited for a moment before it answers here.
    eventually("it is ready", || {
        let answer = get("/readyz").send_if_answered(auth.admin)?;
        (answer.status == 200).then_some(())
    });
    becomes(&[]);
    assert_eq!(refused_writes(&auth), 0);
    redis.run(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    becomes(&["not_writable"]);
    eventually("it is tried again", || (refused_writes(&auth) > 1).then_some(()));
    let text = get("/metrics").send(auth.admin).expect(200).text();
    assert!(text.contains("\ndurward_news_publisher_up 0\n"), "{text}");
    redis.run(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    becomes(&[]);
    redis.run(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    becomes(&["evicting"]);
    redis.run(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    becomes(&[]);
}
