//! How long a ban takes to bite on several gateways behind one database and one Redis.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use durward_bench::fleet::FleetOptions;
use durward_bench::{Fallible, child, fleet_ban, fleet_scaling, role};

/// Bans users one by one, with processors to spare and then without, and asks in their name on every
/// gateway: how long until all of them refuse
#[derive(Debug, Parser)]
struct Arguments {
    /// The gateway's binary
    #[arg(long, value_name = "PATH")]
    durward: PathBuf,
    /// Gateways
    #[arg(long, default_value_t = 3)]
    gateways: usize,
    /// Auth replicas, which ban in turn
    #[arg(long, default_value_t = 2)]
    replicas: usize,
    /// One auth service on SQLite in place of replicas on PostgreSQL
    #[arg(long)]
    sqlite: bool,
    /// Bans under each load
    #[arg(long, default_value_t = 1000)]
    bans: usize,
    /// Bans under each load that wait for the gateways
    #[arg(long, default_value_t = 300)]
    waits: usize,
    /// Users under each load with a WebSocket open on every gateway who are banned
    #[arg(long, default_value_t = 300)]
    web_sockets: usize,
    /// Bans a second, at most
    #[arg(long, default_value_t = 20.0)]
    bans_per_second: f64,
    /// Requests a second over all gateways while there are processors to spare
    #[arg(long, default_value_t = 1500.0)]
    rate: f64,
    /// Connections of the load to each gateway
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Users whose tokens the load has
    #[arg(long, default_value_t = 32)]
    load_users: usize,
    /// Where the plot goes
    #[arg(long, value_name = "FILE", default_value = "bench/fleet-latency.svg")]
    plot: PathBuf,
    /// Measures instead what news costs with more gateways and more bans
    #[arg(long)]
    scaling: bool,
    /// With --scaling: numbers of gateways
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3, 6, 10])]
    scaling_gateways: Vec<usize>,
    /// With --scaling: bans a second
    #[arg(long, value_delimiter = ',', default_values_t = [10.0, 100.0, 500.0])]
    scaling_rates: Vec<f64>,
    /// With --scaling: seconds for each
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

fn main() -> ExitCode {
    role::play_if_asked().unwrap_or_else(|| match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet-latency: {error}");
            ExitCode::FAILURE
        }
    })
}

fn run(arguments: Arguments) -> Fallible<()> {
    child::end_everything_when_told_to()?;
    let fleet = FleetOptions {
        durward: arguments.durward.canonicalize()?,
        gateways: arguments.gateways.max(1),
        replicas: arguments.replicas.max(1),
        sqlite: arguments.sqlite,
    };
    if arguments.scaling {
        let mut gateways = arguments.scaling_gateways;
        gateways.sort_unstable();
        return fleet_scaling::run(&fleet_scaling::Options {
            fleet,
            gateways,
            rates: arguments.scaling_rates,
            measured: Duration::try_from_secs_f64(arguments.seconds)?,
        });
    }
    fleet_ban::run(&fleet_ban::Options {
        fleet,
        bans: arguments.bans,
        waits: arguments.waits,
        web_sockets: arguments.web_sockets,
        bans_per_second: arguments.bans_per_second.max(0.1),
        rate: arguments.rate.max(1.0),
        connections: arguments.connections.max(1),
        load_users: arguments.load_users.max(1),
        plot: arguments.plot,
    })
}
