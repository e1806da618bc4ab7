//! What a disk is made of.

use std::io;

use rustix::fs::FileType;
use vmm_virtio::Rates;

use crate::Engine;

/// The most queues that a disk may have. One thread serves all: more are for the driver's processors only.
pub(crate) const MOST_QUEUES: u16 = 16;

/// How a disk is shown to its driver.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The driver may not write. A disk whose file is not open for writing must be read-only.
    pub read_only: bool,
    /// What the driver gets for a serial number (`/dev/disk/by-id/virtio-…`): ASCII, zeros at the end.
    pub serial: [u8; 20],
    /// The logical block size in bytes, a power of two from 512 to 4096. A file that was opened with `O_DIRECT` needs
    /// that of its storage: requests that are not a multiple of it, or whose memory is not aligned as the storage wants,
    /// fail.
    pub block_size: u32,
    /// How many queues, 1 to 16.
    pub queues: u16,
    /// How much it may do per second.
    pub rates: Rates,
    /// The engine; `None` for the best that there is.
    pub engine: Option<Engine>,
}

impl Default for Options {
    /// Writable, no serial number, blocks of 512 bytes, one queue, no limits, the best engine.
    fn default() -> Self {
        Self {
            read_only: false,
            serial: [0; 20],
            block_size: 512,
            queues: 1,
            rates: Rates::default(),
            engine: None,
        }
    }
}

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It is neither a file nor a block device.
    #[error("a disk must be a file or a block device, this is {0:?}")]
    Kind(FileType),
    /// It is not open for what the disk does with it.
    #[error("the disk's file is not open for {0}")]
    Access(&'static str),
    /// No such block size.
    #[error("a disk's block size must be a power of two from 512 to 4096, not {0}")]
    BlockSize(u32),
    /// No such number of queues.
    #[error("a disk must have 1 to {MOST_QUEUES} queues, not {0}")]
    Queues(u16),
    /// The operating system refused.
    #[error("cannot {0} the disk")]
    System(&'static str, #[source] io::Error),
}
