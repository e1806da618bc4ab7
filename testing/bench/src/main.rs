//! Whole-command timings and memory, as ratios of one run.

fn main() {}
