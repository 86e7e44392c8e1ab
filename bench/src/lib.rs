//! Benchmarks: micro with criterion, whole-process with real processes
