//! Every fault in turn, for longer, as a table: `make faults`.

use std::time::Duration;

use super::between::{error_reply, garbage, huge_length, of_the_proxy};
use super::clocks::{Whose, stepped};
use super::crashes::die_between_commit_and_publication;
use super::failover;
use super::stores;
use super::table::markdown;
use crate::harness::Fault;

/// How long each fault lasts.
const LONG: Duration = Duration::from_secs(8);
/// How often the auth service dies.
const DEATHS: usize = 100;

#[test]
#[ignore = "takes minutes: make faults"]
fn the_whole_run() {
    let outcomes = [
        stores::killed_and_empty(LONG),
        stores::flushed(LONG),
        stores::paused(LONG),
        stores::publisher_cut_off(LONG),
        stores::out_of_memory(LONG),
        stores::evicting(LONG),
        stores::database_down(LONG),
        failover::loses_writes(LONG),
        of_the_proxy("5 s latency", Fault::Delay(Duration::from_secs(5)), LONG),
        of_the_proxy("black hole", Fault::BlackHole, LONG),
        of_the_proxy("connections reset", Fault::Reset, LONG),
        of_the_proxy("connections refused", Fault::Refuse, LONG),
        of_the_proxy("garbage bytes", garbage(), LONG),
        of_the_proxy("bulk length of 1 GiB", huge_length(), LONG),
        of_the_proxy("replies cut in half", Fault::Truncate, LONG),
        of_the_proxy(
            "READONLY",
            error_reply("READONLY You can't write against a read only replica."),
            LONG,
        ),
        of_the_proxy(
            "LOADING",
            error_reply("LOADING Redis is loading the dataset in memory"),
            LONG,
        ),
        stepped(Whose::Redis, "+600s", LONG),
        stepped(Whose::Redis, "-600s", LONG),
        stepped(Whose::Auth, "+600s", LONG),
        stepped(Whose::Auth, "-600s", LONG),
        stepped(Whose::Gateway, "+600s", LONG),
        stepped(Whose::Gateway, "-20s", LONG),
    ];
    println!("\n{}", markdown(&outcomes));
    let bitten = die_between_commit_and_publication(DEATHS);
    println!(
        "auth service killed between commit and publication: {DEATHS} times, {bitten} bans bit after the restart"
    );
}
