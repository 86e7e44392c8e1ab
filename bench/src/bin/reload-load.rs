//! How many requests reloads and upgrades lose, with the gateway's real binary: none, or it fails.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use durward_bench::reload::{self, Options};
use durward_bench::{Fallible, child, role};

/// Reloads the configuration and upgrades the binary under load, and counts the requests that get no
/// answer
#[derive(Debug, Parser)]
struct Arguments {
    /// The gateway's binary
    #[arg(long, value_name = "PATH")]
    durward: PathBuf,
    /// Reloads of the configuration
    #[arg(long, default_value_t = 50)]
    reloads: usize,
    /// Upgrades of the binary
    #[arg(long, default_value_t = 5)]
    upgrades: usize,
    /// Where the picture goes
    #[arg(long, default_value = "bench/reload.svg", value_name = "FILE")]
    plot: PathBuf,
}

fn main() -> ExitCode {
    role::play_if_asked().unwrap_or_else(|| match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reload-load: {error}");
            ExitCode::FAILURE
        }
    })
}

fn run(arguments: Arguments) -> Fallible<()> {
    child::end_everything_when_told_to()?;
    let Arguments {
        durward,
        reloads,
        upgrades,
        plot,
    } = arguments;
    reload::run(&Options {
        durward: durward.canonicalize()?,
        reloads,
        upgrades,
        plot,
    })
}
