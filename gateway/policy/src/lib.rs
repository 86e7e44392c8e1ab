//! The access decision, pure: no runtime, no store, no clock
