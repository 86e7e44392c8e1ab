//! Faults on the way between gateway and Redis, made by the proxy.

use std::thread;
use std::time::Duration;

use super::measure::Outcome;
use super::stage::{LASTING, Stage};
use crate::harness::{Fault, eventually, get};

/// A fault of the proxy, for a while.
#[track_caller]
pub fn of_the_proxy(name: &str, fault: Fault, lasting: Duration) -> Outcome {
    Stage::new().suffer(
        name,
        lasting,
        |stage| stage.proxy.set(fault),
        |stage| stage.proxy.set(Fault::None),
    )
}

/// What a Redis says that cannot serve.
pub fn error_reply(text: &str) -> Fault {
    Fault::Answer(format!("-{text}\r\n").into_bytes())
}

/// Bytes that are no reply.
pub fn garbage() -> Fault {
    Fault::Answer(b"\x00\xff*9999999999\r\n$-7\r\n:::\r\n\r\n".to_vec())
}

/// A reply that promises more than there is.
pub fn huge_length() -> Fault {
    Fault::Answer(b"$1073741824\r\nx".to_vec())
}

#[test]
fn connections_that_are_reset() {
    of_the_proxy("connections reset", Fault::Reset, LASTING);
}

#[test]
fn a_black_hole() {
    of_the_proxy("black hole", Fault::BlackHole, LASTING);
}

#[test]
fn five_seconds_of_latency() {
    of_the_proxy("5 s latency", Fault::Delay(Duration::from_secs(5)), LASTING);
}

#[test]
fn garbage_instead_of_replies() {
    of_the_proxy("garbage bytes", garbage(), LASTING);
}

#[test]
fn a_length_that_is_not_there() {
    of_the_proxy("bulk length of 1 GiB", huge_length(), LASTING);
}

#[test]
fn replies_that_break_off() {
    of_the_proxy("replies cut in half", Fault::Truncate, LASTING);
}

#[test]
fn errors_instead_of_replies() {
    for text in [
        "READONLY You can't write against a read only replica.",
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "NOAUTH Authentication required.",
    ] {
        let name = text.split(' ').next().unwrap_or_default();
        of_the_proxy(name, error_reply(text), LASTING);
    }
}

#[test]
fn stale_news_refuses_says_why_and_leaves_the_rest_alone() {
    let stage = Stage::new();
    stage.proxy.set(Fault::BlackHole);
    eventually("who is not known to be revoked is refused", || {
        (stage.valid_status() == 503).then_some(())
    });
    assert_eq!(stage.valid_reason(), "revocation_unknown");
    assert_eq!(stage.lax_status(), 200, "the route allows that for a minute");
    assert_eq!(stage.public_status(), 200);
    stage.proxy.set(Fault::None);
    eventually("who may pass passes again", || {
        (stage.valid_status() == 200).then_some(())
    });
}

#[test]
fn a_gateway_that_starts_while_nothing_is_published_accepts_nobody() {
    let stage = Stage::new();
    let account = stage.auth.account_here("newcomer", &[]);
    stage.publishing.set(Fault::Refuse);
    stage.auth.told(&["ban", "newcomer"]);
    // Redis answers, and what it has is a snapshot from before the ban.
    let gateway = stage.setup.gateway_unready(stage.redis.address(), &stage.auth);
    eventually("it has loaded what Redis has", || {
        let metrics = get("/metrics").send_if_answered(gateway.admin)?.text();
        metrics.contains("durward_revocation_entries 1\n").then_some(())
    });
    for path in ["/api/x", "/lax/x"] {
        eventually("it has the keys, and no news", || {
            let answer = gateway.ask(&account.get(path));
            assert_eq!(answer.status, 503, "{}", answer.text());
            (answer.reason() == "revocation_unknown").then_some(())
        });
    }
    assert_eq!(get("/readyz").send(gateway.admin).status, 503);
    stage.publishing.set(Fault::None);
    eventually("the ban has come", || {
        let answer = account.get("/lax/x").send_if_answered(gateway.edge)?;
        (answer.reason() == "revoked").then_some(())
    });
}

#[test]
fn a_gateway_that_never_reached_redis_is_not_ready_and_accepts_nobody() {
    let stage = Stage::new();
    let nowhere = crate::harness::free_address();
    let gateway = stage.setup.gateway_unready(nowhere, &stage.auth);
    let account = stage.auth.account_here("newcomer", &[]);
    eventually("it has the keys, and no news", || {
        let answer = gateway.ask(&account.get("/api/x"));
        (answer.status == 503 && answer.reason() == "revocation_unknown").then_some(())
    });
    let lax = gateway.ask(&account.get("/lax/x"));
    lax.expect_refusal(503, "revocation_unknown");
    let ready = get("/readyz").send(gateway.admin);
    assert_eq!(ready.status, 503, "{}", ready.text());
    gateway.ask(&get("/public/x")).expect(200);
    thread::sleep(Duration::from_millis(10));
}
