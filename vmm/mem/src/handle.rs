//! The machine's side of a region.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_virtio::Interrupt;

use crate::Setup;
use crate::request::Response;

/// How far beyond what was requested a driver may plug: Linux adds memory in pieces of 128 MiB or more, and needs room
/// to find one that fits.
const EXTENT: u64 = 256 << 20;

/// Steers a region and tells how it is. Clones are for the same region.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    setup: Setup,
    sizes: Mutex<Sizes>,
    /// While there is a driver.
    interrupt: Mutex<Option<Interrupt>>,
    done: AtomicU64,
    refused: AtomicU64,
    busy: AtomicU64,
    wrong: AtomicU64,
}

/// In bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sizes {
    pub(crate) requested: u64,
    pub(crate) usable: u64,
    pub(crate) plugged: u64,
}

/// A size that can't be requested.
#[derive(Debug, thiserror::Error)]
#[error("{bytes} bytes can't be plugged into a region of {size} bytes in blocks of {block} bytes")]
pub struct Requested {
    /// What was requested.
    pub bytes: u64,
    /// The size of the region.
    pub size: u64,
    /// The size of a block.
    pub block: u64,
}

/// What drivers have asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were carried out, questions with them.
    pub done: u64,
    /// That would have been more than was requested.
    pub refused: u64,
    /// That the machine could not carry out.
    pub busy: u64,
    /// That make no sense.
    pub wrong: u64,
}

impl Handle {
    pub(crate) fn new(setup: Setup) -> Self {
        Self(Arc::new(Shared {
            setup,
            sizes: Mutex::default(),
            interrupt: Mutex::default(),
            done: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
        }))
    }

    /// Says how much of the region the guest should have. It gets there in its own time: see
    /// [`plugged`](Self::plugged).
    ///
    /// # Errors
    /// [`Requested`]: it is more than the region has, or not whole blocks.
    pub fn set_requested(&self, bytes: u64) -> Result<(), Requested> {
        let Setup { size, block, .. } = self.0.setup;
        if bytes > size || !bytes.is_multiple_of(block) {
            return Err(Requested { bytes, size, block });
        }
        let mut sizes = lock(&self.0.sizes);
        if sizes.requested == bytes {
            return Ok(());
        }
        sizes.requested = bytes;
        sizes.usable = sizes.usable.max(self.usable_for(bytes));
        drop(sizes);
        if let Some(interrupt) = &*lock(&self.0.interrupt) {
            interrupt.configuration();
        }
        Ok(())
    }

    /// How many bytes the guest should have.
    #[must_use]
    pub fn requested(&self) -> u64 {
        self.sizes().requested
    }

    /// How many bytes it has.
    #[must_use]
    pub fn plugged(&self) -> u64 {
        self.sizes().plugged
    }

    /// How many bytes from the region's beginning on it may choose from.
    #[must_use]
    pub fn usable(&self) -> u64 {
        self.sizes().usable
    }

    /// What was asked for.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let [done, refused, busy, wrong] =
            [&self.0.done, &self.0.refused, &self.0.busy, &self.0.wrong]
                .map(|counter| counter.load(Ordering::Relaxed));
        Counts {
            done,
            refused,
            busy,
            wrong,
        }
    }

    pub(crate) fn sizes(&self) -> Sizes {
        *lock(&self.0.sizes)
    }

    pub(crate) fn set_plugged(&self, bytes: u64) {
        lock(&self.0.sizes).plugged = bytes;
    }

    /// As small as it may be. The driver is not told: it has asked for it.
    pub(crate) fn shrink_usable(&self) {
        let mut sizes = lock(&self.0.sizes);
        sizes.usable = self.usable_for(sizes.requested);
    }

    pub(crate) fn connect(&self, interrupt: Option<Interrupt>) {
        *lock(&self.0.interrupt) = interrupt;
    }

    pub(crate) fn count(&self, response: Response) {
        let counter = match response {
            Response::Done | Response::State(_) => &self.0.done,
            Response::Refused => &self.0.refused,
            Response::Busy => &self.0.busy,
            Response::Error => &self.0.wrong,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn usable_for(&self, requested: u64) -> u64 {
        if requested == 0 {
            return 0;
        }
        let Setup { size, block, .. } = self.0.setup;
        requested.saturating_add(EXTENT.max(block)).min(size)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
