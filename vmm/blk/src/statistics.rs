//! What a disk has done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A disk's numbers. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Statistics(Arc<Counters>);

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) reads: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) discards: AtomicU64,
    pub(crate) zeroes: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) throttled: AtomicU64,
}

/// The numbers at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads that succeeded.
    pub reads: u64,
    /// What they have read.
    pub read_bytes: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// What they have written.
    pub written_bytes: u64,
    /// Flushes that succeeded.
    pub flushes: u64,
    /// Discards that succeeded.
    pub discards: u64,
    /// Requests for zeros that succeeded.
    pub zeroes: u64,
    /// Requests that failed: bad ones, and those that the storage has failed.
    pub errors: u64,
    /// How often a queue was held up by the limits.
    pub throttled: u64,
}

impl Statistics {
    /// The numbers now.
    #[must_use]
    pub fn read(&self) -> Counts {
        let counters = self.counters();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            reads: get(&counters.reads),
            read_bytes: get(&counters.read_bytes),
            writes: get(&counters.writes),
            written_bytes: get(&counters.written_bytes),
            flushes: get(&counters.flushes),
            discards: get(&counters.discards),
            zeroes: get(&counters.zeroes),
            errors: get(&counters.errors),
            throttled: get(&counters.throttled),
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.0
    }

    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}
