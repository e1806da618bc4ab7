//! The device.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, io};

use rustix::fs::{FileType, OFlags, SeekFrom};
use vmm_virtio::{Activation, Broken, ConfigSpace, Device, Flags, Interrupt, Offer, RateLimiter};

use crate::configuration::{self, QUEUE_SIZE, SECTOR, WRITEBACK};
use crate::engine::{self, Access, Begin, Engine};
use crate::options::{DiskError, MOST_QUEUES, Options};
use crate::serve::{Active, Storage};
use crate::statistics::Statistics;

/// Virtio's number of the device (5.2.1).
const KIND: u32 = 2;

/// A disk.
pub struct Disk {
    // Before the storage, whose descriptors it watches.
    active: Option<Active>,
    pub(crate) storage: Storage,
    engine: Engine,
    options: Options,
    control: Control,
    writeback: bool,
}

impl Disk {
    /// A disk on a file or block device that is open for reading and, unless it is read-only, for writing. What doesn't
    /// fill a block at its end is left out.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn new(file: OwnedFd, options: Options) -> Result<Self, DiskError> {
        Self::confined(file, options, Arc::new(|| Ok(())))
    }

    /// As [`new`](Self::new). `begin` runs first in the thread that serves the disk, if it is served by one: what it cannot do
    /// is the end of the disk, which then answers nothing.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn confined(file: OwnedFd, options: Options, begin: Begin) -> Result<Self, DiskError> {
        if !options.block_size.is_power_of_two() || !(512..=4096).contains(&options.block_size) {
            return Err(DiskError::BlockSize(options.block_size));
        }
        if !(1..=MOST_QUEUES).contains(&options.queues) {
            return Err(DiskError::Queues(options.queues));
        }
        let examine = |error: rustix::io::Errno| DiskError::System("examine", error.into());
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).map_err(examine)?.st_mode);
        if !matches!(kind, FileType::RegularFile | FileType::BlockDevice) {
            return Err(DiskError::Kind(kind));
        }
        let flags = rustix::fs::fcntl_getfl(&file).map_err(examine)?;
        match flags & OFlags::RWMODE {
            OFlags::RDWR => {}
            OFlags::RDONLY if options.read_only => {}
            OFlags::RDONLY => return Err(DiskError::Access("writing")),
            _ => return Err(DiskError::Access("reading")),
        }
        let file = Arc::new(file);
        let control = Control(Arc::new(Shared {
            sectors: AtomicU64::new(0),
            file: Arc::clone(&file),
            block: u64::from(options.block_size),
            interrupt: Mutex::default(),
        }));
        control
            .remeasure()
            .map_err(|error| DiskError::System("measure", error))?;
        let access = Access {
            write: !options.read_only,
            direct: flags.contains(OFlags::DIRECT),
        };
        let (engine, work) = engine::start(&file, access, options.engine, begin)
            .map_err(|error| DiskError::System("set up input and output of", error))?;
        let limiter = options
            .rates
            .limited()
            .then(|| RateLimiter::new(options.rates))
            .transpose()
            .map_err(|error| DiskError::System("limit", error))?;
        Ok(Self {
            active: None,
            storage: Storage {
                work,
                limiter,
                statistics: Statistics::default(),
                regular: kind == FileType::RegularFile,
                direct: access.direct,
                file,
                failures: 0,
            },
            engine,
            options,
            control,
            writeback: true,
        })
    }

    /// What serves it.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// What it has done, to be read while it does more.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.storage.statistics.clone()
    }

    /// What can be done to it while it is plugged in.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }
}

/// A hand on a disk that is plugged in. Clones are of the same disk.
#[derive(Clone)]
pub struct Control(Arc<Shared>);

struct Shared {
    sectors: AtomicU64,
    file: Arc<OwnedFd>,
    block: u64,
    interrupt: Mutex<Option<Interrupt>>,
}

impl Control {
    /// Looks how long the file or block device is now, and tells the driver if that has changed. Answers the length that
    /// the driver sees, in bytes. Requests behind a new end fail; what is on their way may still succeed.
    ///
    /// # Errors
    /// When it can't be measured.
    pub fn remeasure(&self) -> io::Result<u64> {
        let Self(shared) = self;
        // The one way that knows the size of both; nobody uses the descriptor's position.
        let length = rustix::fs::seek(&shared.file, SeekFrom::End(0))?;
        let sectors = length / shared.block * shared.block / SECTOR;
        if shared.sectors.swap(sectors, Ordering::AcqRel) != sectors
            && let Some(interrupt) = &*shared.lock()
        {
            interrupt.configuration();
        }
        Ok(sectors * SECTOR)
    }

    fn sectors(&self) -> u64 {
        self.0.sectors.load(Ordering::Acquire)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Interrupt>> {
        self.interrupt
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("sectors", &self.sectors())
            .finish_non_exhaustive()
    }
}

impl Device for Disk {
    fn offer(&self) -> Offer {
        Offer {
            kind: KIND,
            features: configuration::features(&self.options),
            queues: vec![QUEUE_SIZE; usize::from(self.options.queues)],
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let bytes = configuration::bytes(&self.options, self.control.sectors(), self.writeback);
        ConfigSpace(&bytes).read(offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (WRITEBACK, &[value]) = (offset, data) {
            self.writeback = value & 1 != 0;
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), Broken> {
        *self.control.0.lock() = Some(activation.interrupt.clone());
        self.active = Some(Active::new(activation, &self.storage)?);
        Ok(())
    }

    fn event(&mut self, token: u32, _flags: Flags) -> Result<(), Broken> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let sectors = self.control.sectors();
        active.event(token, &mut self.storage, |features, storage| {
            storage.terms(&self.options, sectors, features, self.writeback)
        })
    }

    fn reset(&mut self) {
        // Watches go first: the loop must not come and wait for a reset that waits for storage.
        self.active = None;
        self.storage.stop();
        *self.control.0.lock() = None;
        self.writeback = true;
    }
}
