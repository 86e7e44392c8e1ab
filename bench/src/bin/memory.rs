//! What connections and long bodies cost the gateway in memory, with its real binary.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use durward_bench::memory::{self, Options};
use durward_bench::{Fallible, child, role};

/// Holds idle connections and WebSockets, sends and fetches long bodies, and tells the resident memory
/// of the gateway before, at its peak, and after
#[derive(Debug, Parser)]
struct Arguments {
    /// The gateway's binary
    #[arg(long, value_name = "PATH")]
    durward: PathBuf,
    /// Connections that are kept open after one request each
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// WebSockets
    #[arg(long, default_value_t = 1_000)]
    web_sockets: usize,
    /// MiB of the upload, and of the download
    #[arg(long, default_value_t = 1_024)]
    transfer: u64,
}

fn main() -> ExitCode {
    role::play_if_asked().unwrap_or_else(|| match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memory: {error}");
            ExitCode::FAILURE
        }
    })
}

fn run(arguments: &Arguments) -> Fallible<()> {
    child::end_everything_when_told_to()?;
    memory::run(&Options {
        durward: arguments.durward.canonicalize()?,
        idle: arguments.idle,
        web_sockets: arguments.web_sockets,
        transfer: arguments.transfer << 20,
    })
}
