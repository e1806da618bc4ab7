//! Telling the driver.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use vmm_sys_util::eventfd::EventFd;

/// `InterruptStatus`: the device has used a buffer (virtio 1.3, 4.2.2).
const USED_BUFFER: u32 = 1;

/// `InterruptStatus`: the configuration has changed.
const CONFIGURATION: u32 = 2;

/// A device's interrupt: its status register and an event that the machine turns into an edge (an irqfd). Clones are the
/// same interrupt.
#[derive(Debug, Clone)]
pub struct Interrupt {
    line: Arc<Line>,
}

#[derive(Debug)]
struct Line {
    status: AtomicU32,
    generation: AtomicU32,
    event: EventFd,
    raised: AtomicU64,
    kicks: AtomicU64,
}

/// How often driver and device have told each other something, since the device has its place. What the kernel or another
/// process does in the device's stead (vhost, vhost-user) is not seen here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signals {
    /// Kicks of its queues.
    pub kicks: u64,
    /// Its interrupts.
    pub interrupts: u64,
}

impl Interrupt {
    /// An interrupt that nobody listens to yet.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            line: Arc::new(Line {
                status: AtomicU32::new(0),
                generation: AtomicU32::new(0),
                event: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
                raised: AtomicU64::new(0),
                kicks: AtomicU64::new(0),
            }),
        })
    }

    /// Tells the driver that buffers were used.
    pub fn used_buffer(&self) {
        self.raise(USED_BUFFER);
    }

    /// Tells the driver that the configuration has changed.
    pub fn configuration(&self) {
        self.line.generation.fetch_add(1, Ordering::AcqRel);
        self.raise(CONFIGURATION);
    }

    /// What the machine connects to the interrupt controller. Another process that raises it (vhost) leaves the status
    /// alone: see [`status`](Self::status).
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.line.event
    }

    /// The register. `USED_BUFFER` is always set: whoever raises the event from outside this process cannot set it, and
    /// a driver that looks at its rings once too often loses nothing.
    pub(crate) fn status(&self) -> u32 {
        self.line.status.load(Ordering::Acquire) | USED_BUFFER
    }

    /// How often the configuration has changed: a driver that reads several fields reads this before and after.
    pub(crate) fn generation(&self) -> u32 {
        self.line.generation.load(Ordering::Acquire)
    }

    /// What was counted.
    pub(crate) fn signals(&self) -> Signals {
        Signals {
            kicks: self.line.kicks.load(Ordering::Relaxed),
            interrupts: self.line.raised.load(Ordering::Relaxed),
        }
    }

    /// The driver has kicked a queue so many times.
    pub(crate) fn kicked(&self, count: u64) {
        self.line.kicks.fetch_add(count, Ordering::Relaxed);
    }

    /// The device is gone: the next one's driver is told of none of its changes, and nothing was counted.
    pub(crate) fn forget(&self) {
        self.acknowledge(u32::MAX);
        self.line.kicks.store(0, Ordering::Relaxed);
        self.line.raised.store(0, Ordering::Relaxed);
    }

    pub(crate) fn acknowledge(&self, bits: u32) {
        self.line.status.fetch_and(!bits, Ordering::AcqRel);
    }

    fn raise(&self, bit: u32) {
        self.line.status.fetch_or(bit, Ordering::AcqRel);
        self.line.raised.fetch_add(1, Ordering::Relaxed);
        // It fails only when the counter is full, and then the interrupt is pending already.
        let _ = self.line.event.write(1);
    }
}
