//! How much longer than elsewhere everything may take.
//!
//! `COFFERDAM_TEST_PATIENCE` multiplies every limit of the tests, and the time that a guest has for its boot. In a test host,
//! where a machine emulates a machine, `cargo xtask kvm-tests` sets it.

use std::env;
use std::time::Duration;

/// The factor; 1 unless it is set to a greater number.
pub(crate) fn patience() -> u32 {
    env::var("COFFERDAM_TEST_PATIENCE")
        .ok()
        .and_then(|factor| factor.parse().ok())
        .unwrap_or(1)
        .max(1)
}

/// A limit that was chosen for this machine, as it is where the tests run.
#[must_use]
pub fn patient(limit: Duration) -> Duration {
    limit.saturating_mul(patience())
}
