//! Micro-benchmarks of the decision and of what it asks. `cargo bench -p durward-bench`; a name after
//! `--` runs those that contain it.

#![forbid(unsafe_code)]

mod decide;
mod fixtures;
mod mirror;
mod prove;
mod routes;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    benches,
    decide::warm,
    prove::cold,
    routes::tables,
    routes::readings,
    mirror::mirror
);
criterion_main!(benches);
