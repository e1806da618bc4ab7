//! Whether the card has a link.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_virtio::EventFd;

/// Pulls a card's plug out and in. Clones are the same plug; it works as long as the card lives, from any thread.
#[derive(Debug, Clone)]
pub struct Link {
    plug: Arc<Plug>,
}

#[derive(Debug)]
struct Plug {
    up: AtomicBool,
    /// The tap is gone: nothing brings the link back.
    gone: AtomicBool,
    changed: EventFd,
}

impl Link {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            plug: Arc::new(Plug {
                up: AtomicBool::new(true),
                gone: AtomicBool::new(false),
                changed: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
            }),
        })
    }

    /// Pulls the plug out, or puts it in. The driver is told, and the host sees the tap's carrier go and come. Packets
    /// are lost in the meantime.
    pub fn set(&self, up: bool) {
        self.plug.up.store(up, Ordering::Release);
        // It fails only when the counter is full, and then it is ready.
        let _ = self.plug.changed.write(1);
    }

    /// Whether there is a link: the plug is in, and the tap exists, as far as a packet has shown.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.plug.up.load(Ordering::Acquire) && !self.plug.gone.load(Ordering::Acquire)
    }

    /// The tap is gone.
    pub(crate) fn lose(&self) {
        self.plug.gone.store(true, Ordering::Release);
        let _ = self.plug.changed.write(1);
    }

    /// Takes note of a change.
    pub(crate) fn noticed(&self) {
        let _ = self.plug.changed.read();
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.plug.changed.as_raw_fd()
    }
}
