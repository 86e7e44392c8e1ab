//! Faults between auth service, Redis and gateway, with real processes: what is accepted that should
//! not be, what is refused that need not be, and for how long.
//!
//! Each fault is tried here once and briefly. `make faults` tries them for longer and prints the table
//! of docs/FAULTS.md.

mod between;
mod clocks;
mod crashes;
mod failover;
mod measure;
mod stage;
mod stores;
mod table;
mod whole_run;
