//! The machine's side of a balloon.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_virtio::{EventFd, Interrupt};

use crate::{PAGE, Statistics};

/// Steers a balloon and tells how it is. Clones are for the same balloon.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    target: AtomicU32,
    actual: AtomicU32,
    inflated: AtomicU64,
    deflated: AtomicU64,
    reported: AtomicU64,
    failed: AtomicU64,
    asked: EventFd,
    /// While there is a driver.
    interrupt: Mutex<Option<Interrupt>>,
    statistics: Mutex<Statistics>,
}

/// What a balloon has done, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// That the guest put into the balloon. A page counts each time.
    pub inflated: u64,
    /// That the guest took out of it.
    pub deflated: u64,
    /// That the guest reported as free, and were discarded.
    pub reported: u64,
    /// That could not be discarded, mostly because they are no memory.
    pub failed: u64,
}

impl Handle {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            target: AtomicU32::new(0),
            actual: AtomicU32::new(0),
            inflated: AtomicU64::new(0),
            deflated: AtomicU64::new(0),
            reported: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            asked: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
            interrupt: Mutex::default(),
            statistics: Mutex::default(),
        })))
    }

    /// Says how many bytes the guest is to give back; parts of pages do not count. It does so in its own time: see
    /// [`actual`](Self::actual).
    pub fn set_target(&self, bytes: u64) {
        let pages = u32::try_from(bytes / PAGE).unwrap_or(u32::MAX);
        if self.0.target.swap(pages, Ordering::AcqRel) != pages
            && let Some(interrupt) = &*lock(&self.0.interrupt)
        {
            interrupt.configuration();
        }
    }

    /// How many bytes the guest is to give back.
    #[must_use]
    pub fn target(&self) -> u64 {
        u64::from(self.target_pages()) * PAGE
    }

    /// How many bytes the guest says that it has given back.
    #[must_use]
    pub fn actual(&self) -> u64 {
        u64::from(self.actual_pages()) * PAGE
    }

    /// Asks the guest for statistics, if they were agreed on. They are there when [`Statistics::reports`] is higher.
    pub fn ask(&self) {
        // It fails only when the counter is full, and then the question is pending already.
        let _ = self.0.asked.write(1);
    }

    /// What the guest said last. A report comes when it has started, and then only when it was asked.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        *lock(&self.0.statistics)
    }

    /// What was done.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let [inflated, deflated, reported, failed] = [
            &self.0.inflated,
            &self.0.deflated,
            &self.0.reported,
            &self.0.failed,
        ]
        .map(|counter| counter.load(Ordering::Relaxed));
        Counts {
            inflated,
            deflated,
            reported,
            failed,
        }
    }

    pub(crate) fn target_pages(&self) -> u32 {
        self.0.target.load(Ordering::Acquire)
    }

    pub(crate) fn actual_pages(&self) -> u32 {
        self.0.actual.load(Ordering::Acquire)
    }

    pub(crate) fn set_actual_pages(&self, pages: u32) {
        self.0.actual.store(pages, Ordering::Release);
    }

    pub(crate) fn asked(&self) -> &EventFd {
        &self.0.asked
    }

    pub(crate) fn connect(&self, interrupt: Option<Interrupt>) {
        *lock(&self.0.interrupt) = interrupt;
    }

    pub(crate) fn report(&self, bytes: &[u8]) {
        let mut statistics = lock(&self.0.statistics);
        *statistics = Statistics::parse(statistics.reports.wrapping_add(1), bytes);
    }

    pub(crate) fn add(&self, done: Counts) {
        for (counter, value) in [
            (&self.0.inflated, done.inflated),
            (&self.0.deflated, done.deflated),
            (&self.0.reported, done.reported),
            (&self.0.failed, done.failed),
        ] {
            counter.fetch_add(value, Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
