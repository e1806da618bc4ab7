//! What the console counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that go on as long as the device lives. Clones are the same counters.
#[derive(Debug, Clone, Default)]
pub struct Statistics {
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    printed: AtomicU64,
    lost: AtomicU64,
    typed: AtomicU64,
}

/// The counters at one moment, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Written to the output.
    pub printed: u64,
    /// Printed by the guest, and never written.
    pub lost: u64,
    /// Given to the guest.
    pub typed: u64,
}

impl Statistics {
    /// As they are now.
    #[must_use]
    pub fn read(&self) -> Counts {
        let counters = &self.counters;
        Counts {
            printed: counters.printed.load(Ordering::Relaxed),
            lost: counters.lost.load(Ordering::Relaxed),
            typed: counters.typed.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn printed(&self, bytes: usize) {
        add(&self.counters.printed, bytes);
    }

    pub(crate) fn lost(&self, bytes: usize) {
        add(&self.counters.lost, bytes);
    }

    pub(crate) fn typed(&self, bytes: usize) {
        add(&self.counters.typed, bytes);
    }
}

fn add(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(bytes as u64, Ordering::Relaxed);
}
