//! Wall clocks that are set while everything runs, by libfaketime.

use std::path::PathBuf;
use std::time::Duration;

use super::measure::Outcome;
use super::stage::{LASTING, Plan, Stage};
use crate::harness::TestFolder;

/// Whose clock is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Redis,
    Auth,
    Gateway,
}

/// Sets somebody's wall clock by `step` (such as `+600s`) for a while.
#[track_caller]
pub fn stepped(whose: Whose, step: &str, lasting: Duration) -> Outcome {
    let folder = TestFolder::new();
    let file = folder.write("faketime", "+0");
    let environment = vec![
        // libfaketime and jemalloc, with which Debian's Redis allocates, call each other for ever.
        ("LD_PRELOAD", format!("{} libc.so.6", library().display())),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let mut plan = Plan::default();
    match whose {
        Whose::Redis => plan.redis_environment = environment,
        Whose::Auth => plan.auth_environment = environment,
        Whose::Gateway => plan.gateway_environment = environment,
    }
    let name = format!("clock of {whose:?} {step}");
    Stage::planned(plan).suffer(
        &name,
        lasting,
        |_| {
            folder.write("faketime", step);
        },
        |_| {
            folder.write("faketime", "+0");
        },
    )
}

/// Where Debian's package `libfaketime` puts the library for programs with threads.
fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists())
        .expect("libfaketime is installed")
}

#[test]
fn the_clock_of_redis_steps() {
    stepped(Whose::Redis, "+600s", LASTING);
    stepped(Whose::Redis, "-600s", LASTING);
}

#[test]
fn the_clock_of_the_auth_service_steps() {
    stepped(Whose::Auth, "-600s", LASTING);
}

#[test]
fn the_clock_of_the_gateway_steps() {
    stepped(Whose::Gateway, "+600s", LASTING);
    stepped(Whose::Gateway, "-20s", LASTING);
}
