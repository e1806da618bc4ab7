//! What the device counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that go on as long as the device lives. Clones are the same counters.
#[derive(Debug, Clone, Default)]
pub struct Statistics {
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    bytes: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were answered.
    pub requests: u64,
    /// Random bytes that were given.
    pub bytes: u64,
}

impl Statistics {
    /// As they are now.
    #[must_use]
    pub fn read(&self) -> Counts {
        Counts {
            requests: self.counters.requests.load(Ordering::Relaxed),
            bytes: self.counters.bytes.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        self.counters
            .bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
