//! A failover by a real Sentinel, to a replica that has not heard of the last writes.

use std::time::Duration;

use super::measure::Outcome;
use super::stage::{LASTING, Plan, Stage};
use crate::harness::{Fault, FaultProxy, RedisServer, Sentinel, eventually};

/// The primary loses its replica, takes a ban, and dies; Sentinel makes the replica the primary.
#[track_caller]
pub fn loses_writes(lasting: Duration) -> Outcome {
    let primary = RedisServer::start();
    let between = FaultProxy::before(primary.address());
    let port = between.address().port().to_string();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]);
    eventually("the replica follows", || {
        let replication = replica.try_cli(&["INFO", "replication"])?;
        replication.contains("master_link_status:up").then_some(())
    });
    let sentinel = Sentinel::of("news", primary.address());
    eventually("the sentinel knows the replica", || {
        sentinel.replicas().filter(|number| *number > 0)
    });
    let plan = Plan {
        redis: Some((primary, format!("redis+sentinel://{}/news", sentinel.address()))),
        ..Plan::default()
    };
    Stage::planned(plan).suffer(
        "Sentinel failover that loses writes",
        lasting,
        |stage| {
            between.set(Fault::BlackHole);
            // Acknowledged and published, and not replicated.
            let lost = stage.auth.account_here("lost", &[]);
            stage.auth.told(&["ban", "lost", "--wait"]);
            stage.redis.kill();
            eventually("the replica was made the primary", || {
                let replication = replica.try_cli(&["INFO", "replication"])?;
                replication.contains("role:master").then_some(())
            });
            let answer = lost.get("/api/x").send_if_answered(stage.gateway.edge);
            assert!(
                answer.is_none_or(|answer| answer.status != 200),
                "what was applied was forgotten"
            );
        },
        |_| {},
    )
}

#[test]
fn a_failover_that_loses_writes() {
    loses_writes(LASTING);
}
