//! The bare proxy on the gateway's allocator, and nothing else of it: what the allocator is worth.
//!
//! Started by `proxy-comparison`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use durward_bench::role;
// Its `malloc` is the one of this program, as it is the gateway's.
use mimalloc as _;

fn main() -> ExitCode {
    role::play_if_asked().unwrap_or_else(|| {
        eprintln!("mimalloc-proxy: this program is started by proxy-comparison");
        ExitCode::FAILURE
    })
}
