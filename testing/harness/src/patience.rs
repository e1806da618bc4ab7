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

/// What is wrong has to be told within this.
const SOON: Duration = Duration::from_secs(2);

/// How often longer than what works it may take where the machine is so busy that this takes long, too.
const SLOWER: u32 = 3;

/// How often it is tried.
const TRIES: usize = 5;

/// Wants that `wrong` takes two seconds at most, or else no more than three times as long as `right`, which works. Both
/// answer how long they took.
///
/// # Panics
/// When neither is so, in any of several attempts.
pub fn assert_soon(mut wrong: impl FnMut() -> Duration, mut right: impl FnMut() -> Duration) {
    let mut times = Vec::new();
    for _ in 0..TRIES {
        let took = wrong();
        if took <= patient(SOON) {
            return;
        }
        let working = right();
        if took <= working.saturating_mul(SLOWER) {
            return;
        }
        times.push((took, working));
    }
    panic!("too long, and how long what works takes: {times:?}");
}
