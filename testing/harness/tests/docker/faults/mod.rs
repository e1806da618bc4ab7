//! Daemons and processes that die, with daemons of their own.

/// A test with daemons of its own.
pub type Fault = fn();

/// All of them.
pub const FAULTS: &[(&str, Fault)] = &[];
