//! What the gateway costs over the same Pingora without it, measured on this machine in one go.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use durward_bench::comparison::{self, Options};
use durward_bench::contender::FieldOptions;
use durward_bench::role::Under;
use durward_bench::{Fallible, child, instructions, role};

/// Compares the gateway with a bare Pingora proxy, under the same load, in interleaved rounds
#[derive(Debug, Parser)]
struct Arguments {
    /// The gateway's binary; without it, the bare proxy is compared with itself: that is the noise
    #[arg(long, value_name = "PATH")]
    durward: Option<PathBuf>,
    /// Rounds; in each, every variant is measured once
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Seconds that each measurement takes
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Seconds of the same load before each measurement
    #[arg(long, default_value_t = 0.3)]
    warm_up: f64,
    /// Keep-alive connections
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Requests a second over all connections (open loop); as fast as they are answered without it
    #[arg(long)]
    rate: Option<f64>,
    /// Worker threads of every proxy; one for each processor that it may use without it
    #[arg(long)]
    workers: Option<usize>,
    /// Entries of the revocation mirror
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// Users, each with a token
    #[arg(long, default_value_t = 64)]
    users: usize,
    /// Lets every process run on every processor. Otherwise proxies have the upper half of them, and
    /// backend and load generator the lower, so that they do not push each other aside
    #[arg(long)]
    unpinned: bool,
    /// Counts instructions under valgrind in so many requests to each variant, instead of taking time:
    /// for machines on which others run, too. What is above does not count then
    #[arg(long, value_name = "REQUESTS")]
    instructions: Option<u32>,
}

fn main() -> ExitCode {
    role::play_if_asked().unwrap_or_else(|| match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy-comparison: {error}");
            ExitCode::FAILURE
        }
    })
}

fn run(arguments: Arguments) -> Fallible<()> {
    child::end_everything_when_told_to()?;
    let durward = arguments.durward.map(|path| path.canonicalize()).transpose()?;
    if let Some(requests) = arguments.instructions {
        return instructions::run(durward, requests);
    }
    let processors = std::thread::available_parallelism()?.get();
    let pinned = processors > 1 && !arguments.unpinned;
    let (lower, upper) = (processors / 2, processors - processors / 2);
    comparison::run(&Options {
        field: FieldOptions {
            durward,
            entries: arguments.entries,
            users: arguments.users.max(1),
            workers: arguments
                .workers
                .unwrap_or(if pinned { upper } else { processors }),
            proxies_under: pinned.then(|| Under::Processors(format!("{lower}-{}", processors - 1))),
            others_under: pinned.then(|| Under::Processors(format!("0-{}", lower - 1))),
        },
        rounds: arguments.rounds.max(1),
        warm_up: Duration::try_from_secs_f64(arguments.warm_up)?,
        measured: Duration::try_from_secs_f64(arguments.seconds)?,
        connections: arguments.connections,
        rate: arguments.rate,
    })
}
