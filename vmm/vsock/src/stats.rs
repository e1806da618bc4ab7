//! What is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one device, since it was made. Clones are the same counters.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    to_guest_bytes: AtomicU64,
    to_guest_packets: AtomicU64,
    from_guest_bytes: AtomicU64,
    from_guest_packets: AtomicU64,
    opened: AtomicU64,
    refused: AtomicU64,
    violations: AtomicU64,
}

impl Stats {
    /// Bytes of streams that the guest was given.
    #[must_use]
    pub fn to_guest_bytes(&self) -> u64 {
        self.counters.to_guest_bytes.load(Ordering::Relaxed)
    }

    /// Packets that the guest was given, those without bytes of a stream included.
    #[must_use]
    pub fn to_guest_packets(&self) -> u64 {
        self.counters.to_guest_packets.load(Ordering::Relaxed)
    }

    /// Bytes of streams that were taken from the guest.
    #[must_use]
    pub fn from_guest_bytes(&self) -> u64 {
        self.counters.from_guest_bytes.load(Ordering::Relaxed)
    }

    /// Packets that were taken from the guest.
    #[must_use]
    pub fn from_guest_packets(&self) -> u64 {
        self.counters.from_guest_packets.load(Ordering::Relaxed)
    }

    /// Connections that were opened, from either side.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.counters.opened.load(Ordering::Relaxed)
    }

    /// Connections that either side wanted and did not get.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.counters.refused.load(Ordering::Relaxed)
    }

    /// Packets of the guest that virtio does not allow.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.counters.violations.load(Ordering::Relaxed)
    }

    pub(crate) fn gave(&self, bytes: u64) {
        add(&self.counters.to_guest_packets, 1);
        add(&self.counters.to_guest_bytes, bytes);
    }

    pub(crate) fn took(&self) {
        add(&self.counters.from_guest_packets, 1);
    }

    pub(crate) fn accepted(&self, bytes: u64) {
        add(&self.counters.from_guest_bytes, bytes);
    }

    pub(crate) fn open(&self) {
        add(&self.counters.opened, 1);
    }

    pub(crate) fn refuse(&self) {
        add(&self.counters.refused, 1);
    }

    pub(crate) fn violate(&self) {
        add(&self.counters.violations, 1);
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
