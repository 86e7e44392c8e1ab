//! The one binary: command line and wiring, nothing else.

#![forbid(unsafe_code)]

mod auth_admin;
mod banner;
mod cli;
mod commands;
mod configuration;
mod control;
mod demo;
mod exit;
mod log;
mod loopback;
mod news;
mod news_metrics;
mod reload;
mod running;
mod shutdown;
mod upgrade;

use std::future::Future;
use std::process::ExitCode;

use clap::Parser;

use cli::{AuthArguments, AuthCommand, Command, CommandLine, DemoCommand, TokenCommand};
use exit::Failure;

// A request takes and gives back some eighty pieces of memory; the system's allocator needs three times
// the instructions for them (bench/README.md). Linked in, this one takes the place of `malloc` itself, for
// Rust and C alike. Not in debug builds: libfaketime, by which tests set clocks, and an allocator that asks
// for the time call each other for ever.
#[cfg(not(debug_assertions))]
use mimalloc as _;

/// The allocator asks for huge pages, with which a connection's buffers of 64 KiB are resident as a whole
/// when their first bytes are written: 180 KiB for a WebSocket instead of 58 (bench/README.md). Where the
/// system does not know this, it stays as it was.
fn keep_pages_small() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

fn main() -> ExitCode {
    keep_pages_small();
    match run(CommandLine::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("durward: {failure}");
            failure.code()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(file) => serve(commands::up::run(file)),
        Command::Gateway(file) => serve(commands::gateway::run(file)),
        Command::Auth(AuthArguments { file, command: None }) => serve(commands::auth::run(file)),
        Command::Auth(AuthArguments {
            command: Some(AuthCommand::Migrate { file, check, json }),
            ..
        }) => ask(commands::migrate::run(file, check, json)),
        Command::Demo(DemoCommand::Api { listen }) => serve(demo::api_alone(listen)),
        Command::Demo(DemoCommand::Images { listen, folder }) => serve(demo::images_alone(listen, folder)),
        Command::Check(arguments) => commands::check::run(&arguments),
        Command::Reload(arguments) => ask(commands::reload::run(arguments)),
        Command::Explain(arguments) => ask(commands::explain::run(arguments)),
        Command::User(command) => ask(commands::users::run(command)),
        Command::Apikey(command) => ask(commands::apikey::run(command)),
        Command::Ban(arguments) => ask(commands::users::ban(arguments)),
        Command::Unban(arguments) => ask(commands::users::unban(arguments)),
        Command::Sessions(arguments) => ask(commands::sessions::run(arguments)),
        Command::Revoke(arguments) => ask(commands::revoke::run(arguments)),
        Command::Audit(arguments) => ask(commands::audit::run(arguments)),
        Command::Keys(command) => ask(commands::keys::run(command)),
        Command::Token(TokenCommand::Inspect { token, json }) => commands::token::inspect(&token, json),
    }
}

/// Runs a service: with a log on standard error, on all cores.
fn serve(service: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    upgrade::note_binary();
    log::to_standard_error();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::failed)?
        .block_on(service)
}

/// Runs a command that asks a service and ends.
fn ask(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::failed)?
        .block_on(command)
}
