//! How long a ban takes to bite, and how long the gateway takes to start, with its real binary.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use durward_bench::ban::{self, Options};
use durward_bench::{Fallible, child, role};

/// Bans users one by one and asks in their name at once: how long until the refusal, and was
/// anything accepted after the acknowledgement
#[derive(Debug, Parser)]
struct Arguments {
    /// The gateway's binary
    #[arg(long, value_name = "PATH")]
    durward: PathBuf,
    /// Users that are banned: half over HTTP, half over the control socket
    #[arg(long, default_value_t = 600)]
    bans: usize,
    /// Users with an open WebSocket that are banned
    #[arg(long, default_value_t = 100)]
    web_sockets: usize,
    /// Entries of the revocation log beforehand
    #[arg(long, default_value_t = 1000)]
    entries: u64,
    /// Starts that are timed
    #[arg(long, default_value_t = 10)]
    starts: usize,
}

fn main() -> ExitCode {
    role::play_if_asked().unwrap_or_else(|| match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ban-latency: {error}");
            ExitCode::FAILURE
        }
    })
}

fn run(arguments: Arguments) -> Fallible<()> {
    child::end_everything_when_told_to()?;
    let durward = arguments.durward.canonicalize()?;
    let Arguments {
        bans,
        web_sockets,
        entries,
        starts,
        ..
    } = arguments;
    ban::run(&Options {
        durward,
        bans,
        web_sockets,
        entries,
        starts,
    })
}
