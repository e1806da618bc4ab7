//! What a card counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that go on as long as the card lives. Clones are the same counters. Packets that vhost-net carries are not
/// seen here: the tap's interface counts them.
#[derive(Debug, Clone, Default)]
pub struct Statistics {
    directions: Arc<[Counters; 2]>,
}

#[derive(Debug, Default)]
struct Counters {
    packets: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    errors: AtomicU64,
}

/// One direction's counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that passed; one that is to be segmented is one.
    pub packets: u64,
    /// Their bytes, without virtio's header.
    pub bytes: u64,
    /// Packets that were lost as a wire loses them: no link, no room.
    pub dropped: u64,
    /// Packets that were refused: no packet at all, or the tap did not take it.
    pub errors: u64,
}

/// Both directions, as the guest sees them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Into the guest.
    pub received: Counts,
    /// Out of the guest.
    pub transmitted: Counts,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Direction {
    Received,
    Transmitted,
}

impl Statistics {
    /// As they are now.
    #[must_use]
    pub fn read(&self) -> Traffic {
        let counts = |direction: Direction| {
            let counters = self.of(direction);
            Counts {
                packets: counters.packets.load(Ordering::Relaxed),
                bytes: counters.bytes.load(Ordering::Relaxed),
                dropped: counters.dropped.load(Ordering::Relaxed),
                errors: counters.errors.load(Ordering::Relaxed),
            }
        };
        Traffic {
            received: counts(Direction::Received),
            transmitted: counts(Direction::Transmitted),
        }
    }

    fn of(&self, direction: Direction) -> &Counters {
        &self.directions[direction as usize]
    }

    pub(crate) fn passed(&self, direction: Direction, bytes: usize) {
        let counters = self.of(direction);
        counters.packets.fetch_add(1, Ordering::Relaxed);
        counters.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn dropped(&self, direction: Direction) {
        self.of(direction).dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn error(&self, direction: Direction) {
        self.of(direction).errors.fetch_add(1, Ordering::Relaxed);
    }
}
