//! Faults of Redis itself, and of the database behind it.

use std::thread;
use std::time::Duration;

use durward_testing::postgres::server;

use super::measure::Outcome;
use super::stage::{LASTING, Plan, Stage};
use crate::harness::eventually;

/// Redis dies and comes back empty.
#[track_caller]
pub fn killed_and_empty(lasting: Duration) -> Outcome {
    Stage::new().suffer(
        "Redis killed, restarted empty",
        lasting,
        |stage| stage.redis.kill(),
        |stage| stage.redis.start_again(),
    )
}

/// Redis loses everything at once, without a broken connection.
#[track_caller]
pub fn flushed(lasting: Duration) -> Outcome {
    Stage::new().suffer(
        "FLUSHALL",
        lasting,
        |stage| {
            stage.redis.cli(&["FLUSHALL"]);
        },
        |_| {},
    )
}

/// Redis stops and goes on.
#[track_caller]
pub fn paused(lasting: Duration) -> Outcome {
    Stage::new().suffer(
        "Redis paused (SIGSTOP)",
        lasting,
        |stage| stage.redis.signal("STOP"),
        |stage| stage.redis.signal("CONT"),
    )
}

/// Redis answers, and its publisher is cut off.
#[track_caller]
pub fn publisher_cut_off(lasting: Duration) -> Outcome {
    Stage::new().suffer(
        "publisher cut off from a Redis that answers",
        lasting,
        |stage| stage.publishing.set(crate::harness::Fault::BlackHole),
        |stage| stage.publishing.set(crate::harness::Fault::None),
    )
}

/// Memory is full, and nothing may be evicted: writes are refused.
#[track_caller]
pub fn out_of_memory(lasting: Duration) -> Outcome {
    Stage::new().suffer(
        "OOM under noeviction",
        lasting,
        |stage| {
            stage.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
        },
        |stage| {
            stage.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        },
    )
}

/// Redis throws keys away, the news among them.
#[track_caller]
pub fn evicting(lasting: Duration) -> Outcome {
    Stage::new().suffer(
        "eviction (allkeys-lru)",
        lasting,
        |stage| {
            stage
                .redis
                .cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
            stage.redis.cli(&["CONFIG", "SET", "maxmemory", "1500000"]);
            let filler = "x".repeat(2000);
            for key in 0..1500 {
                stage.redis.cli(&["SET", &format!("filler:{key}"), &filler]);
            }
        },
        |stage| {
            stage.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
            stage
                .redis
                .cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        },
    )
}

/// The database cannot be reached: nobody can be banned, and no news is fresh.
#[track_caller]
pub fn database_down(lasting: Duration) -> Outcome {
    let database = server().database();
    let plan = Plan {
        database: Some(format!("\"{}\"", database.url())),
        ..Plan::default()
    };
    Stage::planned(plan).suffer_with_ban(
        "PostgreSQL down",
        lasting,
        false,
        |stage| {
            database.cut_off();
            let refused = stage.auth.command(&["ban", "victim"]);
            assert_ne!(
                refused.code, 0,
                "a ban that is not durable was acknowledged: {refused:?}"
            );
        },
        |_| database.let_in(),
    )
}

#[test]
fn the_database_is_down() {
    let outcome = database_down(LASTING);
    assert!(
        outcome.valid_refused > 0,
        "the news has not grown stale: {outcome:?}"
    );
}

#[test]
fn redis_killed_and_restarted_empty() {
    killed_and_empty(LASTING);
}

#[test]
fn redis_flushed() {
    flushed(LASTING);
}

#[test]
fn redis_paused() {
    paused(LASTING);
}

#[test]
fn a_redis_that_answers_without_a_publisher_is_no_news() {
    publisher_cut_off(LASTING);
}

#[test]
fn redis_out_of_memory() {
    out_of_memory(LASTING);
}

#[test]
fn redis_evicting() {
    evicting(LASTING);
}

#[test]
fn a_redis_that_may_evict_is_not_healthy() {
    let stage = Stage::planned(Plan::default());
    stage
        .redis
        .cli(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    eventually("it is not believed any more", || {
        (stage.valid_status() == 503).then_some(())
    });
    stage
        .redis
        .cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    eventually("it is believed again", || {
        (stage.valid_status() == 200).then_some(())
    });
    thread::sleep(Duration::from_millis(10));
}
